/* The softmax of two logits against the C library's exponential. */
#include "check.h"

double lg_softmax_second(double safe, double harm);

int main(void)
{
    uint64_t seed = 4;
    for (size_t i = 0; i < 200000; i++) {
        double const safe = 40.0 * number(&seed), harm = 40.0 * number(&seed);
        double const exact = 1.0 / (1.0 + exp(safe - harm));
        /* Our exponential 3e-16, the library's 2e-16, a sum and a quotient on either side. */
        CHECK(fabs(lg_softmax_second(safe, harm) - exact) <= 1e-15 * exact);
    }
    CHECK(lg_softmax_second(3.0, 3.0) == 0.5);
    CHECK(lg_softmax_second(0.0, 800.0) == 1.0);
    CHECK(lg_softmax_second(800.0, 0.0) == 0.0);
    double const tiny = lg_softmax_second(700.0, 0.0);
    CHECK(fabs(tiny - exp(-700.0)) <= 1e-15 * tiny);
    CHECK(isnan(lg_softmax_second(NAN, 0.0)) && isnan(lg_softmax_second(0.0, NAN)));
    CHECK(isnan(lg_softmax_second(INFINITY, 0.0)) && isnan(lg_softmax_second(0.0, INFINITY)));
    return 0;
}
