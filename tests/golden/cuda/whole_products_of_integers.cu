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

// sum + a * b, rounded once; integers wrap.
__device__ inline float lr_fma(float a, float b, float sum) { return fmaf(a, b, sum); }
__device__ inline double lr_fma(double a, double b, double sum) { return fma(a, b, sum); }
__device__ inline int lr_fma(int a, int b, int sum) { return (int)((unsigned int)sum + (unsigned int)a * (unsigned int)b); }
__device__ inline long long lr_fma(long long a, long long b, long long sum) { return (long long)((unsigned long long)sum + (unsigned long long)a * (unsigned long long)b); }

// sum[r] += the products of `count` elements of row r of a with those of a column of b; `whole`: four neighbours of
// a row lie at a multiple of 16 bytes, `across`: those of a column.
template <class T> __device__ inline void lr_dots(
    T (&sum)[4], const T* const (&a)[4], const T* b, int count, long long a_inner, long long b_inner, bool whole, bool across) {
    int k = 0;
    if (whole) {
        #pragma unroll 4
        for (; k + 4 <= count; k += 4, b += 4 * b_inner) {
            lr_four<T> a_four[4];
            #pragma unroll
            for (int r = 0; r < 4; ++r) a_four[r] = *(const lr_four<T>*)(a[r] + k);
            const T b_four[4] = {b[0], b[b_inner], b[2 * b_inner], b[3 * b_inner]};
            #pragma unroll
            for (int u = 0; u < 4; ++u) {
                #pragma unroll
                for (int r = 0; r < 4; ++r) sum[r] = lr_fma(a_four[r].at[u], b_four[u], sum[r]);
            }
        }
    } else if (across) {
        const T* a_column = a[0];
        #pragma unroll 8
        for (; k < count; ++k, a_column += a_inner, b += b_inner) {
            const lr_four<T> a_four = *(const lr_four<T>*)a_column;
            #pragma unroll
            for (int r = 0; r < 4; ++r) sum[r] = lr_fma(a_four.at[r], *b, sum[r]);
        }
    }
    #pragma unroll 2
    for (; k < count; ++k, b += b_inner) {
        #pragma unroll
        for (int r = 0; r < 4; ++r) sum[r] = lr_fma(a[r][k * a_inner], *b, sum[r]);
    }
}

// a + b; integers wrap.
__device__ inline double lr_plus(double a, double b) { return a + b; }
__device__ inline int lr_plus(int a, int b) { return (int)((unsigned int)a + (unsigned int)b); }
__device__ inline long long lr_plus(long long a, long long b) { return (long long)((unsigned long long)a + (unsigned long long)b); }

template <class T> struct lr_wide { typedef T type; };
template <> struct lr_wide<float> { typedef double type; };

// out[i, j] = sum over k of a[i, k] * b[k, j].  A warp makes four rows of 32 columns at a time, lane l
// column l; sums of 256 products are added up in the wider type.  The steps say how a and b lie: one of each array's is 1.
template <class T> __device__ inline void lr_product(
    T* __restrict__ out, const T* __restrict__ a, const T* __restrict__ b, long long rows, long long inner, long long columns,
    long long a_row, long long a_inner, long long b_inner, long long b_column) {
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32, warps = (long long)gridDim.x * blockDim.x / 32;
    const long long across = (columns + 31) / 32, tiles = (rows + 3) / 4 * across;
    const bool aligned = (unsigned long long)a % alignof(lr_four<T>) == 0;
    #pragma unroll 1
    for (long long tile = warp; tile < tiles; tile += warps) {
        const long long i = tile / across * 4, j = tile % across * 32 + threadIdx.x % 32;
        const T* const b_j = b + min(j, columns - 1) * b_column;
        typename lr_wide<T>::type total[4] = {0, 0, 0, 0};
        #pragma unroll 1
        for (long long first = 0; first < inner; first += 256) {
            const T* const a_rows[4] = {
                a + i * a_row + first * a_inner, a + min(i + 1, rows - 1) * a_row + first * a_inner,
                a + min(i + 2, rows - 1) * a_row + first * a_inner, a + min(i + 3, rows - 1) * a_row + first * a_inner};
            T sum[4] = {0, 0, 0, 0};
            lr_dots(sum, a_rows, b_j + first * b_inner, (int)min(inner - first, 256LL), a_inner, b_inner,
                    aligned && a_inner == 1 && a_row % 4 == 0, aligned && a_row == 1 && a_inner % 4 == 0 && i + 4 <= rows);
            #pragma unroll
            for (int r = 0; r < 4; ++r) total[r] = lr_plus(total[r], sum[r]);
        }
        #pragma unroll
        for (int r = 0; r < 4; ++r) {
            if (i + r < rows && j < columns) out[(i + r) * columns + j] = (T)total[r];
        }
    }
}

// a / b, cut off towards zero; short numbers are divided as such, which is several times faster.
__device__ inline long long lr_quotient(long long a, long long b) {
    return (a | b) >> 32 == 0 ? (long long)((unsigned int)a / (unsigned int)b) : a / b;
}

// a % b, likewise.
__device__ inline long long lr_remainder(long long a, long long b) {
    return (a | b) >> 32 == 0 ? (long long)((unsigned int)a % (unsigned int)b) : a % b;
}

template <class T> __device__ inline void lr_store4(T* to, const lr_four<T>& values) {
    if ((unsigned long long)to % alignof(lr_four<T>) == 0) {
        *(lr_four<T>*)to = values;
    } else {
        for (int u = 0; u < 4; ++u) to[u] = values.at[u];
    }
}

template <class T> __device__ inline void lr_swap(T& a, T& b) { const T kept = a; a = b; b = kept; }

// k0: over ij < 7*n, writes b[7, n] from a[7, n]
__device__ inline void k0(const double* __restrict__ a, double* __restrict__ b, long long n) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long threads = (long long)gridDim.x * blockDim.x;
    const long long fours = 7 * n >= 4 * threads ? 7 * n / 4 : 0;
    for (long long group = thread; group < fours; group += threads) {
        const long long ij_first = 4 * group;
        const lr_four<double> a_four = lr_load4(&a[ij_first]);
        lr_four<double> b_four;
        #pragma unroll
        for (int u = 0; u < 4; ++u) {
            const long long ij = ij_first + u;
            const double a_ij = a_four.at[u];
            const long long i = lr_quotient(ij, n);
            const long long j = lr_remainder(ij, n);
            b_four.at[u] = a_ij - a[(6 - i) * n + j];
        }
        lr_store4(&b[ij_first], b_four);
    }
    for (long long ij = 4 * fours + thread; ij < 7 * n; ij += threads) {
        const long long i = lr_quotient(ij, n);
        const long long j = lr_remainder(ij, n);
        b[ij] = a[ij] - a[(6 - i) * n + j];
    }
}

// products_of_integers: the whole program, by one block or by blocks that run together; of 1 kernel and 2 products
extern "C" __global__ void __launch_bounds__(512) products_of_integers(
    const double* __restrict__ x, const unsigned long long* __restrict__ places, unsigned int* arrived, long long m,
    long long n) {
    extern __shared__ __align__(16) unsigned char lr_near[];
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    double* a = lr_array<double>(places[0], lr_near);
    double* b = lr_array<double>(places[1], lr_near);
    double* const a_home = (double*)places[2];
    lr_copy(a, a_home, 7 * n);
    double* const b_home = (double*)places[3];
    lr_copy(b, b_home, 7 * n);
    lr_barrier(arrived);
    for (long long t = 0; t < m; ++t) {
        lr_barrier(arrived);
        lr_product(b, x, a, 7, 7, n, 7, 1, n, 1);
        lr_swap(a, b);
        lr_barrier(arrived);
        k0(a, b, n);
        lr_swap(a, b);
        lr_barrier(arrived);
        lr_product(b, x, a, 7, 7, n, 1, 7, n, 1);
    }
    lr_barrier(arrived);
    for (long long element = thread; element < 7 * n; element += (long long)gridDim.x * blockDim.x) {
        const double a_element = a[element];
        const double b_element = b[element];
        a_home[element] = a_element;
        b_home[element] = b_element;
    }
}
