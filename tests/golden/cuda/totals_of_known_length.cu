#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

// a + b, wrapping.
__device__ inline int lr_add(int a, int b) { return (int)((unsigned int)a + (unsigned int)b); }
__device__ inline long long lr_add(long long a, long long b) { return (long long)((unsigned long long)a + (unsigned long long)b); }

// The larger; a nan is kept, and +0 is above -0.
__device__ inline float lr_maximum(float a, float b) { return isnan(a) || a > b || (a == b && !signbit(a)) ? a : b; }
__device__ inline double lr_maximum(double a, double b) { return isnan(a) || a > b || (a == b && !signbit(a)) ? a : b; }

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
__device__ inline float lr_warp_maximum_float32(float value) {
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, value, step);
        value = lr_maximum(value, other);
    }
    return value;
}

// `maximum` over the runs of a total, which lie `step` elements apart; every lane of the warp has the result.
__device__ inline float lr_runs_maximum_float32(const float* of_run, long long runs, long long step, float total) {
    #pragma unroll 8
    for (long long run = threadIdx.x % 32; run < runs; run += 32) total = lr_maximum(total, of_run[run * step]);
    return lr_warp_maximum_float32(total);
}

// k0: over i < n, totals g[40] (sum), h[64] (largest), count[40] (sum), norm (sum) from r[n], x[n, 40]
extern "C" __global__ void __launch_bounds__(128) k0(
    const double* __restrict__ r, const float* __restrict__ x, double* __restrict__ g_runs, float* __restrict__ h_runs,
    long long* __restrict__ count_runs, double* __restrict__ norm_runs, long long runs, long long n) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    const long long warp = thread / 32, warps = threads / 32;
    const int lane = threadIdx.x % 32;
    for (long long run = warp; run < runs; run += warps) {
        double g_lane[2];
        #pragma unroll
        for (int turn = 0; turn < 2; ++turn) g_lane[turn] = 0.0;
        float h_lane[2];
        #pragma unroll
        for (int turn = 0; turn < 2; ++turn) h_lane[turn] = -INFINITY;
        long long* count_own = count_runs + run * 40;
        for (long long element = lane; element < 40; element += 32) count_own[element] = 0;
        double norm_ = 0.0;
        __syncwarp();
        for (long long i = run; i < n; i += runs) {
            const double rest = r[i];
            if (lane == 0) norm_ += rest * rest;
            __syncwarp();
            #pragma unroll
            for (int turn = 0; turn < 2; ++turn) {
                const long long j = 32 * turn + lane;
                if (j >= 40) continue;
                const float x_ij = x[i * 40 + j];
                g_lane[turn] += (double)x_ij * rest;
                count_own[j] = lr_add(count_own[j], (long long)(x_ij > 0.0f));
            }
            __syncwarp();
            #pragma unroll
            for (int turn = 0; turn < 2; ++turn) {
                const long long p = 32 * turn + lane;
                h_lane[turn] = lr_maximum(h_lane[turn], x[i * 40 + p * 7 % 40] - (float)p);
            }
            __syncwarp();
            if (lane == 0) count_own[3] = lr_add(count_own[3], 1LL);
            __syncwarp();
        }
        norm_ = lr_warp_add_float64(norm_);
        if (lane == 0) norm_runs[run] = norm_;
        #pragma unroll
        for (int turn = 0; turn < 2; ++turn) if (32 * turn + lane < 40) g_runs[run * 40 + 32 * turn + lane] = g_lane[turn];
        #pragma unroll
        for (int turn = 0; turn < 2; ++turn) h_runs[run * 64 + 32 * turn + lane] = h_lane[turn];
    }
}

// k0_totals: g, h, count, norm from the runs of k0
extern "C" __global__ void __launch_bounds__(128) k0_totals(
    const double* __restrict__ g_runs, double* __restrict__ g, const float* __restrict__ h_runs, float* __restrict__ h,
    const long long* __restrict__ count_runs, long long* __restrict__ count, const double* __restrict__ norm_runs,
    double* __restrict__ norm_, long long runs) {
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const long long warps = (long long)gridDim.x * blockDim.x / 32;
    const int lane = threadIdx.x % 32;
    for (long long element = warp; element < 40; element += warps) {
        const double total = lr_runs_add_float64(g_runs + element, runs, 40, 0.0);
        if (lane == 0) g[element] = total;
    }
    for (long long element = warp; element < 64; element += warps) {
        const float total = lr_runs_maximum_float32(h_runs + element, runs, 64, -INFINITY);
        if (lane == 0) h[element] = total;
    }
    for (long long element = warp; element < 40; element += warps) {
        const long long total = lr_runs_add_int64(count_runs + element, runs, 40, 0);
        if (lane == 0) count[element] = total;
    }
    if (warp == 3 % warps) {
        const double total = lr_runs_add_float64(norm_runs, runs, 1, 0.0);
        if (lane == 0) norm_[0] = total;
    }
}
