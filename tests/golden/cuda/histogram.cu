// a + b, wrapping.
__device__ inline int lr_add(int a, int b) { return (int)((unsigned int)a + (unsigned int)b); }
__device__ inline long long lr_add(long long a, long long b) { return (long long)((unsigned long long)a + (unsigned long long)b); }

// `add` over the lanes of a warp, always in the same order; every lane has the result.
__device__ inline double lr_warp_add_float64(double value) {
    for (int step = 16; step > 0; step /= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, value, step);
        value += other;
    }
    return value;
}

// `add` over the runs of a total, which lie `step` elements apart; every lane of the warp has the result.
__device__ inline double lr_runs_add_float64(const double* of_run, long long runs, long long step, double total) {
    #pragma unroll 8
    for (long long run = threadIdx.x % 32; run < runs; run += 32) total += of_run[run * step];
    return lr_warp_add_float64(total);
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

// `maximum` over the lanes of a warp, always in the same order; every lane has the result.
__device__ inline int lr_warp_maximum_int32(int value) {
    for (int step = 16; step > 0; step /= 2) {
        const int other = __shfl_xor_sync(0xffffffffu, value, step);
        value = max(value, other);
    }
    return value;
}

// `maximum` over the runs of a total, which lie `step` elements apart; every lane of the warp has the result.
__device__ inline int lr_runs_maximum_int32(const int* of_run, long long runs, long long step, int total) {
    #pragma unroll 8
    for (long long run = threadIdx.x % 32; run < runs; run += 32) total = max(total, of_run[run * step]);
    return lr_warp_maximum_int32(total);
}

// k0: over i < n, totals counts[m] (sum), weights[m, 3] (sum), most (largest) from u[n], w[n]
extern "C" __global__ void __launch_bounds__(128) k0(
    const int* __restrict__ u_2, const double* __restrict__ w, long long* __restrict__ counts_runs,
    double* __restrict__ weights_runs, int* __restrict__ most_runs, long long runs, long long n, long long m) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    for (long long run = thread; run < runs; run += threads) {
        for (long long element = 0; element < m; ++element) counts_runs[element * runs + run] = 0;
        for (long long element = 0; element < 3 * m; ++element) weights_runs[element * runs + run] = 0.0;
        int most = -1;
        for (long long i = run; i < n; i += runs) {
            const int u_i = u_2[i];
            const long long at = (long long)u_i;
            counts_runs[at * runs + run] = lr_add(counts_runs[at * runs + run], 1LL);
            for (long long q = 0; q < 3; ++q) {
                weights_runs[(at * 3 + q) * runs + run] += w[i] * (double)q;
            }
            most = max(most, u_i);
        }
        most_runs[run] = most;
    }
}

// k0_totals: counts, weights, most from the runs of k0
extern "C" __global__ void __launch_bounds__(128) k0_totals(
    const long long* __restrict__ counts_runs, long long* __restrict__ counts, const double* __restrict__ weights_runs,
    double* __restrict__ weights, const int* __restrict__ most_runs, int* __restrict__ most, long long runs,
    long long m) {
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const long long warps = (long long)gridDim.x * blockDim.x / 32;
    const int lane = threadIdx.x % 32;
    for (long long element = warp; element < m; element += warps) {
        const long long total = lr_runs_add_int64(counts_runs + element * runs, runs, 1, 0);
        if (lane == 0) counts[element] = total;
    }
    for (long long element = warp; element < 3 * m; element += warps) {
        const double total = lr_runs_add_float64(weights_runs + element * runs, runs, 1, 0.0);
        if (lane == 0) weights[element] = total;
    }
    if (warp == 2 % warps) {
        const int total = lr_runs_maximum_int32(most_runs, runs, 1, -1);
        if (lane == 0) most[0] = total;
    }
}
