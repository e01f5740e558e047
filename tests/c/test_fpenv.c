/* The caller's floating-point environment does not change scores, and is restored after the call. */
#include <fenv.h>

#include "check.h"
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum { WIDTH = 65 };

typedef struct {
    float mu[WIDTH], inverse_sigma[WIDTH], states[2 * WIDTH];
} fixture;

/* Subnormal states and large inverses: with flush-to-zero the score would be zero. */
static fixture make(void)
{
    uint64_t seed = 5;
    fixture f = {0};
    for (size_t i = 0; i < WIDTH; i++) {
        f.states[WIDTH + i] = (float)(1e-39 * number(&seed));
        f.inverse_sigma[i] = (float)(1e38 * (1.5 + number(&seed)));
    }
    return f;
}

static double score(fixture const *const f)
{
    double const zero = 0.0, one = 1.0;
    double result, z;
    lg_lcf const model = {1, WIDTH, f->mu, f->inverse_sigma, &zero, &one, &zero, &one};
    lg_states const s = {NULL, f->states, WIDTH * sizeof(float), 0, 2, 1, WIDTH, LG_F32};
    CHECK(lg_lcf_score(&(lg_lcf_call){&model, s, &result, &z}) == LG_OK);
    return result;
}

static void check_rounding(fixture const *const f, double const plain)
{
    int const roundings[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    for (size_t i = 0; i < COUNT(roundings); i++) {
        CHECK(fesetround(roundings[i]) == 0);
        double const same = score(f);
        CHECK(fegetround() == roundings[i]);
        CHECK(fesetround(FE_TONEAREST) == 0);
        CHECK(same == plain);
    }
}

/* Sets the thread's mode as the start-up code of -ffast-math libraries does. */
static void check_flush_to_zero(fixture const *const f, double const plain)
{
#if defined(__x86_64__)
    unsigned const flush_and_denormals_are_zero = 0x8040u, controls = 0xffc0u;
    unsigned const saved = _mm_getcsr();
    _mm_setcsr(saved | flush_and_denormals_are_zero);
    double const same = score(f);
    unsigned const after = _mm_getcsr();
    _mm_setcsr(saved);
    CHECK((after & controls) == ((saved | flush_and_denormals_are_zero) & controls));
    CHECK(same == plain);
#else
    (void)f;
    (void)plain;
#endif
}

int main(void)
{
    fixture const f = make();
    double const plain = score(&f);
    CHECK(plain > 0.1);
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++)
        if (lg_set_level(LEVEL_NAMES[v]) == LG_OK) {
            check_rounding(&f, plain);
            check_flush_to_zero(&f, plain);
        }
    return 0;
}
