"""The pool of threads that share the runs of kernels.

In: a task, its environment and a number of runs, from generated code (`share` in runs.py).  Out: all runs are done.

The threads are the C library's, run native code only and are made when the first kernel is large enough; they need no
interpreter lock and end with the process.  Whoever asks for runs to be done takes part as thread 0; runs are claimed one by
one from a counter.  A job is over when its caller has found no run left and every thread that had joined is out again, so
it never waits for a thread that sleeps.  If the pool is busy, or there is none, the caller does all runs alone.

An idle thread watches for a new job for some fifty microseconds, then sleeps on a condition.  To wake threads costs the caller
more than a small job does, so jobs without help are added up, and who reaches `WAKE` operations wakes them.  A forked child has a
new pool.

    cell    ::=  lr_share, pool, threads that were asked for, grow         what a frame points to
    state   ::=  OPEN while threads may join + the number of those that are in
"""
from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
from contextlib import suppress
from typing import Any

from dsl.backends.llvm.cache import compiled
from dsl.backends.llvm.engine import Loaded
from dsl.backends.llvm.frame import POOL as POOL_CELL
from dsl.backends.llvm.frame import THREADS

SPINS = 1_000
WAKE = 2_000_000
MOST = 256
BYTES = 1024
_PAUSE = {"x86_64": "call void @llvm.x86.sse2.pause()", "AMD64": "call void @llvm.x86.sse2.pause()",
          "aarch64": "call void @llvm.aarch64.hint(i32 1)", "arm64": "call void @llvm.aarch64.hint(i32 1)"}


FIELDS = {"busy": 0, "generation": 64, "state": 128, "next": 192, "task": 256, "environment": 264, "runs": 272, "limit": 280,
          "sleeping": 320, "missed": 328, "mutex": 384, "condition": 512}
"""Where a pool has what; `missed` is how many operations were done while threads slept."""


def pool_text() -> str:
    places = "\n".join(f"  %at.{name} = getelementptr inbounds i8, ptr %pool, i64 {offset}" for name, offset in FIELDS.items())
    pause = _PAUSE.get(platform.machine(), "")
    return f"""
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @sched_yield()

define internal void @work(ptr %pool, i64 %index) alwaysinline nounwind {{
{places}
  %task = load ptr, ptr %at.task
  %environment = load ptr, ptr %at.environment
  %runs = load i64, ptr %at.runs
  br label %claim
claim:
  %run = atomicrmw add ptr %at.next, i64 1 monotonic
  %some = icmp slt i64 %run, %runs
  br i1 %some, label %turn, label %done
turn:
  call void %task(ptr %environment, i64 %run, i64 %index)
  br label %claim
done:
  ret void
}}

define void @lr_share(ptr %frame, ptr %task, ptr %environment, i64 %runs, i64 %operations) nounwind {{
  %at.threads = getelementptr inbounds i64, ptr %frame, i64 {THREADS}
  %threads = load i64, ptr %at.threads
  %limit = call i64 @llvm.smin.i64(i64 %threads, i64 %runs)
  %single = icmp sle i64 %limit, 1
  br i1 %single, label %alone, label %several
several:
  %at.cell = getelementptr inbounds i64, ptr %frame, i64 {POOL_CELL}
  %cell = load ptr, ptr %at.cell
  %at.ready = getelementptr inbounds i64, ptr %cell, i64 2
  %ready = load atomic i64, ptr %at.ready acquire, align 8
  %enough = icmp sge i64 %ready, %limit
  br i1 %enough, label %try, label %grow
grow:
  %at.grow = getelementptr inbounds i64, ptr %cell, i64 3
  %grow.function = load ptr, ptr %at.grow
  call void %grow.function(i64 %threads)
  br label %try
try:
  %at.pool = getelementptr inbounds i64, ptr %cell, i64 1
  %pool = load ptr, ptr %at.pool
  %none = icmp eq ptr %pool, null
  br i1 %none, label %alone, label %take
take:
{places}
  %taken = cmpxchg ptr %at.busy, i64 0, i64 1 acquire monotonic
  %mine = extractvalue {{ i64, i1 }} %taken, 1
  br i1 %mine, label %open, label %alone
alone:
  br label %turn
turn:
  %run = phi i64 [ 0, %alone ], [ %following, %turn ]
  call void %task(ptr %environment, i64 %run, i64 0)
  %following = add nuw nsw i64 %run, 1
  %more = icmp slt i64 %following, %runs
  br i1 %more, label %turn, label %done
open:
  store ptr %task, ptr %at.task
  store ptr %environment, ptr %at.environment
  store i64 %runs, ptr %at.runs
  store i64 %limit, ptr %at.limit
  store atomic i64 0, ptr %at.next monotonic, align 8
  store atomic i64 {1 << 62}, ptr %at.state release, align 8
  %old = atomicrmw add ptr %at.generation, i64 1 seq_cst
  %sleepers = load atomic i64, ptr %at.sleeping seq_cst, align 8
  %asleep = icmp sgt i64 %sleepers, 0
  br i1 %asleep, label %count, label %share
count:
  %missed = load i64, ptr %at.missed
  %missed.1 = add i64 %missed, %operations
  store i64 %missed.1, ptr %at.missed
  %worth = icmp sge i64 %missed.1, {WAKE}
  br i1 %worth, label %wake, label %share
wake:
  store i64 0, ptr %at.missed
  call i32 @pthread_mutex_lock(ptr %at.mutex)
  call i32 @pthread_mutex_unlock(ptr %at.mutex)
  call i32 @pthread_cond_broadcast(ptr %at.condition)
  br label %share
share:
  call void @work(ptr %pool, i64 0)
  %before = atomicrmw and ptr %at.state, i64 {~(1 << 62)} acq_rel
  br label %wait
wait:
  %turns = phi i64 [ 0, %share ], [ %turns.1, %again ], [ 0, %yield ]
  %state = load atomic i64, ptr %at.state acquire, align 8
  %empty = icmp eq i64 %state, 0
  br i1 %empty, label %close, label %again
again:
  {pause}
  %turns.1 = add i64 %turns, 1
  %long = icmp sgt i64 %turns.1, {SPINS}
  br i1 %long, label %yield, label %wait
yield:
  call i32 @sched_yield()
  br label %wait
close:
  store atomic i64 0, ptr %at.busy release, align 8
  br label %done
done:
  ret void
}}

define ptr @lr_worker(ptr %argument) nounwind {{
  %pool = load ptr, ptr %argument
  %at.index = getelementptr inbounds i64, ptr %argument, i64 1
  %index = load i64, ptr %at.index
{places}
  br label %idle
idle:
  %seen = phi i64 [ -1, %0 ], [ %now, %join ], [ %now, %leave ]
  br label %watch
watch:
  %turns = phi i64 [ 0, %idle ], [ %turns.1, %stay ]
  %generation = load atomic i64, ptr %at.generation acquire, align 8
  %same = icmp eq i64 %generation, %seen
  br i1 %same, label %stay, label %look
stay:
  {pause}
  %turns.1 = add i64 %turns, 1
  %long = icmp sgt i64 %turns.1, {SPINS}
  br i1 %long, label %park, label %watch
park:
  call i32 @pthread_mutex_lock(ptr %at.mutex)
  %sleepers = atomicrmw add ptr %at.sleeping, i64 1 seq_cst
  br label %sleep
sleep:
  %current = load atomic i64, ptr %at.generation seq_cst, align 8
  %still = icmp eq i64 %current, %seen
  br i1 %still, label %doze, label %awake
doze:
  call i32 @pthread_cond_wait(ptr %at.condition, ptr %at.mutex)
  br label %sleep
awake:
  %sleepers.1 = atomicrmw sub ptr %at.sleeping, i64 1 seq_cst
  call i32 @pthread_mutex_unlock(ptr %at.mutex)
  br label %look
look:
  %now = load atomic i64, ptr %at.generation acquire, align 8
  br label %join
join:
  %state = load atomic i64, ptr %at.state acquire, align 8
  %open = icmp sge i64 %state, {1 << 62}
  br i1 %open, label %enter, label %idle
enter:
  %more = add i64 %state, 1
  %exchange = cmpxchg ptr %at.state, i64 %state, i64 %more acquire monotonic
  %entered = extractvalue {{ i64, i1 }} %exchange, 1
  br i1 %entered, label %inside, label %join
inside:
  %limit = load i64, ptr %at.limit
  %wanted = icmp slt i64 %index, %limit
  br i1 %wanted, label %help, label %leave
help:
  call void @work(ptr %pool, i64 %index)
  br label %leave
leave:
  %left = atomicrmw sub ptr %at.state, i64 1 release
  br label %idle
}}
"""


class Pool:
    def __init__(self) -> None:
        self.cell = (ctypes.c_int64 * 4)()
        self.address = ctypes.addressof(self.cell)
        self.grow_function = ctypes.CFUNCTYPE(None, ctypes.c_int64)(self.grow)
        self.cell[3] = ctypes.cast(self.grow_function, ctypes.c_void_p).value or 0
        self.worker = 0
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """No threads: at the start, and in a forked child."""
        self.lock = threading.Lock()
        self.cell[1] = self.cell[2] = 0
        self.count = 1
        self.memory: list[Any] = []                             # what the threads hold pointers to

    def load(self) -> None:
        """Makes `lr_share` ready; before the first program with runs is called."""
        with self.lock:
            if not self.worker:
                self.cell[0], self.worker = Loaded(compiled(pool_text(), pool_text)[0]).keep("lr_share", "lr_worker")

    def grow(self, threads: int) -> None:
        """Makes threads until there are so many, the caller's included; fewer if the system gives no more."""
        with self.lock:
            if self.cell[2] >= threads:
                return
            with suppress(OSError):
                self._make(min(threads, MOST))
            self.cell[2] = threads

    def _make(self, threads: int) -> None:
        library = ctypes.CDLL(None)
        if not self.memory:
            memory = ctypes.create_string_buffer(BYTES + 64)
            self.memory.append(memory)
            start = ctypes.addressof(memory)
            start += -start % 64
            library.pthread_mutex_init(ctypes.c_void_p(start + FIELDS["mutex"]), None)
            library.pthread_cond_init(ctypes.c_void_p(start + FIELDS["condition"]), None)
            self.cell[1] = start
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())         # a thread inherits the mask
        try:
            while self.count < threads:
                argument, thread = (ctypes.c_int64 * 2)(self.cell[1], self.count), ctypes.c_void_p()
                if library.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(self.worker), argument):
                    raise OSError("no more threads")
                library.pthread_detach(thread)
                self.memory.append(argument)
                self.count += 1
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


POOL = Pool()
