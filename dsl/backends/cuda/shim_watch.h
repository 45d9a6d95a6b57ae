// Every access of a kernel is looked at (part of shim.h, in its namespace).
//
// g++ calls __tsan_read4 and the like before each access (-fsanitize=thread, without a library).  An access must
// lie in an argument's array, in shared memory of the thread's own block, or on its stack; shared memory is written before it is
// read.
//
// Two threads race if they touch the same memory, one of them writes something else than what is there, and nothing makes one
// come before the other: __syncthreads for a block, __syncwarp for the lanes of its mask, and, between blocks, an atomic operation
// after a fence on the one side, and a look at the same word before a fence on the other.  What a thread can know of is told in
// times: the number of accesses, barriers and fences so far.  A thread knows all that its block did up to the last barrier, and
// what its block knew then; by an atomic word it learns what those knew who changed it.  Of each element the last write and the
// last two reads are remembered.  A program without races passes whatever the schedule; one with races may pass.

struct Record {
    uint32_t writer, reader, other;       // threads: block * 1024 + index + 1
    uint64_t written, read, other_read;   // times
};

struct Known { uint32_t thread; uint64_t time; };

struct Clock {                            // what somebody knows of
    uint64_t* of_block;                   // all that a block did before this time
    unsigned count, room;
    Known* of_thread;                     // and a thread
};

struct Word { void* at; Clock clock; };   // one that atomic operations have changed

const unsigned MOST_WORDS = 256;
static uint64_t now;
static unsigned words, clocks;
static Word word[MOST_WORDS];
static struct { char* at; size_t size; uint32_t thread; unsigned char was[16]; } overwritten;    // by the thread that runs

static uint32_t name_of(const Thread& thread) { return thread.block->index * MOST_THREADS + thread.index + 1; }

static void learn(Clock& mine, const Clock& other) {
    for (unsigned b = 0; b < clocks; ++b)
        if (mine.of_block[b] < other.of_block[b]) mine.of_block[b] = other.of_block[b];
    for (unsigned k = 0; k < other.count; ++k) {
        unsigned at = 0;
        while (at < mine.count && mine.of_thread[at].thread != other.of_thread[k].thread) ++at;
        if (at == mine.count) {
            if (mine.count == mine.room)
                mine.of_thread = (Known*)realloc(mine.of_thread, (mine.room = 2 * mine.room + 4) * sizeof(Known));
            mine.of_thread[mine.count++] = other.of_thread[k];
        } else if (mine.of_thread[at].time < other.of_thread[k].time) {
            mine.of_thread[at].time = other.of_thread[k].time;
        }
    }
}

static Clock new_clock() { return {(uint64_t*)calloc(clocks + 1, sizeof(uint64_t)), 0, 0, nullptr}; }

static void free_clock(Clock*& clock) {
    if (!clock) return;
    free(clock->of_block);
    free(clock->of_thread);
    delete clock;
    clock = nullptr;
}

static void learn(Clock*& mine, const Clock& other) {
    if (!mine) mine = new Clock(new_clock());
    learn(*mine, other);
}

static Word* word_at(const void* at) {
    for (unsigned k = 0; k < words; ++k)
        if (word[k].at == at) return word + k;
    return nullptr;
}

// ------------------------------------------------------------ what makes one come before another
static void began(Block& block) { block.barrier = ++now; }

static void barrier_passed(Block& block) {
    block.barrier = ++now;
    for (unsigned t = 0; t < blockDim.x; ++t)
        if (block.threads[t].known) {
            learn(block.known, *block.threads[t].known);
            free_clock(block.threads[t].known);
        }
}

static void warp_passed(Thread& thread, unsigned mask) {
    if (thread.site & SYNC_SITE) {
        thread.warp_synced = ++now;
        thread.warp_mask = mask;
    }
}

static void fenced() {
    self->fenced = here->barrier;
    self->fenced_itself = ++now;
    if (self->pending) {
        learn(self->known, *self->pending);
        free_clock(self->pending);
    }
}

static void atomic_at(void* at) {
    Word* found = word_at(at);
    if (!found) {
        if (words == MOST_WORDS) {
            fail("atomic operations on more than %u words", MOST_WORDS);
            never();
        }
        found = &(word[words++] = {at, new_clock()});
    }
    learn(self->pending, found->clock);
    if (!self->fenced_itself) return;
    uint64_t& block = found->clock.of_block[asked.together ? here->index : 0];
    if (asked.together && block < self->fenced) block = self->fenced;
    Known own = {name_of(*self), self->fenced_itself};
    learn(found->clock, Clock{found->clock.of_block, 1, 1, &own});
    if (here->known) learn(found->clock, *here->known);
    if (self->known) learn(found->clock, *self->known);
}

static bool knows(const Clock* clock, uint32_t thread, uint64_t time) {
    if (!clock) return false;
    const unsigned block = (thread - 1) / MOST_THREADS;
    if (block < clocks && time < clock->of_block[block]) return true;
    for (unsigned k = 0; k < clock->count; ++k)
        if (clock->of_thread[k].thread == thread) return time < clock->of_thread[k].time;
    return false;
}

// Whether what a thread did at a time comes before what the current one does now.
static bool comes_before(uint32_t thread, uint64_t time) {
    if (!thread || thread == name_of(*self)) return true;
    const unsigned block = (thread - 1) / MOST_THREADS, index = (thread - 1) % MOST_THREADS;
    if (block == here->index) {
        if (time < here->barrier) return true;
        if (index / 32 == self->index / 32 && self->warp_mask >> index % 32 & 1 && time < self->warp_synced) return true;
    }
    return knows(here->known, thread, time) || knows(self->known, thread, time);
}

// ------------------------------------------------------------ accesses
static const char* const NOWHERE = "memory of no array";

// The memory that is nearest to an address, in words.
static const char* place_of(const char* at, char* text, size_t room) {
    long long nearest = 1 << 20;
    snprintf(text, room, "%s", NOWHERE);
    for (unsigned k = 0; k < asked.ranges; ++k) {
        const Range& range = asked.range[k];
        const long long offset = at - range.begin, behind = offset - (long long)range.size;
        const long long distance = offset < 0 ? -offset : behind < 0 ? 0 : behind;
        if (!range.begin || distance >= nearest) continue;
        nearest = distance;
        const bool given = k < asked.arguments;
        snprintf(text, room, "byte %lld of %s %u, which has %llu", offset, given ? "argument" : "place",
                 (unsigned)(given ? k : k - asked.arguments), (unsigned long long)range.size);
    }
    for (unsigned k = 0; k <= here->variables; ++k) {
        const Shared& array = k ? here->variable[k - 1] : here->near;
        const long long offset = at - (char*)array.whole - array.around, behind = offset - (long long)array.size;
        const long long distance = offset < 0 ? -offset : behind < 0 ? 0 : behind;
        if (distance >= nearest) continue;
        nearest = distance;
        snprintf(text, room, "byte %lld of %s of %zu bytes", offset, k ? "a shared array" : "dynamic shared memory", array.size);
    }
    return text;
}

// What a program's own constants are in: the library's data.
static char *data_begin, *data_end;

static int find_data(struct dl_phdr_info* info, size_t, void*) {
    char *begin = nullptr, *end = nullptr;
    for (int k = 0; k < info->dlpi_phnum; ++k) {
        if (info->dlpi_phdr[k].p_type != PT_LOAD) continue;
        char* const at = (char*)info->dlpi_addr + info->dlpi_phdr[k].p_vaddr;
        if (!begin || at < begin) begin = at;
        if (at + info->dlpi_phdr[k].p_memsz > end) end = at + info->dlpi_phdr[k].p_memsz;
    }
    if ((char*)&now < begin || (char*)&now >= end) return 0;
    data_begin = begin;
    data_end = end;
    return 1;
}

// After the thread that ran has been put aside, or goes on to another access: whether it has changed what it must not.
static void settled() {
    if (!overwritten.size) return;
    const size_t size = overwritten.size;
    overwritten.size = 0;
    if (memcmp(overwritten.at, overwritten.was, size) == 0) return;
    char where[128];
    place_of(overwritten.at, where, sizeof where);
    fail("race: thread %u of block %u writes %s, and thread %u of block %u touches it, without a barrier in between", self->index,
         here->index, where, (overwritten.thread - 1) % MOST_THREADS, (overwritten.thread - 1) / MOST_THREADS);
}

static void compare(Record& record, char* at, size_t size, bool writes) {
    const uint32_t me = name_of(*self);
    uint32_t against = 0;
    if (!comes_before(record.writer, record.written)) against = record.writer;
    if (writes && !comes_before(record.reader, record.read)) against = record.reader;
    if (writes && !comes_before(record.other, record.other_read)) against = record.other;
    if (against && writes) {
        overwritten.at = at;
        overwritten.size = size;
        overwritten.thread = against;
        memcpy(overwritten.was, at, size);
    } else if (against) {
        char where[128];
        place_of(at, where, sizeof where);
        fail("race: thread %u of block %u reads %s, and thread %u of block %u writes it, without a barrier in between", self->index,
             here->index, where, (against - 1) % MOST_THREADS, (against - 1) / MOST_THREADS);
    }
    ++now;
    if (writes) {
        record.writer = me;
        record.written = now;
    } else if (record.reader == me || !record.reader) {
        record.reader = me;
        record.read = now;
    } else {
        record.other = record.reader;
        record.other_read = record.read;
        record.reader = me;
        record.read = now;
    }
}

static bool inside(const char* at, size_t size, const char* begin, size_t room) { return at >= begin && at + size <= begin + room; }

static void compare_all(void*& records, size_t granule, char* begin, size_t room, char* at, size_t size, bool writes, bool empty) {
    if (!records) records = calloc(room / granule + 1, sizeof(Record));
    for (size_t k = (at - begin) / granule; k * granule < (size_t)(at - begin) + size && !failed; ++k) {
        Record& record = ((Record*)records)[k];
        if (empty && !writes && !record.writer) {
            char where[128];
            place_of(at, where, sizeof where);
            fail("thread %u of block %u reads %s, which nothing was written to", self->index, here->index, where);
        }
        compare(record, at, size, writes);
    }
}

LR_OWN static void touched(void* address, size_t size, bool writes) {
    if (!in_kernel) return;
    in_kernel = false;
    settled();
    char* at = (char*)address;
    if (failed) never();
    if (!inside(at, size, self->low, STACK) && !inside(at, size, data_begin, data_end - data_begin)) {
        bool found = false;
        for (unsigned k = 0; k < asked.ranges && !found; ++k) {
            Range& range = asked.range[k];
            if (!range.begin || !inside(at, size, range.begin, range.size)) continue;
            found = true;
            if (Word* atomic = word_at(at)) {
                if (!writes) learn(self->pending, atomic->clock);
                continue;
            }
            Range* whole = &range;                              // arguments may share memory
            for (unsigned j = 0; j < k; ++j)
                if (asked.range[j].begin == range.begin) { whole = asked.range + j; break; }
            compare_all(whole->records, whole->granule, whole->begin, whole->size, at, size, writes, false);
        }
        for (unsigned k = 0; k <= here->variables && !found; ++k) {
            Shared& array = k ? here->variable[k - 1] : here->near;
            char* const begin = (char*)array.whole + array.around;
            if (!inside(at, size, begin, array.size)) continue;
            found = true;
            compare_all(array.records, array.granule, begin, array.size, at, size, writes, true);
        }
        if (!found) {
            char where[128];
            place_of(at, where, sizeof where);
            fail("thread %u of block %u %s %zu bytes at %s", self->index, here->index, writes ? "writes" : "reads", size, where);
        }
    }
    if (failed) never();
    in_kernel = true;
}

// ------------------------------------------------------------ a launch
static void forget(Block& block) {
    free(block.near.records);
    for (unsigned k = 0; k < block.variables; ++k) free(block.variable[k].records);
    free_clock(block.known);
    for (unsigned t = 0; t < blockDim.x; ++t) {
        free_clock(block.threads[t].known);
        free_clock(block.threads[t].pending);
    }
}

static void watch_begins() {
    now = 1;
    words = 0;
    clocks = asked.together ? asked.grid : 0;
    overwritten.size = 0;
    dl_iterate_phdr(find_data, nullptr);
}

static void watch_ends() {
    for (unsigned k = 0; k < asked.ranges; ++k) free(asked.range[k].records);
    for (unsigned k = 0; k < words; ++k) {
        free(word[k].clock.of_block);
        free(word[k].clock.of_thread);
    }
}
