#include <stdint.h>
#include <string.h>

/* e^x for x from -86 to 86, to within one or two ulps (the polynomial of Cephes' expf), without branches or tables, so that
   compilers can vectorize it. Closer to the limits of single precision, intermediates are subnormal, which is slow. */
static inline float exponential(float x) {
    const float shifted = x * 1.44269504f + 12582912.0f; /* its lowest bits hold the nearest integer */
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

/* 1 / (1 + e^-x). Beyond -60 it is negligible compared with any number in a network; beyond 60 it is 1. */
static inline float sigmoid(float x) {
    x = x > -60.0f ? x : -60.0f;
    x = x < 60.0f ? x : 60.0f;
    return 1.0f / (1.0f + exponential(-x));
}
