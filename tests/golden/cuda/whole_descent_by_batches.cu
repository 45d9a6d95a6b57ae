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

// The quotient rounded down; 0 if the divisor is.
__device__ inline long long lr_floordiv(long long a, long long b) {
    if (b == 0) return 0;
    const long long quotient = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

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

__device__ inline long long lr_runs_of_columns(long long extent, long long elements) {
    const long long most = max(128LL, 4194304LL / max(elements, 1LL));
    const long long enough = max(64LL, (extent + 63) / 64);
    return max(min(min(extent, enough), min(2112LL, most)), 0LL);
}

template <class T> __device__ inline void lr_store4(T* to, const lr_four<T>& values) {
    if ((unsigned long long)to % alignof(lr_four<T>) == 0) {
        *(lr_four<T>*)to = values;
    } else {
        for (int u = 0; u < 4; ++u) to[u] = values.at[u];
    }
}

template <class T> __device__ inline void lr_swap(T& a, T& b) { const T kept = a; a = b; b = kept; }

// residual: over i < rows of a batch, writes r[rows of a batch] from xb[rows of a batch, d], w[d], yb[rows of a
//     batch]
__device__ inline void residual(
    const double* __restrict__ xb, const double* __restrict__ w, const double* __restrict__ yb, double* __restrict__ r,
    long long d, long long rows_of_a_batch) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    const long long warp = thread / 32, warps = threads / 32;
    const int lane = threadIdx.x % 32;
    for (long long i = warp; i < rows_of_a_batch; i += warps) {
        double z = 0.0;
        double z_lane = 0.0;
        const long long fours = d >= 128 ? d / 4 : 0;
        for (long long group = lane; group < fours; group += 32) {
            const long long j_first = 4 * group;
            const lr_four<double> xb_four = lr_load4(&xb[i * d + j_first]);
            const lr_four<double> w_four = lr_load4(&w[j_first]);
            #pragma unroll
            for (int u = 0; u < 4; ++u) {
                const double xb_ij = xb_four.at[u];
                const double w_j = w_four.at[u];
                z_lane += xb_ij * w_j;
            }
        }
        for (long long j = 4 * fours + lane; j < d; j += 32) {
            z_lane += xb[i * d + j] * w[j];
        }
        z += lr_warp_add_float64(z_lane);
        if (lane == 0) r[i] = z - yb[i];
    }
}

// gradient: over i < rows of a batch, totals g[d] (sum) from xb[rows of a batch, d], r[rows of a batch]
__device__ inline void gradient(
    const double* __restrict__ xb, const double* __restrict__ r, double* __restrict__ g_runs, long long runs,
    long long d, long long rows_of_a_batch) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    const long long warp = thread / 32, warps = threads / 32;
    const int lane = threadIdx.x % 32;
    const long long across = (d + 31) / 32;
    for (long long item = warp; item < runs * across; item += warps) {
        const long long run = item / across, j = item % across * 32 + lane;
        if (j >= d) continue;
        double g = 0.0;
        for (long long i = run; i < rows_of_a_batch; i += runs) {
            g += xb[i * d + j] * r[i];
        }
        g_runs[run * d + j] = g;
    }
}

// gradient_totals: g from the runs of gradient
__device__ inline void gradient_totals(
    const double* __restrict__ g_runs, double* __restrict__ g, long long runs, long long d) {
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const long long warps = (long long)gridDim.x * blockDim.x / 32;
    const int lane = threadIdx.x % 32;
    for (long long element = warp; element < d; element += warps) {
        const double total = lr_runs_add_float64(g_runs + element, runs, d, 0.0);
        if (lane == 0) g[element] = total;
    }
}

// update: over j < d, writes new[d] from w[d], g[d]
__device__ inline void update(
    const double* __restrict__ w, const double* __restrict__ g, double* __restrict__ new_, double rate,
    long long rows_of_a_batch, long long d) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    const long long fours = d >= 4 * threads ? d / 4 : 0;
    for (long long group = thread; group < fours; group += threads) {
        const long long j_first = 4 * group;
        const lr_four<double> w_four = lr_load4(&w[j_first]);
        const lr_four<double> g_four = lr_load4(&g[j_first]);
        lr_four<double> new_four;
        #pragma unroll
        for (int u = 0; u < 4; ++u) {
            const double w_j = w_four.at[u];
            const double g_j = g_four.at[u];
            new_four.at[u] = w_j - rate * g_j / (double)rows_of_a_batch;
        }
        lr_store4(&new_[j_first], new_four);
    }
    for (long long j = 4 * fours + thread; j < d; j += threads) {
        new_[j] = w[j] - rate * g[j] / (double)rows_of_a_batch;
    }
}

// descent_by_batches: the whole program, by one block or by blocks that run together; of 3 kernels
extern "C" __global__ void __launch_bounds__(512) descent_by_batches(
    const double* __restrict__ x, const double* __restrict__ y, const unsigned long long* __restrict__ places,
    unsigned int* arrived, double rate, long long d, long long k, long long n, long long rows_of_a_batch) {
    extern __shared__ __align__(16) unsigned char lr_near[];
    double* w = lr_array<double>(places[0], lr_near);
    double* g = lr_array<double>(places[1], lr_near);
    double* new_ = lr_array<double>(places[2], lr_near);
    double* r = lr_array<double>(places[3], lr_near);
    double* g_runs = lr_array<double>(places[4], lr_near);
    double* const w_home = (double*)places[5];
    lr_copy(w, w_home, d);
    lr_barrier(arrived);
    for (long long t = 0; t < lr_floordiv(k + n - 1, k); ++t) {
        const long long start = t * k;
        const long long rows_of_a_batch_2 = min(k, n - start);
        const double* xb = x + start * d;
        const double* yb = y + start;
        lr_barrier(arrived);
        residual(xb, w, yb, r, d, rows_of_a_batch_2);
        lr_barrier(arrived);
        const long long gradient_runs = lr_runs_of_columns(rows_of_a_batch_2, d);
        gradient(xb, r, g_runs, gradient_runs, d, rows_of_a_batch_2);
        lr_barrier(arrived);
        gradient_totals(g_runs, g, gradient_runs, d);
        lr_barrier(arrived);
        update(w, g, new_, rate, rows_of_a_batch_2, d);
        lr_swap(w, new_);
    }
    lr_barrier(arrived);
    lr_copy(w_home, w, d);
}
