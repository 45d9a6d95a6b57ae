"""Where a program that runs as one kernel has to wait.

In: a program, and which of its buffers are variables of every thread.  Out: `Waits`: the statements before which all threads wait
for each other, those after which they do, and the loops whose turns end so.

Since the last barrier some memory has been read and some written.  A statement waits if it reads what has been written, or writes
what has been read or written.  Around a loop that is asked again until nothing changes, as a turn follows the one before.
The runs of a kernel's totals are combined after the next barrier, at the latest before the totals are met or control flow comes;
so kernels that follow each other wait once.

    memory  ::=  the root of an array | ("runs", total) | "fault"
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

from dsl.backends.cuda.parameters import written
from dsl.loops.ir import (
    FAULT,
    Block,
    Combine,
    Flag,
    If,
    Kernel,
    Leave,
    Loop,
    Product,
    Stmt,
    Store,
    Swap,
    Total,
    While,
    buffers_of,
    expressions,
    statements,
)
from dsl.machine.expr import Buffer, Load, walk
from dsl.record import record

Memory = object
CONTROL = (Loop, While, If, Leave)


@record
class Since:
    """What has been read and written since the last barrier."""

    read: frozenset[Memory] = frozenset()
    written: frozenset[Memory] = frozenset()
    first: frozenset[Memory] = frozenset()                       # what thread 0 alone has written
    pending: frozenset[Total] = frozenset()                      # totals whose runs are to be combined

    def __or__(self, other: Since) -> Since:
        return Since(self.read | other.read, self.written | other.written, self.first | other.first, self.pending | other.pending)

    def conflicts(self, later: Since) -> bool:
        written, again = self.written | self.first, later.written | later.first
        marks = frozenset(("fault",))                            # which only ever becomes true
        return bool(written & later.read or self.read & again or (self.written - marks) & again or self.first & later.written)

    def renamed(self, a: Memory, b: Memory) -> Since:
        def exchanged(found: frozenset[Memory]) -> frozenset[Memory]:
            return frozenset(b if m is a else a if m is b else m for m in found)
        return Since(exchanged(self.read), exchanged(self.written), exchanged(self.first), self.pending)

    def combined(self, root: Callable[[Buffer], Buffer]) -> Since:
        """After a barrier: runs are read, totals that are arrays written."""
        return Since(frozenset(("runs", t.buffer) for t in self.pending), frozenset(root(t.buffer) for t in self.pending if t.buffer.rank))


class Waits:
    """`before` and `after` hold the statements (known by identity) before and after which threads wait, `after_turn` the loops after
    whose turns they do."""

    def __init__(self, body: Block, variables: frozenset[Buffer], of: dict[Buffer, Buffer]) -> None:
        self.variables, self.of = variables, of
        self.before: set[Stmt] = set()
        self.after: set[Stmt] = set()
        self.after_turn: set[Stmt] = set()
        self.twice: set[Stmt] = set()                            # those before which runs are combined between two barriers
        self.left: list[Since] = []
        self.block(body, Since())

    def block(self, body: Block, since: Since) -> Since:
        for s in body:
            since = self.statement(s, since)
        if since.pending:
            self.after.add(body[-1])
            since = since.combined(self.root)
        return since

    def statement(self, s: Stmt, since: Since) -> Since:
        own = self.own(s)
        totals = {t.buffer for t in since.pending}
        meets = bool(totals) and (isinstance(s, CONTROL) or not totals.isdisjoint(buffers_of((s,))))
        if s in self.before or meets or since.conflicts(own):
            self.before.add(s)
            since = since.combined(self.root)
            if since.conflicts(own):                             # with what the combination reads or writes
                since = Since()
                self.twice.add(s)
        since = since | own
        match s:
            case Swap(a=a, b=b):
                return since if a in self.variables else since.renamed(self.root(a), self.root(b))
            case Loop(body=body) | While(body=body):
                return self.turns(s, body, own, since)
            case If(body=body, orelse=orelse):
                return self.block(body, since) | self.block(orelse, since)
            case Leave():
                if self.left:
                    self.left[-1] = self.left[-1] | since
                return since
            case Kernel(totals=added):
                return since | Since(pending=frozenset(added))
            case _:
                return since

    def turns(self, s: Loop | While, body: Block, own: Since, since: Since) -> Since:
        while True:
            marks = self.marks
            if isinstance(s, While):
                self.left.append(Since())
            after = self.block(body, since)
            if isinstance(s, While):                             # its condition is asked again
                if s in self.after_turn or after.conflicts(own):
                    self.after_turn.add(s)
                    after = Since()
                after = after | own
            around = since | after
            left = self.left.pop() if isinstance(s, While) else Since()
            if around == since and marks == self.marks:
                return around | left
            since = around

    @property
    def marks(self) -> tuple[int, ...]:
        return len(self.before), len(self.after), len(self.after_turn), len(self.twice)

    def root(self, buffer: Buffer) -> Buffer:
        return self.of.get(buffer, buffer)

    def own(self, s: Stmt) -> Since:
        """What a statement reads and writes itself; a kernel all that its threads do."""
        if isinstance(s, Kernel):
            totals = {t.buffer for t in s.totals}
            read = self.loaded([s, *statements(s.body)]) - totals
            out = {self.root(b) for b in written(s.body) if b.role != "private"} - totals
            flags = {"fault"} if any(isinstance(i, Flag) for i in statements(s.body)) else set()
            return Since(frozenset(read), frozenset({*out, *flags, *(("runs", t) for t in totals)}))
        read = self.loaded([s])
        match s:
            case Product(out=out_, a=a, b=b):
                return Since(frozenset((self.root(a), self.root(b))), frozenset((self.root(out_),)))
            case Store(buffer=b) | Combine(target=Load(buffer=b)) if b not in self.variables:
                return Since(frozenset(read), first=frozenset((self.root(b),)))
            case _:
                return Since(frozenset(read))

    def loaded(self, found: Iterable[Stmt]) -> set[Memory]:
        loads: set[Memory] = set()
        for s in found:
            for e in walk(expressions(s)):
                if isinstance(e, Load) and e.buffer not in self.variables and e.buffer.role not in ("private", "input"):
                    root = self.root(e.buffer)
                    if root.role not in ("private", "input"):
                        loads.add(root)
                elif e is FAULT:
                    loads.add("fault")
        return loads
