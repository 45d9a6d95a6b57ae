// a + b, wrapping.
__device__ inline int lr_add(int a, int b) { return (int)((unsigned int)a + (unsigned int)b); }
__device__ inline long long lr_add(long long a, long long b) { return (long long)((unsigned long long)a + (unsigned long long)b); }

// k0: over i < n, writes y[n], count[n] from x[n]
extern "C" __global__ void __launch_bounds__(128) k0(
    const double* __restrict__ x, double* __restrict__ y, long long* __restrict__ count, long long n) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    for (long long i = thread; i < n; i += threads) {
        double z = x[i];
        long long turns = 0;
        while (turns < 100) {
            const double old = z;
            z = (old + x[i] / old) * 0.5;
            if (fabs(z - old) <= 1e-15 * old) break;
            turns = lr_add(turns, 1LL);
        }
        y[i] = z;
        count[i] = turns;
    }
}
