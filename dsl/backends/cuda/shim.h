// CUDA C on the CPU, for the sources that dsl/backends/cuda prints: every thread of a block is a fiber.
//
// Blocks run one after another in random order.  Threads run, in random order, until they wait: at __syncthreads for the
// whole block, at a shuffle or __syncwarp for the lanes of their mask.  From one barrier to the next either all warps go on
// together, or each runs as far as it can before the next one begins.  What real hardware may let pass or hang on is an
// error here: a barrier that only a part of the block reaches (threads that have ended count as missing), lanes of a mask
// that wait at different places, a lane that is not in the mask it gives.  Shared memory is filled with 0xff (nan, -1) before
// each block, and a shuffle from a lane that does not exist gives such bytes too.
//
// Compiled with -DLR_PREEMPT -fsanitize-coverage=trace-pc, a thread may also be put aside at the start of any basic block, so
// that threads which touch what they should not share meet in the middle.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define __global__ static
#define __device__ static __attribute__((unused))
#define __launch_bounds__(threads)
#define __shared__ static __attribute__((section("lr_shared")))

struct lr_index { unsigned x, y, z; };
static lr_index threadIdx, blockIdx, blockDim, gridDim;

extern "C" __attribute__((visibility("hidden"))) char __start_lr_shared[], __stop_lr_shared[];

namespace lr_shim {

__attribute__((section("lr_shared"), used)) static char section_exists[8];

enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Thread {
    ucontext_t context;
    State state;
    unsigned site, mask;                  // where it waits, and for which lanes
    unsigned shuffles;                    // how many it has done; two slots, as a lane may be one shuffle ahead
    uint64_t slot[2];
};

const unsigned MOST_THREADS = 1024;
const size_t STACK = 128 * 1024;

static Thread threads[MOST_THREADS];
static char* stacks;
static ucontext_t scheduler;
static unsigned current;
static uint64_t random_state;
static void (*body)(void*);
static void* arguments;
static char* message;                     // 256 characters, of the caller
static bool failed;
static bool in_kernel;                    // whether what runs is a thread's own code

static uint64_t random_bits() {           // splitmix64 (Steele, Lea and Flood, 2014)
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void shuffle(unsigned* order, unsigned count) {
    for (unsigned i = count; i > 1; --i) {
        const unsigned j = random_bits() % i, kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

static void wait(State state, unsigned site, unsigned mask) {
    in_kernel = false;
    Thread& self = threads[current];
    self.state = state;
    self.site = site;
    self.mask = mask;
    swapcontext(&self.context, &scheduler);
}

static void thread_main() {
    body(arguments);
    in_kernel = false;
    threads[current].state = DONE;
}

// The lanes a mask can mean: those that the block has.
static unsigned lanes_of_warp(unsigned warp) {
    const unsigned count = blockDim.x - warp * 32;
    return count >= 32 ? 0xffffffffu : (1u << count) - 1;
}

// Lets lanes go on whose whole mask waits at one place.  False if a warp is stuck: its lanes wait and none of them can run.
static bool release_warps(bool* released) {
    for (unsigned warp = 0; warp * 32 < blockDim.x; ++warp) {
        Thread* lanes = threads + warp * 32;
        const unsigned exist = lanes_of_warp(warp);
        unsigned waiting = 0, ready = 0;
        for (unsigned lane = 0; lane < 32; ++lane) {
            if (!(exist >> lane & 1)) continue;
            if (lanes[lane].state == AT_WARP) waiting |= 1u << lane;
            if (lanes[lane].state == READY) ready |= 1u << lane;
        }
        for (unsigned lane = 0; lane < 32; ++lane) {
            if (!(waiting >> lane & 1)) continue;
            const unsigned wanted = lanes[lane].mask & exist;
            bool together = (wanted & ~waiting) == 0;
            for (unsigned other = 0; other < 32 && together; ++other)
                if (wanted >> other & 1) together = lanes[other].site == lanes[lane].site && lanes[other].mask == lanes[lane].mask;
            if (together) {
                for (unsigned other = 0; other < 32; ++other)
                    if (wanted >> other & 1) lanes[other].state = READY;
                waiting &= ~wanted;
                *released = true;
            }
        }
        if (waiting && !ready && !*released) {
            snprintf(message, 256, "warp divergence: lanes %08x of %08x wait in warp %u of block %u", waiting, exist, warp, blockIdx.x);
            return false;
        }
    }
    return true;
}

static bool run_block() {
    const unsigned count = blockDim.x;
    memset(__start_lr_shared, 0xff, __stop_lr_shared - __start_lr_shared);
    unsigned order[MOST_THREADS];
    for (unsigned t = 0; t < count; ++t) {
        order[t] = t;
        getcontext(&threads[t].context);
        threads[t].context.uc_stack.ss_sp = stacks + t * STACK;
        threads[t].context.uc_stack.ss_size = STACK;
        threads[t].context.uc_link = &scheduler;
        threads[t].state = READY;
        threads[t].shuffles = 0;
        makecontext(&threads[t].context, thread_main, 0);
    }
    shuffle(order, count);
    bool together = random_bits() % 2;
    for (;;) {
        if (together) shuffle(order, count);                     // otherwise the order of the warps stays as it is
        unsigned warp = count, skipped = 0;                      // the warp that runs alone, once one has been found
        for (unsigned k = 0; k < count; ++k) {
            current = order[k];
            if (threads[current].state != READY) continue;
            if (!together && warp == count) warp = current / 32;
            if (!together && warp != current / 32) {
                ++skipped;
                continue;
            }
            threadIdx = {current, 0, 0};
            in_kernel = true;
            swapcontext(&scheduler, &threads[current].context);
            in_kernel = false;
            if (failed) return false;
        }
        bool released = false;
        if (!release_warps(&released)) return false;
        if (released || skipped) continue;
        unsigned at_barrier = 0, done = 0, first = 0;
        bool one_site = true, running = false;
        for (unsigned t = 0; t < count; ++t) {
            running = running || threads[t].state == READY;
            done += threads[t].state == DONE;
            if (threads[t].state != AT_BARRIER) continue;
            if (at_barrier++ == 0) first = threads[t].site;
            one_site = one_site && threads[t].site == first;
        }
        if (running) continue;
        if (done == count) return true;
        if (at_barrier < count || !one_site) {
            snprintf(message, 256, "barrier divergence: %u of %u threads at %s, %u have ended, in block %u", at_barrier, count,
                     one_site ? "__syncthreads" : "different __syncthreads", done, blockIdx.x);
            return false;
        }
        for (unsigned t = 0; t < count; ++t) threads[t].state = READY;
        together = random_bits() % 2;
        shuffle(order, count);
    }
}

template <class Body> static void call(void* of) { (*(Body*)of)(); }

// 0, or 1 with a message.
template <class Body> static int launch(unsigned grid, unsigned block, uint64_t seed, char* text, Body run) {
    if (!stacks) stacks = (char*)mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    message = text;
    message[0] = 0;
    failed = false;
    if (block == 0 || block > MOST_THREADS || grid == 0) {
        snprintf(message, 256, "no such launch: %u blocks of %u threads", grid, block);
        return 1;
    }
    random_state = seed;
    body = call<Body>;
    arguments = &run;
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    unsigned* order = (unsigned*)malloc(grid * sizeof(unsigned));
    for (unsigned b = 0; b < grid; ++b) order[b] = b;
    shuffle(order, grid);
    bool good = true;
    for (unsigned b = 0; b < grid && good; ++b) {
        blockIdx = {order[b], 0, 0};
        good = run_block();
    }
    free(order);
    return good ? 0 : 1;
}

static void check_mask(unsigned mask) {
    if (mask >> (threadIdx.x % 32) & 1) return;
    snprintf(message, 256, "lane %u of block %u is not in the mask %08x it gives", threadIdx.x % 32, blockIdx.x, mask);
    failed = true;
    wait(AT_WARP, 0, 0);
}

// The value that lane `source` of this warp gives at the same place.
template <class T> static T from_lane(unsigned mask, T value, unsigned source, unsigned site) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves at most eight bytes");
    check_mask(mask);
    const unsigned warp = threadIdx.x / 32, turn = threads[current].shuffles++ % 2;
    memcpy(&threads[current].slot[turn], &value, sizeof value);
    wait(AT_WARP, site, mask);
    T result;
    if (lanes_of_warp(warp) & mask & 1u << source)
        memcpy(&result, &threads[warp * 32 + source].slot[turn], sizeof result);
    else
        memset(&result, 0xff, sizeof result);
    return result;
}

template <class T> static T down(unsigned mask, T value, unsigned step, unsigned site, unsigned width = 32) {
    const unsigned lane = threadIdx.x % 32, last = (lane / width + 1) * width;
    return from_lane(mask, value, lane + step < last ? lane + step : lane, site);
}

template <class T> static T across(unsigned mask, T value, unsigned bits, unsigned site, unsigned width = 32) {
    const unsigned lane = threadIdx.x % 32, other = lane ^ bits;
    return from_lane(mask, value, other < (lane / width + 1) * width ? other : lane, site);
}

template <class T> static T of_lane(unsigned mask, T value, unsigned source, unsigned site, unsigned width = 32) {
    return from_lane(mask, value, threadIdx.x % 32 / width * width + source % width, site);
}

template <class To, class From> static To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From), "of one width");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

}  // namespace lr_shim

#ifdef LR_PREEMPT
// Called at the start of every basic block, those of the shim too.
extern "C" __attribute__((no_sanitize_coverage, visibility("hidden"))) void __sanitizer_cov_trace_pc() {
    if (!lr_shim::in_kernel) return;
    lr_shim::in_kernel = false;
    if (lr_shim::random_bits() % 16 == 0) lr_shim::wait(lr_shim::READY, 0, 0);
    lr_shim::in_kernel = true;
}
#endif

#define __syncthreads() lr_shim::wait(lr_shim::AT_BARRIER, __COUNTER__ + 1, 0)
#define __syncwarp() lr_shim::wait(lr_shim::AT_WARP, __COUNTER__ + 1, 0xffffffffu)
#define __shfl_down_sync(mask, value, step, ...) lr_shim::down(mask, value, step, __COUNTER__ + 1, ##__VA_ARGS__)
#define __shfl_xor_sync(mask, value, bits, ...) lr_shim::across(mask, value, bits, __COUNTER__ + 1, ##__VA_ARGS__)
#define __shfl_sync(mask, value, source, ...) lr_shim::of_lane(mask, value, source, __COUNTER__ + 1, ##__VA_ARGS__)

__device__ inline int __float_as_int(float x) { return lr_shim::bits_as<int>(x); }
__device__ inline float __int_as_float(int x) { return lr_shim::bits_as<float>(x); }
__device__ inline long long __double_as_longlong(double x) { return lr_shim::bits_as<long long>(x); }
__device__ inline double __longlong_as_double(long long x) { return lr_shim::bits_as<double>(x); }
template <class T> __device__ inline T min(T a, T b) { return b < a ? b : a; }
template <class T> __device__ inline T max(T a, T b) { return a < b ? b : a; }
