"""What must not be in the code that NVRTC makes of our sources.

In: a source, or the PTX and the log of a compilation.  Out: complaints, a line each; `Usage` of every kernel; a table of it.

PTX is nearly in static single assignment, so what a register holds is found by following it through all instructions at once,
whatever their order: a register that may point into two arrays points into both.  Which parameters are arrays the source says.
"""
from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

FORBIDDEN = {
    "atomic arithmetic of floats": r"\b(?:atom|red)\b[\w.:]*\.(?:b?f16|b?f16x2|f32|f64|f32x2)\b",
    "a loop of compare and swap": r"\batom\b[\w.:]*\.cas\b[\w.:]*",
    "an approximation": r"\b[a-z]\w*\.(?:[\w.]*\.)?(?:approx|full)\b[\w.]*",
    "denormals flushed": r"\b[a-z]\w*\.(?:[\w.]*\.)?ftz\b[\w.]*",
    "an operation that the assembler may fuse": r"(?<![\w.])(?:mul|add|sub)\.(?:sat\.)?(?:f16|f32|f64|f16x2|bf16|bf16x2|f32x2)\b",
    "a call": r"\bcall\b[\w.]*\s*[^;]*",
}
"""What an instruction must not be.  Without `.rn` a product and a sum may become one; everything of ours is inlined."""

RECIPROCAL = "rcp.approx.ftz.f32"
"""An approximation that is allowed where it is corrected, as `lr_ratio` does it: r <- r + r (1 - b r), and r is used for nothing else."""

MARK = """__device__ inline float lr_marked(float a, float b, float c) {
    float r; asm("marked.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c)); return r; }
__device__ inline double lr_marked(double a, double b, double c) {
    double r; asm("marked.f64 %0, %1, %2, %3;" : "=d"(r) : "d"(a), "d"(b), "d"(c)); return r; }
#define fmaf lr_marked
#define fma lr_marked
"""
"""Before a source: every `fma` that is written becomes an instruction that there is not.  Such code is read, not assembled."""

ENTRY = re.compile(r"\.entry\s+(\w+)\s*\((.*?)\)[^{;]*\{(.*?)\n\}", re.DOTALL)
SIGNATURE = re.compile(r"__global__\s+void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\(([^)]*)\)")
SCALAR = re.compile(r"(?:const )?(?:bool|int|unsigned(?: int| long long)?|long long|float|double)(?: const)? \w+")
# No array of a program has elements of this type: they are addresses.
ADDRESSES = re.compile(r"(?:const )?unsigned long long\s*\*")
UNKNOWN = "an array that no parameter names"
TABLE, LISTED = " (a table)", ", an array in it"
INSTRUCTION = re.compile(r"(?:@!?%\w+\s+)?([a-z][\w.:]*)(?:\s+([^;]*))?")
WORDS = re.compile(r"%?[A-Za-z_$][\w$.]*")
FUSED = re.compile(r"\bfma\.[\w.]+")


def entries(ptx: str) -> dict[str, str]:
    """The bodies of the kernels."""
    return {name: body for name, _, body in ENTRY.findall(without_comments(ptx))}


def without_comments(ptx: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", ptx, flags=re.DOTALL)


def without_corrected(body: str) -> str:
    """Without the reciprocals that are corrected."""
    def corrected(found: re.Match[str]) -> str:
        r, b = found[1], found[2]
        negated = re.search(rf"neg\.f32\s+(%f\d+), {b};", body)
        error = negated and re.search(rf"fma\.rn\.f32\s+(%f\d+), {negated[1]}, {r}, \S+;", body)
        better = error and re.search(rf"fma\.rn\.f32\s+%f\d+, {error[1]}, {r}, {r};", body)
        return "" if better and len(re.findall(rf"{r}(?!\d)", body)) == 4 else found[0]
    return re.sub(rf"{re.escape(RECIPROCAL)}\s+(%f\d+), (%f\d+);", corrected, body)


def complaints(source: str, ptx: str) -> list[str]:
    """Everything wrong with unmarked code, but what is fused."""
    found = []
    arrays = arrays_of(source)
    for name, body in entries(ptx).items():
        for what, pattern in FORBIDDEN.items():
            found += [f"{name}: {what}: {text.strip()}" for text in dict.fromkeys(re.findall(pattern, without_corrected(body)))]
        found += [f"{name}: {array} is read through the cache of constants (ld.global.nc), and written"
                  for array in read_stale(body, arrays.get(name, {}))]
    return found


def fused(marked: str) -> list[str]:
    """Products and sums made one where the source has no `fma`; of code compiled with `MARK` before the source."""
    return [f"{name}: a product and a sum are fused, and the source does not say so: {text}"
            for name, body in entries(marked).items() for text in dict.fromkeys(FUSED.findall(body))]


# ---------------------------------------------------------------- what is read and written
def arrays_of(source: str) -> dict[str, dict[str, str]]:
    """The parameters of kernels that may hold an address: their names by what PTX calls them."""
    found = {}
    for name, inside in SIGNATURE.findall(source):
        parameters = [p.strip() for p in inside.split(",")]
        found[name] = {f"{name}_param_{k}": p.split()[-1].lstrip("*") + (TABLE if ADDRESSES.match(p) else "")
                       for k, p in enumerate(parameters) if p and not SCALAR.fullmatch(p)}
    return found


def read_stale(body: str, arrays: Mapping[str, str]) -> list[str]:
    """Arrays that are read by `ld.global.nc`, which need not see what this kernel wrote.

    Where threads wait for each other such an array may not be written anywhere, for reads may have been moved over the barrier.
    Where they do not, a thread sees its own writes only, and it does harm if a way leads from one to the read."""
    instructions, after = graph(body)
    together = any(op.startswith(("bar.", "barrier.")) for op, _ in instructions)
    holds = pointers(instructions, arrays)
    read, written = defaultdict(set), defaultdict(set)
    for place, (op, operands) in enumerate(instructions):
        address = re.search(r"\[([^\]+]+)", operands)
        if address is None or re.search(r"\.(?:shared|local|param|const)\b", op):
            continue
        is_cached, is_write = op.startswith("ld.global") and ".nc" in op, op.startswith(("st.", "atom.", "red."))
        for array in holds.get(address[1].strip()) or {UNKNOWN}:
            if is_cached or is_write:
                (read if is_cached else written)[array].add(place)
    found = []
    for array, places in read.items():
        writes = set().union(*written.values()) if array == UNKNOWN else written[array] | written[UNKNOWN]
        if writes and (together or places & reached(writes, after)):
            found.append(array)
    return sorted(found)


def graph(body: str) -> tuple[list[tuple[str, str]], list[list[int]]]:
    """The instructions, and which may follow each."""
    instructions, labels, goals = list[tuple[str, str]](), dict[str, int](), list[tuple[int, str, bool]]()
    for line in (line.strip().rstrip(";") for line in body.splitlines()):
        if label := re.fullmatch(r"(\$?[\w$]+):", line):
            labels[label[1]] = len(instructions)
        elif found := INSTRUCTION.fullmatch(line):
            op, operands = found[1], found[2] or ""
            if op.startswith("bra"):
                goals.append((len(instructions), operands.strip(), line.startswith("@")))
            instructions.append((op, operands))
    after = [[place + 1] if place + 1 < len(instructions) and not op.startswith(("ret", "exit")) else []
             for place, (op, _) in enumerate(instructions)]
    for place, goal, conditional in goals:
        after[place] = [*(after[place] if conditional else []), labels[goal]]
    return instructions, after


def reached(starts: Iterable[int], after: Sequence[Sequence[int]]) -> set[int]:
    """What may run after one of these."""
    seen, work = set[int](), [follower for start in starts for follower in after[start]]
    while work:
        place = work.pop()
        if place not in seen and place < len(after):
            seen.add(place)
            work += after[place]
    return seen


def pointers(instructions: Iterable[tuple[str, str]], arrays: Mapping[str, str]) -> dict[str, set[str]]:
    """Into which arrays the registers may point: parameters by name, global variables by theirs, and what a table of addresses
    lists by the table's."""
    edges: dict[str, set[str]] = defaultdict(set)
    holds: dict[str, set[str]] = defaultdict(set)
    loaded: dict[str, list[str]] = defaultdict(list)
    for op, operands in instructions:
        if op.startswith(("st.", "bar", "ret", "bra", "setp", "atom.", "red.", "membar", "fence")):
            continue
        targets, words = written_and_read(operands)
        if op.startswith("ld.param"):
            names = {arrays[w] for w in words if w in arrays}
            for t in targets:
                holds[t] |= names
        elif op.startswith("ld."):
            for word in words:
                if word.startswith("%"):
                    loaded[word] += targets
        else:
            for word in words:
                for t in targets:
                    if word.startswith("%"):
                        edges[word].add(t)
                    elif not re.fullmatch(r"0[fdxFDX]\w*", word):
                        holds[t].add(word)
    work = list(holds)
    while work:
        source = work.pop()
        listed = {name + LISTED for name in holds[source] if name.endswith(TABLE)}
        for target, held in [*((t, holds[source]) for t in edges[source]), *((t, listed) for t in loaded[source])]:
            if not held <= holds[target]:
                holds[target] |= held
                work.append(target)
    return holds


def written_and_read(operands: str) -> tuple[list[str], list[str]]:
    """The registers before the first comma (a vector in braces is one operand), and the words behind it."""
    first, _, rest = operands.partition("}") if operands.startswith("{") else operands.partition(",")
    return WORDS.findall(first), WORDS.findall(rest)


# ---------------------------------------------------------------- registers and memory
@dataclass(frozen=True)
class Usage:
    """What a thread and a block of a kernel take, from the assembler's words (`--ptxas-options=-v`); bytes but for registers."""

    registers: int
    stack: int
    spilled: int
    shared: int


USAGE = re.compile(r"Compiling entry function '(\w+)' for '\w+'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
                   r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)", re.DOTALL)


def usages(log: str) -> dict[str, Usage]:
    found = {}
    for name, stack, stores, loads, registers, more in USAGE.findall(log):
        shared = re.search(r"(\d+) bytes smem", more)
        found[name] = Usage(int(registers), int(stack), int(stores) + int(loads), int(shared[1]) if shared else 0)
    return found


def table(rows: Mapping[str, Usage]) -> str:
    """A line a kernel; the largest first."""
    width = max(map(len, rows), default=0)
    lines = [f"{'kernel':<{width}}  registers  stack  spilled  shared"]
    for name, u in sorted(rows.items(), key=lambda row: (-row[1].spilled, -row[1].stack, -row[1].registers)):
        lines.append(f"{name:<{width}}  {u.registers:>9}  {u.stack:>5}  {u.spilled:>7}  {u.shared:>6}")
    return "\n".join(lines)
