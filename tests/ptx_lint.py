"""What must not be in the code that NVRTC makes of our sources.

In: a source, or the PTX and the log of a compilation.  Out: complaints, a line each; `Usage` of every kernel; a table of it.

PTX is nearly in static single assignment, so what a register holds is found by following it through all instructions at once,
whatever their order: a register that may point into two arrays points into both.  Which parameters are arrays the source says.
"""
from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
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
INSTRUCTION = re.compile(r"(?:@!?%\w+\s+)?([a-z][\w.:]*)\s+([^;]*)")
WORDS = re.compile(r"%?[A-Za-z_$][\w$.]*")
FUSED = re.compile(r"\bfma\.[\w.]+")


def entries(ptx: str) -> dict[str, str]:
    """The bodies of the kernels."""
    return {name: body for name, _, body in ENTRY.findall(without_comments(ptx))}


def without_comments(ptx: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", ptx, flags=re.DOTALL)


def complaints(source: str, ptx: str) -> list[str]:
    """Everything wrong with unmarked code, but what is fused."""
    found = []
    arrays = arrays_of(source)
    for name, body in entries(ptx).items():
        for what, pattern in FORBIDDEN.items():
            found += [f"{name}: {what}: {text.strip()}" for text in dict.fromkeys(re.findall(pattern, body))]
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
        found[name] = {f"{name}_param_{k}": p.split()[-1].lstrip("*") for k, p in enumerate(parameters) if p and not SCALAR.fullmatch(p)}
    return found


def read_stale(body: str, arrays: Mapping[str, str]) -> list[str]:
    """Arrays that are read by `ld.global.nc`, which need not see what this kernel wrote, although it writes them."""
    instructions = [m.groups() for line in body.splitlines() if (m := INSTRUCTION.fullmatch(line.strip().rstrip(";")))]
    holds = pointers(instructions, arrays)
    read, written = set[str](), set[str]()
    for op, operands in instructions:
        address = re.search(r"\[([^\]+]+)", operands)
        if address is None or re.search(r"\.(?:shared|local|param|const)\b", op):
            continue
        found = holds.get(address[1].strip()) or {f"an array that no parameter names ({address[1].strip()})"}
        if op.startswith("ld.global") and ".nc" in op:
            read |= found
        elif op.startswith(("st.", "atom.", "red.")):
            written |= found
    unknown = any(name.startswith("an array") for name in written)
    return sorted(read if unknown else read & written)


def pointers(instructions: Iterable[tuple[str, str]], arrays: Mapping[str, str]) -> dict[str, set[str]]:
    """Into which arrays the registers may point: parameters by name, global variables by theirs."""
    edges: dict[str, set[str]] = defaultdict(set)
    holds: dict[str, set[str]] = defaultdict(set)
    for op, operands in instructions:
        if op.startswith(("st.", "bar", "ret", "bra", "setp", "atom.", "red.", "membar", "fence")):
            continue
        targets, words = written_and_read(operands)
        if op.startswith("ld.param"):
            names = {arrays[w] for w in words if w in arrays}
            for t in targets:
                holds[t] |= names
        elif not op.startswith("ld."):
            for word in words:
                for t in targets:
                    if word.startswith("%"):
                        edges[word].add(t)
                    elif not re.fullmatch(r"0[fdxFDX]\w*", word):
                        holds[t].add(word)
    work = list(holds)
    while work:
        source = work.pop()
        for target in edges[source]:
            if not holds[source] <= holds[target]:
                holds[target] |= holds[source]
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
