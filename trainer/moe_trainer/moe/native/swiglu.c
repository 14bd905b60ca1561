/* What stands between the products of the in-layer experts, each in one pass over memory. One thread, fp32.

   Rows of `inner` numbers lie one after the other; those of dh have their gradients of gate and up beside each other. */

#include <stdint.h>
#include <string.h>

/* e^x to an ulp or two (the polynomial of Cephes' expf), without a branch or a table, so that compilers vectorize it.
   Beyond 60, 1 / (1 + e^x) is nothing beside any number of a network; and no intermediate is subnormal, which is slow. */
static inline float exponential(float x) {
    x = x > -60.0f ? x : -60.0f;
    x = x < 60.0f ? x : 60.0f;
    const float shifted = x * 1.44269504f + 12582912.0f; /* its lowest bits are the nearest whole number */
    const float whole = shifted - 12582912.0f;
    const float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* a = silu(gate) * up */
void swiglu(const float *restrict gate, const float *restrict up, float *restrict a, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) a[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
}

static float row_backward(const float *restrict gate, const float *restrict up, const float *restrict da,
                          float weight, float *restrict a, float *restrict dgate, float *restrict dup,
                          int64_t inner) {
    float dweight = 0;
#pragma omp simd reduction(+ : dweight)
    for (int64_t i = 0; i < inner; i++) {
        const float sigmoid = 1.0f / (1.0f + exponential(-gate[i]));
        const float silu = gate[i] * sigmoid, activation = silu * up[i], weighted = weight * da[i];
        dweight += activation * da[i];
        a[i] = weight * activation;
        dgate[i] = weighted * up[i] * (sigmoid + silu * (1.0f - sigmoid));
        dup[i] = weighted * silu;
    }
    return dweight;
}

/* Of each row: the activation and dh, both times its slot's weight, and the gradient of that weight. */
void swiglu_backward(const float *gate, const float *up, const float *da, const float *weights, float *a, float *dh,
                     float *dweights, int64_t rows, int64_t inner) {
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * inner;
        float *dgate = dh + 2 * at;
        dweights[row] =
            row_backward(gate + at, up + at, da + at, weights[row], a + at, dgate, dgate + inner, inner);
    }
}
