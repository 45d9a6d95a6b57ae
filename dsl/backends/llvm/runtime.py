"""The fixed part of a program's module: helpers that generated code calls by name.  Only those that are called are printed."""
from __future__ import annotations

import time

HELPERS: dict[str, str] = {}
RUN_WORK = 32_768                       # the least scalar operations that are worth a run of their own
FEWEST_RUNS = 4                         # less than so many are one

HELPERS["malloc"] = """
declare ptr @malloc(i64)
declare void @free(ptr)
"""

# Rounded down; 0 by 0.
HELPERS["floordiv"] = """
define internal i64 @lr.floordiv(i64 %a, i64 %b) alwaysinline #0 {
  %zero = icmp eq i64 %b, 0
  %divisor = select i1 %zero, i64 1, i64 %b
  %q = sdiv i64 %a, %divisor
  %r = srem i64 %a, %divisor
  %inexact = icmp ne i64 %r, 0
  %signs = xor i64 %r, %divisor
  %apart = icmp slt i64 %signs, 0
  %below = and i1 %inexact, %apart
  %one = zext i1 %below to i64
  %floor = sub i64 %q, %one
  %value = select i1 %zero, i64 0, i64 %floor
  ret i64 %value
}
"""

# The iterations of a run: at least RUN_WORK + 4 * (bytes of the totals) operations, so that combining the totals costs little
# beside making them; at most 256 runs, and 8 MiB of totals.  Long runs begin at multiples of 64 or 1,024: off the edges of
# pages a sum over 10^7 elements took an eighth longer.
HELPERS["chunk"] = f"""
define internal i64 @lr.chunk(i64 %extent, i64 %work, i64 %record) alwaysinline #0 {{
  %least.work = call i64 @llvm.smax.i64(i64 %work, i64 1)
  %w = sitofp i64 %least.work to double
  %e = sitofp i64 %extent to double
  %total = fmul double %w, %e
  %weight = shl i64 %record, 2
  %least = add i64 %weight, {RUN_WORK}
  %l = sitofp i64 %least to double
  %several = fmul double %l, {FEWEST_RUNS}.0
  %small = fcmp olt double %total, %several
  br i1 %small, label %single, label %cut
single:
  ret i64 %extent
cut:
  %ratio = fdiv double %total, %l
  %few = fcmp olt double %ratio, 256.0
  %bounded = select i1 %few, double %ratio, double 256.0
  %wanted = fptosi double %bounded to i64
  %record.1 = call i64 @llvm.smax.i64(i64 %record, i64 1)
  %room = sdiv i64 8388608, %record.1
  %room.1 = call i64 @llvm.smax.i64(i64 %room, i64 1)
  %fit = call i64 @llvm.smin.i64(i64 %wanted, i64 %room.1)
  %runs = call i64 @llvm.smin.i64(i64 %fit, i64 %extent)
  %up = add i64 %extent, %runs
  %up.1 = sub i64 %up, 1
  %exact = sdiv i64 %up.1, %runs
  %long = icmp sge i64 %exact, 8192
  %medium = icmp sge i64 %exact, 1024
  %mask.1 = select i1 %medium, i64 63, i64 0
  %mask = select i1 %long, i64 1023, i64 %mask.1
  %round = add i64 %exact, %mask
  %keep = xor i64 %mask, -1
  %chunk = and i64 %round, %keep
  ret i64 %chunk
}}
"""

# Nanoseconds of a clock that only goes forward.
HELPERS["now"] = f"""
declare i32 @clock_gettime(i32, ptr)

define internal i64 @lr.now() noinline {{
  %time = alloca {{ i64, i64 }}
  call i32 @clock_gettime(i32 {getattr(time, "CLOCK_MONOTONIC", 1)}, ptr %time)
  %seconds = load i64, ptr %time
  %rest = getelementptr inbounds i64, ptr %time, i64 1
  %nanoseconds = load i64, ptr %rest
  %whole = mul i64 %seconds, 1000000000
  %now = add i64 %whole, %nanoseconds
  ret i64 %now
}}
"""

# Two pieces of memory exchange their contents.
HELPERS["exchange"] = """
define internal void @lr.exchange(ptr noalias %a, ptr noalias %b, i64 %bytes) noinline #0 {
entry:
  %some = icmp sgt i64 %bytes, 0
  br i1 %some, label %turn, label %done
turn:
  %i = phi i64 [ 0, %entry ], [ %next, %turn ]
  %pa = getelementptr inbounds i8, ptr %a, i64 %i
  %pb = getelementptr inbounds i8, ptr %b, i64 %i
  %x = load i8, ptr %pa
  %y = load i8, ptr %pb
  store i8 %y, ptr %pa
  store i8 %x, ptr %pb
  %next = add nuw nsw i64 %i, 1
  %more = icmp slt i64 %next, %bytes
  br i1 %more, label %turn, label %done
done:
  ret void
}
"""
