// CUDA C on the CPU, for the sources that dsl/backends/cuda prints: every thread is a fiber.
//
// Blocks run one after another in random order, or, if they are launched together, all at once.  Threads run, in random order,
// until they wait: at __syncthreads for the whole block, at a shuffle or __syncwarp for the lanes of their mask, in __nanosleep
// for a turn.  From one barrier to the next either all warps of a block go on together, or each runs as far as it can before the
// next one begins; before an atomic operation or a fence a thread may be put aside.  What real hardware may let pass or hang on
// is an error here: a barrier that only a part of the block reaches (threads that have ended count as missing), lanes of a mask
// that wait at different places, a lane that is not in the mask it gives, blocks of which all that is left sleeps and nothing
// changes any more.  Shared memory is filled with 0xff (nan, -1) before each block, and a shuffle from a lane that does not exist
// gives such bytes too; what is around a shared array must be as it was when the block ends.
//
// What UBSan finds (-fsanitize=alignment and others) is an error of the launch: the handlers are here, and no library of it is
// loaded.  Compiled with -DLR_PREEMPT -fsanitize-coverage=trace-pc, a thread may also be put aside at the start of any basic
// block, so that threads which touch what they should not share meet in the middle.  With -DLR_WATCH
// -fsanitize=thread every access is looked at (shim_watch.h).
#pragma once
#include "shim_grid.h"

#define __global__ static
#define __device__ static __attribute__((unused))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

namespace lr_shim {

// ------------------------------------------------------------ what threads call
LR_OWN static void check_shuffle(unsigned mask, unsigned width) {
    in_kernel = false;
    if (!(mask >> (threadIdx.x % 32) & 1)) {
        fail("lane %u of block %u is not in the mask %08x it gives", threadIdx.x % 32, blockIdx.x, mask);
        never();
    }
    if (width == 0 || width > 32 || width & (width - 1)) {
        fail("a shuffle has no width of %u", width);
        never();
    }
    in_kernel = true;
}

// The value that lane `source` of this warp gives at the same place.
template <class T> LR_OWN static T from_lane(unsigned mask, T value, unsigned source, unsigned site) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves at most eight bytes");
    in_kernel = false;
    const unsigned warp = threadIdx.x / 32, turn = self->shuffles++ % 2;
    memcpy(&self->slot[turn], &value, sizeof value);
    wait(AT_WARP, site, mask);
    T result;
    if (lanes_of_warp(warp) & mask & 1u << source)
        memcpy(&result, &here->threads[warp * 32 + source].slot[turn], sizeof result);
    else
        memset(&result, 0xff, sizeof result);
    return result;
}

template <class T> LR_OWN static T down(unsigned mask, T value, unsigned step, unsigned site, unsigned width = 32) {
    check_shuffle(mask, width);
    const unsigned lane = threadIdx.x % 32, last = (lane / width + 1) * width;
    return from_lane(mask, value, lane + step < last ? lane + step : lane, site);
}

template <class T> LR_OWN static T across(unsigned mask, T value, unsigned bits, unsigned site, unsigned width = 32) {
    check_shuffle(mask, width);
    const unsigned lane = threadIdx.x % 32, other = lane ^ bits;
    return from_lane(mask, value, other < (lane / width + 1) * width ? other : lane, site);
}

template <class T> LR_OWN static T of_lane(unsigned mask, T value, unsigned source, unsigned site, unsigned width = 32) {
    check_shuffle(mask, width);
    return from_lane(mask, value, threadIdx.x % 32 / width * width + source % width, site);
}

LR_OWN static void sync_warp(unsigned site, unsigned mask = 0xffffffffu) {
    check_shuffle(mask, 32);
    wait(AT_WARP, site | SYNC_SITE, mask);
}

LR_OWN static void fence() {
    perhaps_aside();
    in_kernel = false;
    fenced();
    in_kernel = true;
}

template <class Change> LR_OWN static unsigned atomic(unsigned* at, Change change) {
    perhaps_aside();
    in_kernel = false;
    atomic_at(at);
    const unsigned before = *at;
    *at = change(before);
    changes += *at != before;
    in_kernel = true;
    return before;
}

// ------------------------------------------------------------ UBSan
struct Where {
    const char* file;
    uint32_t line, column;
};

[[noreturn]] LR_OWN static void undefined(const void* data, const char* what) {
    in_kernel = false;
    const Where& where = *(const Where*)data;
    fail("%s:%u: %s, in thread %u of block %u", where.file, where.line, what, threadIdx.x, blockIdx.x);
    never();
}

template <class To, class From> static To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From), "of one width");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

}  // namespace lr_shim

#define LR_HANDLER(name, text)                                                                                                  \
    extern "C" LR_OWN __attribute__((visibility("hidden"))) void __ubsan_handle_##name##_abort(void* data, ...) {               \
        lr_shim::undefined(data, text);                                                                                         \
    }
LR_HANDLER(type_mismatch_v1, "what is read or written here is not aligned")
LR_HANDLER(add_overflow, "a sum of integers overflows")
LR_HANDLER(sub_overflow, "a difference of integers overflows")
LR_HANDLER(mul_overflow, "a product of integers overflows")
LR_HANDLER(negate_overflow, "the negative of an integer overflows")
LR_HANDLER(divrem_overflow, "a quotient of integers is by zero, or overflows")
LR_HANDLER(shift_out_of_bounds, "an integer is shifted by more than it has bits, or a negative one")
LR_HANDLER(out_of_bounds, "an index is beyond its array")

#ifdef LR_WATCH
#define LR_TOUCHED(name, size, writes)                                                                                          \
    extern "C" __attribute__((visibility("hidden"))) LR_OWN void __tsan_##name(void* at) { lr_shim::touched(at, size, writes); }
#define LR_TOUCHED_BOTH(size)                                                                                                   \
    LR_TOUCHED(read##size, size, false) LR_TOUCHED(write##size, size, true)                                                     \
    LR_TOUCHED(unaligned_read##size, size, false) LR_TOUCHED(unaligned_write##size, size, true)
LR_TOUCHED_BOTH(1)
LR_TOUCHED_BOTH(2)
LR_TOUCHED_BOTH(4)
LR_TOUCHED_BOTH(8)
LR_TOUCHED_BOTH(16)
extern "C" __attribute__((visibility("hidden"))) LR_OWN void __tsan_read_range(void* at, size_t size) {
    lr_shim::touched(at, size, false);
}
extern "C" __attribute__((visibility("hidden"))) LR_OWN void __tsan_write_range(void* at, size_t size) {
    lr_shim::touched(at, size, true);
}
extern "C" __attribute__((visibility("hidden"))) LR_OWN void __tsan_init() {}
#endif

#ifdef LR_PREEMPT
// Called at the start of every basic block, those of the shim too.
extern "C" __attribute__((visibility("hidden"))) LR_OWN void __sanitizer_cov_trace_pc() {
    if (!lr_shim::in_kernel) return;
    lr_shim::in_kernel = false;
    if (lr_shim::random_bits() % 16 == 0) lr_shim::wait(lr_shim::READY, 0, 0);
    lr_shim::in_kernel = true;
}
#endif

#define __syncthreads() lr_shim::wait(lr_shim::AT_BARRIER, __COUNTER__ + 1, 0)
#define __syncwarp(...) lr_shim::sync_warp(__COUNTER__ + 1 __VA_OPT__(,) __VA_ARGS__)
#define __shfl_down_sync(mask, value, step, ...) lr_shim::down(mask, value, step, __COUNTER__ + 1, ##__VA_ARGS__)
#define __shfl_xor_sync(mask, value, bits, ...) lr_shim::across(mask, value, bits, __COUNTER__ + 1, ##__VA_ARGS__)
#define __shfl_sync(mask, value, source, ...) lr_shim::of_lane(mask, value, source, __COUNTER__ + 1, ##__VA_ARGS__)

// Those of the source that are declared `__shared__` are rewritten to these (shim.py).
#define LR_SHARED(type, name) type& name = *(type*)lr_shim::variable(__COUNTER__ + 1, sizeof(type), alignof(type));
#define LR_NEAR(type, name) type* const name = (type*)lr_shim::near();

__device__ inline void __nanosleep(unsigned) { lr_shim::nap(); }
__device__ inline void __threadfence() { lr_shim::fence(); }
__device__ inline unsigned atomicAdd(unsigned* at, unsigned x) { return lr_shim::atomic(at, [=](unsigned was) { return was + x; }); }
__device__ inline unsigned atomicOr(unsigned* at, unsigned x) { return lr_shim::atomic(at, [=](unsigned was) { return was | x; }); }
__device__ inline unsigned atomicExch(unsigned* at, unsigned x) { return lr_shim::atomic(at, [=](unsigned) { return x; }); }

__device__ inline int __float_as_int(float x) { return lr_shim::bits_as<int>(x); }
__device__ inline float __int_as_float(int x) { return lr_shim::bits_as<float>(x); }
__device__ inline long long __double_as_longlong(double x) { return lr_shim::bits_as<long long>(x); }
__device__ inline int __double2hiint(double x) { return (int)(lr_shim::bits_as<long long>(x) >> 32); }
__device__ inline double __longlong_as_double(long long x) { return lr_shim::bits_as<double>(x); }
__device__ inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
__device__ inline int __mulhi(int a, int b) { return (int64_t)a * b >> 32; }
__device__ inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
__device__ inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <class T> __device__ inline T __ldg(const T* at) { return *at; }
template <class T> __device__ inline T min(T a, T b) { return b < a ? b : a; }
template <class T> __device__ inline T max(T a, T b) { return a < b ? b : a; }
