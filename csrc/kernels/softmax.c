/* The softmax of two logits with our own exponential: the last bit of the C library's depends on the
 * processor and the version. Compiled once, for the lowest level.
 */
#include <stdint.h> /* uint64_t */
#include <string.h> /* memcpy */

#include "internal.h"

/* exp(x) for x <= 0, relative error below 3e-16. Cody and Waite: x = k log 2 + r with |r| <= 0.35,
 * k log 2 subtracted in two parts so that r keeps all its bits, then the Taylor series of exp(r),
 * whose term 14 is below half a unit in the last place, times 2^k. Zero below -708, before 2^k
 * would be subnormal. */
static double exp_of_negative(double const x)
{
    static double const log2_high = 0x1.62e42feep-1; /* trailing zeros: k times it is exact */
    static double const log2_low = 0x1.a39ef35793c76p-33;
    static double const reciprocal[] = {
        1.0 / 6227020800.0,
        1.0 / 479001600.0,
        1.0 / 39916800.0,
        1.0 / 3628800.0,
        1.0 / 362880.0,
        1.0 / 40320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        1.0 / 2.0,
        1.0,
        1.0,
    };
    if (x != x)
        return x;
    if (x < -708.0)
        return 0.0;
    int const k = (int)(x * 0x1.71547652b82fep0 - 0.5);
    double const r = (x - k * log2_high) - k * log2_low;
    double series = 0.0;
    for (size_t i = 0; i < sizeof reciprocal / sizeof *reciprocal; i++)
        series = series * r + reciprocal[i];
    uint64_t const bits = (uint64_t)(k + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return series * power;
}

double lg_softmax_second(double const safe, double const harm)
{
    double const largest = safe > harm ? safe : harm;
    double const e_safe = exp_of_negative(safe - largest);
    double const e_harm = exp_of_negative(harm - largest);
    return e_harm / (e_safe + e_harm);
}
