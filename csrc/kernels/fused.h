/* a * b + c with one rounding (FMA), the same bits with or without the instruction. */
#ifndef LG_FUSED_H
#define LG_FUSED_H

#include <stdint.h> /* uint64_t */
#include <string.h> /* memcpy */

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMAF)
#include <math.h> /* fmaf */

static inline float lg_fused(float const a, float const b, float const c)
{
    return fmaf(a, b, c);
}

#else
/* In double the product is exact. The sum is rounded to odd: if it is inexact, its last bit is set to
 * 1, so that the second rounding, to float32, is correct (Boldo and Melquiond, "Emulation of a FMA
 * and correctly rounded sums", 2008). */
static inline float lg_fused(float const a, float const b, float const c)
{
    double const product = (double)a * (double)b;
    double const sum = product + (double)c;
    double const rest = sum - product;
    double const lost = (product - (sum - rest)) + ((double)c - rest);
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    uint64_t const inexact = (uint64_t)((lost < 0.0) | (lost > 0.0)); /* 0 for NaN */
    uint64_t const outward = (uint64_t)((lost > 0.0) == (sum > 0.0));
    bits += (inexact & ~bits & 1u) * (2u * outward - 1u);
    double odd;
    memcpy(&odd, &bits, sizeof odd);
    return (float)odd;
}
#endif
#endif
