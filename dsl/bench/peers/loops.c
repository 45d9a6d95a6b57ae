/* The limit: the timed work in C.  Built twice: as `exact` (-O3 -march=native -ffp-contract=off) for the loops that carry
   state, and as `fast` (-O3 -march=native -ffast-math -fopenmp) for the full batches.  Sizes are long, results go out by
   pointer, and nothing is allocated. */
#include <math.h>

#define ONE_THREAD 20000  /* rows up to which waking another thread takes longer than the work */
#define BLOCK 8192

/* One-sample steps of a line's least squares, the cost's mean over each epoch, and a finite check of cost and state in
   every step; the step that fails it is not taken.  Returns the last epoch's mean cost. */
double tutorial(const double *x, const double *y, long rows, long epochs, double rate, double *state)
{
    double w = state[0], b = state[1], mean = 0;
    for (long epoch = 0; epoch < epochs; epoch++) {
        double sum = 0;
        for (long row = 0; row < rows; row++) {
            double residual = x[row] * w + b - y[row];
            double cost = residual * residual, twice = 2 * residual;
            double next_w = w - rate * (twice * x[row]), next_b = b - rate * twice;
            if (!isfinite(cost) || !isfinite(next_w) || !isfinite(next_b)) {
                state[0] = w, state[1] = b;
                return cost;
            }
            w = next_w, b = next_b, sum += cost;
        }
        mean = sum / rows;
    }
    state[0] = w, state[1] = b;
    return mean;
}

double logistic_map(double r, double x, long steps)
{
    for (long t = 0; t < steps; t++)
        x = r * x * (1 - x);
    return x;
}

/* Reverse mode: the states are kept on the way there, the cotangent runs the way back. */
double logistic_map_gradient(double r, double x, long steps, double *states, double *derivative)
{
    for (long t = 0; t < steps; t++) {
        states[t] = x;
        x = r * x * (1 - x);
    }
    double cotangent = 1, sum = 0;
    for (long t = steps - 1; t >= 0; t--) {
        double s = states[t];
        sum += cotangent * (s * (1 - s));
        cotangent *= r * (1 - s) - r * s;
    }
    *derivative = sum;
    return x;
}

/* Cost and both gradients of a line's least squares, in one pass.  Sums are float32 within a block of rows and double from
   block to block: in float32 alone the cost of 10^8 rows is 0.3 percent off. */
void linreg(const float *restrict x, const float *restrict y, long rows, float w, float b, float *out)
{
    double cost = 0, slope = 0, intercept = 0;
#pragma omp parallel for if (rows > ONE_THREAD) reduction(+ : cost, slope, intercept)
    for (long start = 0; start < rows; start += BLOCK) {
        long stop = start + BLOCK < rows ? start + BLOCK : rows;
        float c = 0, s = 0, d = 0;
#pragma omp simd reduction(+ : c, s, d)
        for (long i = start; i < stop; i++) {
            float residual = x[i] * w + b - y[i];
            c += residual * residual, s += residual * x[i], d += residual;
        }
        cost += c, slope += s, intercept += d;
    }
    out[0] = cost / rows, out[1] = 2 * slope / rows, out[2] = 2 * intercept / rows;
}

/* Cross entropy of a sigmoid from its logit: max(z, 0) - y z + log(1 + exp(-|z|)). */
void logistic(const float *restrict x, const float *restrict y, long rows, float w, float b, float *out)
{
    double cost = 0, slope = 0, intercept = 0;
#pragma omp parallel for if (rows > ONE_THREAD) reduction(+ : cost, slope, intercept)
    for (long start = 0; start < rows; start += BLOCK) {
        long stop = start + BLOCK < rows ? start + BLOCK : rows;
        float c = 0, s = 0, d = 0;
#pragma omp simd reduction(+ : c, s, d)
        for (long i = start; i < stop; i++) {
            float z = x[i] * w + b, small = expf(-fabsf(z));
            float probability = (z > 0 ? 1.0f : small) / (1 + small), residual = probability - y[i];
            c += fmaxf(z, 0) - y[i] * z + logf(1 + small);
            s += residual * x[i], d += residual;
        }
        cost += c, slope += s, intercept += d;
    }
    out[0] = cost / rows, out[1] = slope / rows, out[2] = intercept / rows;
}

/* log(1 + v^2) stands for log1p: its vector form is the faster one. */
void chain(const float *restrict x, float *restrict out, long count)
{
#pragma omp parallel for simd if (parallel : count > ONE_THREAD)
    for (long i = 0; i < count; i++) {
        float square = x[i] * x[i];
        out[i] = tanhf(x[i]) * expf(-square) + logf(1 + square);
    }
}

void axpb(float a, const float *restrict x, float *restrict out, long count)
{
#pragma omp parallel for simd if (parallel : count > ONE_THREAD)
    for (long i = 0; i < count; i++)
        out[i] = a * x[i] + x[i] * x[i];
}
