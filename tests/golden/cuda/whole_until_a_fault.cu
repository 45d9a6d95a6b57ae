// a + b, wrapping.
__device__ inline int lr_add(int a, int b) { return (int)((unsigned int)a + (unsigned int)b); }
__device__ inline long long lr_add(long long a, long long b) { return (long long)((unsigned long long)a + (unsigned long long)b); }

// Where an array is: below 2^20 bytes the place is one in the block's own memory.
template <class T> __device__ inline T* lr_array(unsigned long long place, unsigned char* near) {
    return place < (1ull << 20) ? (T*)(near + place) : (T*)place;
}

// All threads of all blocks, which run together, wait for each other, and see what the others have written.
__device__ inline void lr_barrier(unsigned int* arrived) {
    __syncthreads();
    if (gridDim.x == 1) return;
    if (threadIdx.x == 0) {
        __threadfence();
        // The top bit turns over when all have come: block 0 adds what the others' ones leave open.
        const unsigned int mine = blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u;
        const unsigned int before = atomicAdd(arrived, mine);
        while (((before ^ *(volatile unsigned int*)arrived) & 0x80000000u) == 0) __nanosleep(32);
        __threadfence();
    }
    __syncthreads();
}

template <class T> __device__ inline void lr_copy(T* to, const T* from, long long count) {
    if (to == from) return;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x, threads = (long long)gridDim.x * blockDim.x;
    for (long long k = thread; k < count; k += threads) to[k] = from[k];
}

// Four neighbours in an array, which move 16 bytes at a time where they lie at a multiple of that.
template <class T> struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) lr_four { T at[4]; };

template <class T> __device__ inline lr_four<T> lr_load4(const T* from) {
    if ((unsigned long long)from % alignof(lr_four<T>) == 0) return *(const lr_four<T>*)from;
    return {from[0], from[1], from[2], from[3]};
}

// `add` over the lanes of a warp, always in the same order; every lane has the result.
__device__ inline long long lr_warp_add_int64(long long value) {
    for (int step = 16; step > 0; step /= 2) {
        const long long other = __shfl_xor_sync(0xffffffffu, value, step);
        value = lr_add(value, other);
    }
    return value;
}

// `add` over the runs of a total, which lie `step` elements apart; every lane of the warp has the result.
__device__ inline long long lr_runs_add_int64(const long long* of_run, long long runs, long long step, long long total) {
    #pragma unroll 8
    for (long long run = threadIdx.x % 32; run < runs; run += 32) total = lr_add(total, of_run[run * step]);
    return lr_warp_add_int64(total);
}

__device__ inline long long lr_runs_of_threads(long long extent) {
    return min(min((extent + 31) / 32, max(64LL, (extent + 511) / 512)), 4224LL);
}

template <class T> __device__ inline void lr_store4(T* to, const lr_four<T>& values) {
    if ((unsigned long long)to % alignof(lr_four<T>) == 0) {
        *(lr_four<T>*)to = values;
    } else {
        for (int u = 0; u < 4; ++u) to[u] = values.at[u];
    }
}

template <class T> __device__ inline void lr_swap(T& a, T& b) { const T kept = a; a = b; b = kept; }

// k0: over i < n, writes b[n] and totals total (sum) from row[n], a[n]
__device__ inline void k0(
    const long long* __restrict__ row, const long long* __restrict__ a, long long* __restrict__ b,
    long long* __restrict__ total_runs, bool* fault, long long runs, long long n) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    const long long warp = thread / 32, warps = threads / 32;
    const int lane = threadIdx.x % 32;
    for (long long run = warp; run < runs; run += warps) {
        long long total = 0;
        const long long fours = n >= runs * 128 ? n / 4 : 0;
        for (long long group = run * 32 + lane; group < fours; group += runs * 32) {
            const long long i_first = 4 * group;
            const lr_four<long long> row_four = lr_load4(&row[i_first]);
            const lr_four<long long> a_four = lr_load4(&a[i_first]);
            lr_four<long long> b_four;
            #pragma unroll
            for (int u = 0; u < 4; ++u) {
                const long long row_i = row_four.at[u];
                const long long a_i = a_four.at[u];
                if (row_i < 0) *fault = true;
                b_four.at[u] = lr_add(a_i, row_i);
                total = lr_add(total, row_i);
            }
            lr_store4(&b[i_first], b_four);
        }
        for (long long i = 4 * fours + run * 32 + lane; i < n; i += runs * 32) {
            const long long row_i = row[i];
            if (row_i < 0) *fault = true;
            b[i] = lr_add(a[i], row_i);
            total = lr_add(total, row_i);
        }
        total = lr_warp_add_int64(total);
        if (lane == 0) total_runs[run] = total;
    }
}

// k0_totals: total from the runs of k0
__device__ inline void k0_totals(
    const long long* __restrict__ total_runs, long long* __restrict__ total_2, long long runs) {
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const long long warps = (long long)gridDim.x * blockDim.x / 32;
    const int lane = threadIdx.x % 32;
    if (warp == 0) {
        const long long total = lr_runs_add_int64(total_runs, runs, 1, 0);
        if (lane == 0) total_2[0] = total;
    }
}

// until_a_fault: the whole program, by one block or by blocks that run together; of 1 kernel
extern "C" __global__ void __launch_bounds__(512) until_a_fault(
    const long long* __restrict__ x, long long* turns_given, const unsigned long long* __restrict__ places,
    unsigned int* arrived, bool* fault, long long m, long long n) {
    extern __shared__ __align__(16) unsigned char lr_near[];
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    long long* a = lr_array<long long>(places[0], lr_near);
    long long* b = lr_array<long long>(places[1], lr_near);
    long long* total_runs = lr_array<long long>(places[2], lr_near);
    bool met = false;
    long long turns = *turns_given;
    long long total = 0;
    long long* const a_home = (long long*)places[3];
    lr_copy(a, a_home, n);
    lr_barrier(arrived);
    long long at = 0;
    while (at < m) {
        const long long* row = x + at * n;
        lr_barrier(arrived);
        const long long k0_runs = lr_runs_of_threads(n);
        k0(row, a, b, total_runs, fault, k0_runs, n);
        lr_barrier(arrived);
        const bool many = k0_runs > 64;
        if (many) {
            k0_totals(total_runs, &total_runs[k0_runs], k0_runs);
            lr_barrier(arrived);
        }
        total = many ? total_runs[k0_runs] : lr_runs_add_int64(total_runs, k0_runs, 1, 0);
        if ((met || *fault)) break;
        if (total > 60 * n) break;
        lr_swap(a, b);
        at = lr_add(at, 1LL);
    }
    turns = at;
    lr_barrier(arrived);
    lr_copy(a_home, a, n);
    if (thread == 0) {
        *turns_given = turns;
        if (met) *fault = true;
    }
}
