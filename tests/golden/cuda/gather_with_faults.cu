// k0: over i < n, writes y[n] from u[n], x[m]
extern "C" __global__ void __launch_bounds__(128) k0(
    const long long* __restrict__ u, const float* __restrict__ x, float* __restrict__ y, bool* fault, long long m,
    long long n) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    for (long long i = thread; i < n; i += threads) {
        const long long at = u[i];
        const bool bad = at < 0 || at >= m;
        if (bad) *fault = true;
        y[i] = x[bad ? 0LL : at];
    }
}
