// Four neighbours in an array, which move 16 bytes at a time where they lie at a multiple of that.
template <class T> struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) lr_four { T at[4]; };

template <class T> __device__ inline lr_four<T> lr_load4(const T* from) {
    if ((unsigned long long)from % alignof(lr_four<T>) == 0) return *(const lr_four<T>*)from;
    return {from[0], from[1], from[2], from[3]};
}

template <class T> __device__ inline void lr_store4(T* to, const lr_four<T>& values) {
    if ((unsigned long long)to % alignof(lr_four<T>) == 0) {
        *(lr_four<T>*)to = values;
    } else {
        for (int u = 0; u < 4; ++u) to[u] = values.at[u];
    }
}

// k0: over i < n, writes y[n] from u[n], x[m]
extern "C" __global__ void __launch_bounds__(128) k0(
    const long long* __restrict__ u_2, const float* __restrict__ x, float* __restrict__ y, bool* fault, long long m,
    long long n) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    const long long fours = n >= 4 * threads ? n / 4 : 0;
    for (long long group = thread; group < fours; group += threads) {
        const long long i_first = 4 * group;
        const lr_four<long long> u_four = lr_load4(&u_2[i_first]);
        lr_four<float> y_four;
        #pragma unroll
        for (int u = 0; u < 4; ++u) {
            const long long u_i = u_four.at[u];
            const long long at = u_i;
            const bool bad = at < 0 || at >= m;
            if (bad) *fault = true;
            y_four.at[u] = x[bad ? 0LL : at];
        }
        lr_store4(&y[i_first], y_four);
    }
    for (long long i = 4 * fours + thread; i < n; i += threads) {
        const long long at = u_2[i];
        const bool bad = at < 0 || at >= m;
        if (bad) *fault = true;
        y[i] = x[bad ? 0LL : at];
    }
}
