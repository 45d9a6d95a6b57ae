// Threads, blocks and grids on the CPU: what runs when (part of shim.h).
//
// A thread is a fiber: it runs until it is put aside or waits.  Blocks take turns, each for some rounds in which those of its
// threads run that are ready; at times all threads of all blocks that are alive take turns one by one.
#pragma once
#ifdef LR_WATCH
#include <link.h>
#endif
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

struct lr_index { unsigned x, y, z; };
static lr_index threadIdx, blockIdx, blockDim, gridDim;

// Of functions that a thread calls while its own code is looked at and put aside.
#define LR_OWN __attribute__((noinline, unused, no_sanitize_coverage, no_sanitize("thread,undefined")))

namespace lr_shim {

enum State { READY, ASLEEP, AT_BARRIER, AT_WARP, DONE, STATES };

const unsigned MOST_THREADS = 1024, WARPS = MOST_THREADS / 32, MOST_VARIABLES = 64;
const unsigned MOST_STATIC = 48 * 1024;                   // bytes of shared arrays that are declared in the source
const unsigned NAPS = 64;                                 // of every sleeping thread, before the grid is said to wait for ever
const unsigned SYNC_SITE = 1u << 31;                      // of __syncwarp, which orders memory as a shuffle does not
const size_t STACK = 128 * 1024;
const size_t MARGIN = 64, WIDE_MARGIN = 4096;             // around shared arrays, around dynamic shared memory
const uint32_t MARGIN_WORD = 0x7fa5a5a5;                  // a signalling nan

struct Block;
struct Clock;

struct Thread {
#ifdef __x86_64__
    void* stack;                          // its pointer, while something else runs
#else
    ucontext_t context;
#endif
    char* low;                            // where its stack begins
    Block* block;
    unsigned index;
    State state;
    unsigned site, mask;                  // where it waits, and for which lanes
    unsigned shuffles;                    // how many it has done; two slots, as a lane may be one shuffle ahead
    uint64_t slot[2];
    unsigned naps;
    uint64_t napped_since;                // the number of the change after which they were counted
    uint64_t fenced, fenced_itself, warp_synced;          // times (shim_watch.h)
    unsigned warp_mask;
    Clock *known, *pending;
};

struct Shared {                           // an array of a block, with a margin on both sides
    unsigned site;
    size_t size, around;
    unsigned char* whole;
    void* records;
    unsigned granule;
};

struct Block {
    unsigned index;
    Thread* threads;
    unsigned in[STATES], warp_in[WARPS][STATES];          // threads by their state
    unsigned order[MOST_THREADS];
    bool alone;                                           // one warp at a time
    unsigned warp;                                        // which one
    unsigned variables;
    Shared variable[MOST_VARIABLES], near;
    size_t declared;                                      // bytes of variables
    uint64_t barrier;                                     // the time of the last one
    Clock* known;
};

struct Range {                            // memory that a kernel may touch: an argument's, then what is found by its address
    char* begin;
    uint64_t size, granule;
    void* records;
};

struct Launch {                           // as shim.py makes it
    uint64_t grid, block, shared, shared_most, together, seed, arguments, ranges;
    Range* range;
    char *stacks, *message;               // of 256 characters
};

static Launch asked;
static Thread* self;
static Block* here;
static uint64_t random_state, changes;
static void (*body)(void*);
static void* arguments;
static bool failed;
static volatile bool in_kernel;           // whether what runs is a thread's own code; read by calls that g++ puts in after it has optimized

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

__attribute__((format(printf, 1, 2))) static bool fail(const char* text, ...) {
    if (failed) return false;
    failed = true;
    va_list given;
    va_start(given, text);
    vsnprintf(asked.message, 256, text, given);
    va_end(given);
    return false;
}

// ------------------------------------------------------------ fibers
#ifdef __x86_64__
extern "C" __attribute__((visibility("hidden"))) void lr_shim_switch(void** from, void* to);
asm(R"(
    .text
    .type lr_shim_switch, @function
lr_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size lr_shim_switch, .-lr_shim_switch
)");
static void* scheduler;
LR_OWN static void to_scheduler(Thread& thread) { lr_shim_switch(&thread.stack, scheduler); }
LR_OWN static void to_thread(Thread& thread) { lr_shim_switch(&scheduler, thread.stack); }
static void prepare(Thread& thread, void (*start)()) {
    void** top = (void**)(thread.low + STACK) - 8;       // six registers, where to return to, and what that finds on its stack
    memset(top, 0, 8 * sizeof(void*));
    top[6] = (void*)start;
    thread.stack = top;
}
#else
static ucontext_t scheduler;
LR_OWN static void to_scheduler(Thread& thread) { swapcontext(&thread.context, &scheduler); }
LR_OWN static void to_thread(Thread& thread) { swapcontext(&scheduler, &thread.context); }
static void prepare(Thread& thread, void (*start)()) {
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.low;
    thread.context.uc_stack.ss_size = STACK;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, start, 0);
}
#endif

static void become(Thread& thread, State state) {
    Block& block = *thread.block;
    const unsigned warp = thread.index / 32;
    --block.in[thread.state];
    --block.warp_in[warp][thread.state];
    thread.state = state;
    ++block.in[state];
    ++block.warp_in[warp][state];
}

LR_OWN static void wait(State state, unsigned site, unsigned mask) {
    in_kernel = false;
    Thread& thread = *self;
    thread.site = site;
    thread.mask = mask;
    if (state != READY) become(thread, state);
    to_scheduler(thread);
}

[[noreturn]] LR_OWN static void never() {
    for (;;) wait(READY, 0, 0);
}

static void thread_main() {
    body(arguments);
    ++changes;
    wait(DONE, 0, 0);
    never();
}

// What comes before an atomic operation or a fence.
LR_OWN static void perhaps_aside() {
    in_kernel = false;
    if (random_bits() % 4 == 0) wait(READY, 0, 0);
    in_kernel = true;
}

LR_OWN static void nap() {
    in_kernel = false;
    Thread& thread = *self;
    if (thread.napped_since != changes) thread.naps = 0;
    thread.napped_since = changes;
    ++thread.naps;
    wait(ASLEEP, 0, 0);
}

// ------------------------------------------------------------ shared memory
static Shared guarded(unsigned site, size_t size, size_t around, unsigned granule) {
    Shared made = {site, size, around, (unsigned char*)malloc(size + 2 * around + 8), nullptr, granule};
    for (size_t i = 0; i < around; i += 4) memcpy(made.whole + i, &MARGIN_WORD, 4);
    memset(made.whole + around, 0xff, size);
    for (size_t i = 0; i < around; i += 4) memcpy(made.whole + around + size + i, &MARGIN_WORD, 4);
    return made;
}

static bool intact(const Shared& array) {
    for (size_t i = 0; i < array.around; i += 4)
        if (memcmp(array.whole + i, &MARGIN_WORD, 4) || memcmp(array.whole + array.around + array.size + i, &MARGIN_WORD, 4)) return false;
    return true;
}

// The calling block's own memory for a variable that is declared __shared__.
LR_OWN static void* variable(unsigned site, size_t size, unsigned granule) {
    const bool before = in_kernel;
    in_kernel = false;
    Block& block = *here;
    unsigned k = 0;
    while (k < block.variables && block.variable[k].site != site) ++k;
    if (k == block.variables) {
        block.declared += size;
        if (k == MOST_VARIABLES || block.declared > MOST_STATIC || block.declared + asked.shared > asked.shared_most) {
            fail("too much shared memory: %zu bytes are declared and %u given at the launch", block.declared, (unsigned)asked.shared);
            never();
        }
        block.variable[block.variables++] = guarded(site, size, MARGIN, granule);
    }
    in_kernel = before;
    return block.variable[k].whole + MARGIN;
}

// The dynamic shared memory.
LR_OWN static unsigned char* near() { return here->near.whole + WIDE_MARGIN; }

#ifdef LR_WATCH
#include "shim_watch.h"
#else
inline void began(Block&) {}
inline void forget(Block&) {}
inline void barrier_passed(Block&) {}
inline void warp_passed(Thread&, unsigned) {}
inline void fenced() {}
inline void atomic_at(void*) {}
inline void settled() {}
inline void watch_begins() {}
inline void watch_ends() {}
#endif

// ------------------------------------------------------------ a block
// The lanes a mask can mean: those that the block has.
LR_OWN static unsigned lanes_of_warp(unsigned warp) {
    const unsigned count = blockDim.x - warp * 32;
    return count >= 32 ? 0xffffffffu : (1u << count) - 1;
}

// Lets lanes go on whose whole mask waits at one place.  False if the warp is stuck: its lanes wait and none of them can run.
static bool release_warp(Block& block, unsigned warp) {
    Thread* lanes = block.threads + warp * 32;
    const unsigned exist = lanes_of_warp(warp);
    unsigned waiting = 0;
    bool released = false;
    for (unsigned lane = 0; lane < 32; ++lane)
        if (exist >> lane & 1 && lanes[lane].state == AT_WARP) waiting |= 1u << lane;
    for (unsigned lane = 0; lane < 32; ++lane) {
        if (!(waiting >> lane & 1)) continue;
        const unsigned wanted = lanes[lane].mask & exist;
        bool together = (wanted & ~waiting) == 0;
        for (unsigned other = 0; other < 32 && together; ++other)
            if (wanted >> other & 1) together = lanes[other].site == lanes[lane].site && lanes[other].mask == lanes[lane].mask;
        if (!together) continue;
        for (unsigned other = 0; other < 32; ++other)
            if (wanted >> other & 1) {
                become(lanes[other], READY);
                warp_passed(lanes[other], wanted);
            }
        waiting &= ~wanted;
        released = true;
        ++changes;
    }
    if (waiting && !released && !block.warp_in[warp][READY] && !block.warp_in[warp][ASLEEP])
        return fail("warp divergence: lanes %08x of %08x wait in warp %u of block %u", waiting, exist, warp, block.index);
    return true;
}

// Lets threads go on that have waited for what has come.  False if they never will.
static bool settle(Block& block) {
    const unsigned count = blockDim.x;
    for (unsigned warp = 0; warp * 32 < count; ++warp)
        if (block.warp_in[warp][AT_WARP] && !release_warp(block, warp)) return false;
    if (block.in[READY] || block.in[ASLEEP] || block.in[DONE] == count) return true;
    unsigned first = 0;
    while (first < count - 1 && block.threads[first].state != AT_BARRIER) ++first;
    bool one_site = true;
    for (unsigned t = 0; t < count; ++t)
        one_site = one_site && (block.threads[t].state != AT_BARRIER || block.threads[t].site == block.threads[first].site);
    if (block.in[AT_BARRIER] < count || !one_site)
        return fail("barrier divergence: %u of %u threads at %s, %u have ended, in block %u", block.in[AT_BARRIER], count,
                    one_site ? "__syncthreads" : "different __syncthreads", block.in[DONE], block.index);
    for (unsigned t = 0; t < count; ++t) become(block.threads[t], READY);
    barrier_passed(block);
    ++changes;
    block.alone = random_bits() % 2;
    return true;
}

LR_OWN static void resume(Thread& thread) {
    self = &thread;
    here = thread.block;
    threadIdx = {thread.index, 0, 0};
    blockIdx = {here->index, 0, 0};
    in_kernel = true;
    to_thread(thread);
    in_kernel = false;
    settled();
}

// Every thread that is ready, of the block or of its chosen warp, runs until it waits.
static void go_round(Block& block) {
    unsigned* order = block.order;
    unsigned count = blockDim.x;
    if (block.alone) {
        const unsigned warps = (count + 31) / 32;
        if (!block.warp_in[block.warp % warps][READY]) block.warp = random_bits() % warps;
        while (!block.warp_in[block.warp % warps][READY]) ++block.warp;
        block.warp %= warps;
        const unsigned first = block.warp * 32;
        count = count - first < 32 ? count - first : 32;
        for (unsigned k = 0; k < count; ++k) order[k] = first + k;
    } else {
        for (unsigned k = 0; k < count; ++k) order[k] = k;
    }
    shuffle(order, count);
    for (unsigned k = 0; k < count && !failed; ++k)
        if (block.threads[order[k]].state == READY) resume(block.threads[order[k]]);
}

static void wake(Block& block) {
    if (!block.in[ASLEEP]) return;
    for (unsigned t = 0; t < blockDim.x; ++t)
        if (block.threads[t].state == ASLEEP) become(block.threads[t], READY);
}

static void begin(Block& block, unsigned index, Thread* threads, char* stacks) {
    memset((void*)&block, 0, sizeof block);
    block.index = index;
    block.threads = threads;
    block.alone = random_bits() % 2;
    block.in[READY] = blockDim.x;
    memset((void*)threads, 0, blockDim.x * sizeof(Thread));
    for (unsigned t = 0; t < blockDim.x; ++t) {
        threads[t].block = &block;
        threads[t].index = t;
        threads[t].low = stacks + t * STACK;
        ++block.warp_in[t / 32][READY];
        prepare(threads[t], thread_main);
    }
    block.near = guarded(0, asked.shared, WIDE_MARGIN, 1);
    began(block);
}

static void end(Block& block) {
    if (!intact(block.near))
        fail("dynamic shared memory was written outside its %u bytes, in block %u", (unsigned)asked.shared, block.index);
    forget(block);
    free(block.near.whole);
    for (unsigned k = 0; k < block.variables; ++k) {
        if (!intact(block.variable[k]))
            fail("a shared array of %zu bytes was written outside, in block %u", block.variable[k].size, block.index);
        free(block.variable[k].whole);
    }
}

// ------------------------------------------------------------ a grid
// Whether all that is left sleeps, and has looked in vain often enough.
static bool waits_for_ever(Block** alive, unsigned count, unsigned grid) {
    unsigned asleep = 0;
    for (unsigned b = 0; b < count; ++b) {
        if (alive[b]->in[READY]) return false;
        for (unsigned t = 0; t < blockDim.x; ++t) {
            const Thread& thread = alive[b]->threads[t];
            if (thread.state == ASLEEP && (thread.napped_since != changes || thread.naps < NAPS)) return false;
        }
        asleep += alive[b]->in[ASLEEP];
    }
    if (asked.together)
        fail("the grid waits for ever: %u of %u blocks wait (%u threads in __nanosleep)%s", count, grid, asleep,
             count < grid ? ", the others have ended" : "");
    else
        fail("the grid waits for ever: block %u waits (%u threads in __nanosleep), and was not launched together with the others",
             alive[0]->index, asleep);
    return true;
}

// A round of all blocks in which any thread may come after any other.
static void go_round_together(Block** alive, unsigned count, unsigned* order) {
    for (unsigned b = 0; b < count; ++b) wake(*alive[b]);
    const unsigned threads = count * blockDim.x;
    for (unsigned k = 0; k < threads; ++k) order[k] = k;
    shuffle(order, threads);
    for (unsigned k = 0; k < threads && !failed; ++k) {
        Thread& thread = alive[order[k] / blockDim.x]->threads[order[k] % blockDim.x];
        if (thread.state == READY) resume(thread);
    }
    for (unsigned b = 0; b < count && !failed; ++b) settle(*alive[b]);
}

// Runs blocks that are all alive at once.
static void run(Block* blocks, unsigned count, unsigned grid) {
    Block** alive = (Block**)malloc(count * sizeof(Block*));
    unsigned* order = (unsigned*)malloc(count * blockDim.x * sizeof(unsigned));
    for (unsigned b = 0; b < count; ++b) alive[b] = blocks + b;
    uint64_t seen = changes, turns = 0;
    while (count && !failed) {
        const unsigned chosen = random_bits() % count;
        if (count > 1 && random_bits() % 8 == 0) {
            go_round_together(alive, count, order);
        } else {
            Block& block = *alive[chosen];
            wake(block);
            unsigned rounds = count == 1 || random_bits() % 2 ? ~0u : 1 + random_bits() % 4;
            for (; rounds && block.in[READY] && !failed; --rounds) {
                go_round(block);
                if (!failed) settle(block);
            }
        }
        for (unsigned b = count; b-- > 0 && !failed;)
            if (alive[b]->in[DONE] == blockDim.x) {
                end(*alive[b]);
                alive[b] = alive[--count];
            }
        turns = changes == seen ? turns + 1 : 0;
        seen = changes;
        if (turns > NAPS * count && count && !failed) waits_for_ever(alive, count, grid);
    }
    for (unsigned b = 0; b < count; ++b) end(*alive[b]);
    free(order);
    free(alive);
}

template <class Body> static void call(void* of) { (*(Body*)of)(); }

// 0, or 1 with a message.
template <class Body> static int launch(const Launch* given, Body kernel) {
    asked = *given;
    const unsigned grid = asked.grid, block = asked.block;
    asked.message[0] = 0;
    failed = false;
    random_state = asked.seed;
    alignas(16) static char held[sizeof kernel];         // not on the stack: threads may not touch that one
    memcpy(held, (void*)&kernel, sizeof kernel);
    body = call<Body>;
    arguments = held;
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    const unsigned alive = asked.together ? grid : 1;
    unsigned* order = (unsigned*)malloc(grid * sizeof(unsigned));
    Block* blocks = (Block*)malloc(alive * sizeof(Block));
    Thread* threads = (Thread*)malloc(alive * block * sizeof(Thread));
    for (unsigned b = 0; b < grid; ++b) order[b] = b;
    shuffle(order, grid);
    watch_begins();
    for (unsigned first = 0; first < grid && !failed; first += alive) {
        for (unsigned b = 0; b < alive; ++b)
            begin(blocks[b], order[first + b], threads + b * block, asked.stacks + b * block * STACK);
        run(blocks, alive, grid);
    }
    watch_ends();
    free(threads);
    free(blocks);
    free(order);
    return failed ? 1 : 0;
}

}  // namespace lr_shim
