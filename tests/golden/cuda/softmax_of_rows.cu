#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

// a + b, wrapping.
__device__ inline int lr_add(int a, int b) { return (int)((unsigned int)a + (unsigned int)b); }
__device__ inline long long lr_add(long long a, long long b) { return (long long)((unsigned long long)a + (unsigned long long)b); }

// The larger; a nan is kept, and +0 is above -0.
__device__ inline float lr_maximum(float a, float b) { return isnan(a) || a > b || (a == b && !signbit(a)) ? a : b; }
__device__ inline double lr_maximum(double a, double b) { return isnan(a) || a > b || (a == b && !signbit(a)) ? a : b; }

// Shifted left.
__device__ inline int lr_shl(int a, int count) { return (int)((unsigned int)a << count); }
__device__ inline long long lr_shl(long long a, long long count) { return (long long)((unsigned long long)a << count); }

// `add` over the lanes of a warp, always in the same order; every lane has the result.
__device__ inline double lr_warp_add_float64(double value) {
    for (int step = 16; step > 0; step /= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, value, step);
        value += other;
    }
    return value;
}

// `maximum` over the lanes of a warp, always in the same order; every lane has the result.
__device__ inline double lr_warp_maximum_float64(double value) {
    for (int step = 16; step > 0; step /= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, value, step);
        value = lr_maximum(value, other);
    }
    return value;
}

// k0: over i < n, writes y[n, m] from x[n, m]
extern "C" __global__ void __launch_bounds__(128) k0(
    const double* __restrict__ x, double* __restrict__ y, double* __restrict__ e, long long m, long long n) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    const long long warp = thread / 32, warps = threads / 32;
    const int lane = threadIdx.x % 32;
    double* e_own = e + warp * m;
    for (long long i = warp; i < n; i += warps) {
        double high = -(double)INFINITY;
        double high_lane = -(double)INFINITY;
        for (long long j = lane; j < m; j += 32) {
            high_lane = lr_maximum(high_lane, x[i * m + j]);
        }
        high = lr_maximum(high, lr_warp_maximum_float64(high_lane));
        double total = 0.0;
        __syncwarp();
        double total_lane = 0.0;
        for (long long j = lane; j < m; j += 32) {
            const double t1 = x[i * m + j] - high;
            const double t2 = rint(t1 * 0x1.71547652b82fep+0);
            const double t3 = fma(t2, -0x1.abc9e3b39803fp-56, fma(t2, -0x1.62e42fefa39efp-1, t1));
            const double t4 = fma(fma(0x1.6124613a86d0ap-33, t3, 0x1.1eed8eff8d898p-29), t3, 0x1.ae64567f544e4p-26);
            const double t5 = fma(fma(fma(t4, t3, 0x1.27e4fb7789f5dp-22), t3, 0x1.71de3a556c734p-19), t3, 0x1.a01a01a01a01ap-16);
            const double t6 = fma(fma(fma(t5, t3, 0x1.a01a01a01a01ap-13), t3, 0x1.6c16c16c16c17p-10), t3, 0x1.1111111111111p-7);
            const double t7 = fma(fma(fma(t6, t3, 0x1.5555555555555p-5), t3, 0x1.5555555555555p-3), t3, 0.5);
            e_own[j] = fma(fma(t7, t3, 1.0), t3, 1.0) * __longlong_as_double(lr_shl(lr_add((long long)t2, 1023LL), 52LL));
            total_lane += e_own[j];
        }
        total += lr_warp_add_float64(total_lane);
        __syncwarp();
        for (long long j = lane; j < m; j += 32) {
            y[i * m + j] = e_own[j] / total;
        }
    }
}
