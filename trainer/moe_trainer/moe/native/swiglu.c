/* The steps between the products of the in-layer experts, each in one pass over memory. One thread, fp32.

   Rows of `inner` numbers lie one after the other; a row of dh holds the gradient of gate, then that of up. */

#include "exponential.h"

/* a = silu(gate) * up */
void swiglu(const float *restrict gate, const float *restrict up, float *restrict a, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) a[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

static float row_backward(const float *restrict gate, const float *restrict up, const float *restrict da,
                          float weight, float *restrict a, float *restrict dgate, float *restrict dup,
                          int64_t inner) {
    float dweight = 0;
#pragma omp simd reduction(+ : dweight)
    for (int64_t i = 0; i < inner; i++) {
        const float open = sigmoid(gate[i]), silu = gate[i] * open;
        const float activation = silu * up[i], weighted = weight * da[i];
        dweight += activation * da[i];
        a[i] = weight * activation;
        dgate[i] = weighted * up[i] * (open + silu * (1.0f - open));
        dup[i] = weighted * silu;
    }
    return dweight;
}

/* Computes for each row the activation and dh, both times its slot's weight, and the gradient of that weight. */
void swiglu_backward(const float *gate, const float *up, const float *da, const float *weights, float *a, float *dh,
                     float *dweights, int64_t rows, int64_t inner) {
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * inner;
        float *dgate = dh + 2 * at;
        dweights[row] =
            row_backward(gate + at, up + at, da + at, weights[row], a + at, dgate, dgate + inner, inner);
    }
}
