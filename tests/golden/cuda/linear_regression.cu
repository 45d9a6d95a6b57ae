// Four neighbours in an array, which move 16 bytes at a time where they lie at a multiple of that.
template <class T> struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) lr_four { T at[4]; };

template <class T> __device__ inline lr_four<T> lr_load4(const T* from) {
    if ((unsigned long long)from % alignof(lr_four<T>) == 0) return *(const lr_four<T>*)from;
    return {from[0], from[1], from[2], from[3]};
}

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

// k0: over i < n, writes r[n] and totals g[d] (sum), cost (sum) from x[n, d], w[d], y[n]
extern "C" __global__ void __launch_bounds__(128) k0(
    const float* __restrict__ x, const double* __restrict__ w, const double* __restrict__ y, double* __restrict__ r,
    double* __restrict__ g_runs, double* __restrict__ cost_runs, long long runs, long long d, long long n) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    const long long warp = thread / 32, warps = threads / 32;
    const int lane = threadIdx.x % 32;
    for (long long run = warp; run < runs; run += warps) {
        double* g_own = g_runs + run * d;
        for (long long element = lane; element < d; element += 32) g_own[element] = 0.0;
        double cost = 0.0;
        __syncwarp();
        for (long long i = run; i < n; i += runs) {
            double z = 0.0;
            double z_lane = 0.0;
            const long long fours = d >= 128 ? d / 4 : 0;
            for (long long group = lane; group < fours; group += 32) {
                const long long j_first = 4 * group;
                const lr_four<float> x_four = lr_load4(&x[i * d + j_first]);
                const lr_four<double> w_four = lr_load4(&w[j_first]);
                #pragma unroll
                for (int u = 0; u < 4; ++u) {
                    const float x_ij = x_four.at[u];
                    const double w_j = w_four.at[u];
                    z_lane += (double)x_ij * w_j;
                }
            }
            for (long long j = 4 * fours + lane; j < d; j += 32) {
                z_lane += (double)x[i * d + j] * w[j];
            }
            z += lr_warp_add_float64(z_lane);
            const double rest = z - y[i];
            if (lane == 0) {
                r[i] = rest;
                cost += rest * rest;
            }
            __syncwarp();
            const long long fours_2 = d >= 128 ? d / 4 : 0;
            for (long long group_2 = lane; group_2 < fours_2; group_2 += 32) {
                const long long j_first = 4 * group_2;
                const lr_four<float> x_four = lr_load4(&x[i * d + j_first]);
                #pragma unroll
                for (int u = 0; u < 4; ++u) {
                    const long long j = j_first + u;
                    const float x_ij = x_four.at[u];
                    g_own[j] += (double)x_ij * rest;
                }
            }
            for (long long j = 4 * fours_2 + lane; j < d; j += 32) {
                g_own[j] += (double)x[i * d + j] * rest;
            }
            __syncwarp();
        }
        cost = lr_warp_add_float64(cost);
        if (lane == 0) cost_runs[run] = cost;
    }
}

// k0_totals: g, cost from the runs of k0
extern "C" __global__ void __launch_bounds__(128) k0_totals(
    const double* __restrict__ g_runs, double* __restrict__ g, const double* __restrict__ cost_runs,
    double* __restrict__ cost, long long runs, long long d) {
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const long long warps = (long long)gridDim.x * blockDim.x / 32;
    const int lane = threadIdx.x % 32;
    for (long long element = warp; element < d; element += warps) {
        const double total = lr_runs_add_float64(g_runs + element, runs, d, 0.0);
        if (lane == 0) g[element] = total;
    }
    if (warp == 1 % warps) {
        const double total = lr_runs_add_float64(cost_runs, runs, 1, 0.0);
        if (lane == 0) cost[0] = total;
    }
}
