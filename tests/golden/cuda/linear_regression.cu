// `add` over the lanes of a block, always in the same order; lane 0 has the result.
__device__ inline double lr_block_add_float64(double value) {
    __shared__ double of_warp[4];
    for (int step = 16; step > 0; step /= 2) {
        const double other = __shfl_down_sync(0xffffffffu, value, step);
        value += other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < 4; ++warp) value += of_warp[warp];
    }
    return value;
}

// k0: over i < n, writes r[n] and totals g[d] (sum), cost (sum) from x[n, d], w[d], y[n]
extern "C" __global__ void __launch_bounds__(128) k0(
    const float* __restrict__ x, const double* __restrict__ w, const double* __restrict__ y, double* __restrict__ r,
    double* __restrict__ g_runs, double* __restrict__ cost_runs, long long runs, long long d, long long n) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (long long run = thread; run < runs; run += (long long)gridDim.x * blockDim.x) {
        for (long long element = 0; element < d; ++element) g_runs[element * runs + run] = 0.0;
        double cost = 0.0;
        for (long long i = run; i < n; i += runs) {
            double z = 0.0;
            for (long long j = 0; j < d; ++j) {
                z += (double)x[i * d + j] * w[j];
            }
            const double rest = z - y[i];
            r[i] = rest;
            cost += rest * rest;
            for (long long j = 0; j < d; ++j) {
                g_runs[j * runs + run] += (double)x[i * d + j] * rest;
            }
        }
        cost_runs[run] = cost;
    }
}

// k0_totals: g, cost from the runs of k0
extern "C" __global__ void __launch_bounds__(128) k0_totals(
    const double* __restrict__ g_runs, double* __restrict__ g, const double* __restrict__ cost_runs,
    double* __restrict__ cost, long long runs, long long d) {
    for (long long element = blockIdx.x; element < d; element += gridDim.x) {
        double total = 0.0;
        for (long long run = threadIdx.x; run < runs; run += 128) total += g_runs[element * runs + run];
        total = lr_block_add_float64(total);
        if (threadIdx.x == 0) g[element] = total;
    }
    if (blockIdx.x == 1 % gridDim.x) {
        double total = 0.0;
        for (long long run = threadIdx.x; run < runs; run += 128) total += cost_runs[run];
        total = lr_block_add_float64(total);
        if (threadIdx.x == 0) cost[0] = total;
    }
}
