"""The loop programs of a script, without running it.

In: formulas and training plans.  Out: `Titled` programs, and what `lr show` prints of them: the listing, the code (LLVM IR after
the passes, assembly, CUDA C), the cost in the sizes.  No data is needed, and no device: programs leave the sizes open.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from dsl.errors import LrError
from dsl.ir.node import Node
from dsl.ir.types import ONE, ZERO, Dim, product
from dsl.loops import ir
from dsl.loops.cost import WIDTH, Cost, cost, value
from dsl.loops.evaluate import program as loop_program
from dsl.loops.legalise import NotNative
from dsl.loops.text import dim_text, listing, size_text
from dsl.loops.train import train_program
from dsl.pipeline import Options, prepare
from dsl.record import entity
from dsl.runtime.bursts import feeds_of, graphs_of
from dsl.runtime.columns import counted, table
from dsl.runtime.compute import Compute, solve_sizes
from dsl.runtime.rows import Reading
from dsl.runtime.steps import step_functions
from dsl.syntax import program

Form = Literal["cuda", "llvm", "asm"]
COMMENT: dict[Form, str] = {"cuda": "//", "llvm": ";", "asm": "#"}


@entity
class Titled:
    """A formula's or a `train`'s program and the sizes that are known; None if it holds the op `lacking`, which has no loops."""

    title: str
    program: ir.Program | None
    sizes: Mapping[str, int]
    lacking: str = ""
    step: bool = False


def formula_program(title: str, name: str, node: Node, options: Options, known: Mapping[str, int], gpu: bool = False) -> Titled:
    try:
        made, _ = loop_program(prepare([node], options), name, origins=options.origins, tiles=not gpu)
    except NotNative as op:
        return Titled(title, None, known, str(op))
    return Titled(title, made, known)


def training_program(title: str, plan: program.Train, compute: Compute, known: Mapping[str, int], gpu: bool = False) -> Titled:
    """The program that makes the steps of a `train`."""
    reading = Reading(plan)
    functions = step_functions(compute, plan, reading.by_row)
    feeds, _ = feeds_of(reading, functions, known)
    try:
        made = train_program(graphs_of(functions), feeds, origins=compute.origins, tiles=not gpu).program
    except NotNative as op:
        return Titled(title, None, known, str(op), True)
    return Titled(title, made, step_sizes(reading, known), "", True)


def step_sizes(reading: Reading, known: Mapping[str, int]) -> dict[str, int]:
    """The sizes of a step, as far as they are known before there is data."""
    plan, sizes = reading.plan, dict(known)
    batch = 1 if reading.one_by_one else literal(plan.batch) if plan.batch is not None else None
    if plan.over and not reading.whole:
        rows = plan.over[0].value.shape[0].evaluate(known)
        sizes |= {"rows in all": rows, "total": rows} if rows is not None else {}
        if batch is not None:
            batch = batch if rows is None else min(batch, rows)
            sizes["rows of a batch"] = batch
    pairs: list[tuple[Node, tuple[int, ...]]] = []
    for feed in plan.over:
        shape: Sequence[int | None] = [d.evaluate(known) for d in feed.value.shape]
        shape = shape[1:] if feed.mapped else shape if reading.whole else [batch, *shape[1:]]
        given = tuple(n for n in shape if n is not None)
        if len(given) == len(shape):
            pairs.append((feed.leaf, given))
    try:
        return {**sizes, **solve_sizes(pairs, known)}
    except LrError:                                  # reported when the data is bound
        return sizes


def literal(node: Node) -> int | None:
    return int(node.attr("literal").value) if node.op.name == "const" else None


# ---------------------------------------------------------------- what is shown
def kernels_text(titled: Titled) -> str:
    return titled.title + "\n" + indented(listing(titled.program) if titled.program else without(titled))


def without(titled: Titled) -> str:
    return f"no loop program: the reference runs it, for `{titled.lacking}` has no loops in this version"


def indented(text: str) -> str:
    return "".join(f"  {line}".rstrip() + "\n" for line in text.splitlines())


def code_text(titled: Titled, form: Form) -> str:
    """The program's code, under its title in a comment: of CUDA its kernels; of the CPU's all, as it is compiled here."""
    mark = COMMENT[form]
    if titled.program is None:
        return f"{mark} {titled.title}\n{mark} {without(titled)}\n"
    if form == "cuda":
        from dsl.backends.cuda.choice import H200
        from dsl.backends.cuda.program import likely_source
        text = likely_source(titled.program, titled.sizes, H200).strip("\n") or "// no kernels: the host does all of it"
    else:
        from dsl.backends.llvm import engine
        from dsl.backends.llvm.module import module_text
        made = module_text(titled.program, engine.wide_vectors())
        text = (engine.optimised_ir if form == "llvm" else engine.assembly)(made).strip("\n")
    return f"{mark} {titled.title}\n{text}\n"


def scratch_of(program: ir.Program) -> Dim:
    """The bytes of the scratch arrays of a call, arrays that are never in use at the same time sharing storage, on the CPU."""
    from dsl.backends.llvm.plan import storages
    total = ZERO
    for storage in storages(program):
        total = total + product(storage[0].shape) * WIDTH[storage[0].dtype]
    return total


def gpu_text(titled: Titled) -> str:
    """What a GPU would take, and in which way; nothing if sizes are missing."""
    from dsl.backends.cuda.choice import H200, choice_text, choose
    from dsl.backends.cuda.whole import stays_on_device
    if titled.program is None or not {*ir.size_names(titled.program)} <= titled.sizes.keys() | {"steps of a burst"}:
        return ""
    choice = choose(titled.program, titled.sizes, H200, stays_on_device(titled.program))
    return f"\n  {choice_text(choice, H200, titled.step)}\n"


COLUMNS = ("flops", "bytes read", "bytes written")


def cost_text(titled: Titled) -> str:
    """Tables of what each part costs: in the sizes, and in numbers if the sizes are known."""
    if titled.program is None:
        return titled.title + "\n" + indented(without(titled))
    found, scratch = cost(titled.program), scratch_of(titled.program)
    found = found.step if titled.step else found
    several = any(p.times != ONE for p in found.parts)
    heads = ["a step" if titled.step else "", *(["times"] if several else []), *COLUMNS]
    rows: list[tuple[str, list[Dim]]] = []
    for part in found.parts:
        name = part.name + (" (now and then)" if part.seldom else "")
        rows.append((name, [*([part.times] if several else []), *columns(part.each)]))
    rows.append(("total", [*([ZERO] if several else []), *columns(found.total)]))
    kinds = f"{counted(found.count('kernel'), 'kernel')}, {counted(found.count('product'), 'library product')}"
    lines = [titled.title, f"  {kinds}; scratch memory: {dim_text(scratch, False)} bytes"]
    lines += table(heads, [[name, *(blank(name, heads, i) or dim_text(d, False) for i, d in enumerate(dims, 1))] for name, dims in rows])
    met = {s.name: s.value for _, dims in rows for d in (*dims, scratch) for s in d.sizes()}
    known = {name: titled.sizes.get(name) if fixed is None else fixed for name, fixed in sorted(met.items())}
    if known and None not in known.values():
        given = ", ".join(f"{size_text(name)} = {number}" for name, number in known.items())
        numbers = [[name, *(blank(name, heads, i) or f"{value(d, titled.sizes):,}" for i, d in enumerate(dims, 1))] for name, dims in rows]
        lines += ["", f"  with {given}: scratch memory {value(scratch, titled.sizes):,} bytes", *table(heads, numbers)]
    return "\n".join(lines) + "\n"


def columns(each: Cost) -> tuple[Dim, Dim, Dim]:
    return each.flops, each.read, each.written


def blank(name: str, heads: Sequence[str], place: int) -> str:
    return "-" if name == "total" and heads[place] == "times" else ""
