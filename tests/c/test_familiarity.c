/* Familiarity: the distance to the nearest of two centres, alone in shadow, in every dtype.
 *     test_familiarity CORPUS */
#include "check.h"

enum { STATES = 3, WIDTH = 3, TOKENS = 4 };

static double workspace[256];

/* As corpus/make.py writes it. */
static double const scale[WIDTH] = {0.5, 1.0, 2.0};
static double const centres[2][WIDTH] = {{0.0, 0.0, 0.0}, {8.0, 8.0, 8.0}};
static double const direction[WIDTH] = {0.0, 0.75, 0.0};

static double distance(double const state[WIDTH])
{
    double least = INFINITY;
    for (size_t k = 0; k < 2; k++) {
        double square = 0.0, along = 0.0;
        for (size_t i = 0; i < WIDTH; i++) {
            double const z = (state[i] - centres[k][i]) / scale[i];
            square += z * z;
            along += direction[i] * z;
        }
        least = fmin(least, square - along * along);
    }
    return sqrt(least);
}

static lg_reading reading_of(lg_guard const *const guard, void const *const states,
                             size_t const size, int const dtype)
{
    lg_reading reading = {0};
    lg_score_call const call = {.struct_size = sizeof call,
                                .states = {.base = states,
                                           .layer_stride = (ptrdiff_t)(TOKENS * WIDTH * size),
                                           .row_stride = (ptrdiff_t)(WIDTH * size),
                                           .layer_count = STATES,
                                           .rows = TOKENS,
                                           .width = WIDTH,
                                           .dtype = dtype},
                                .workspace = workspace,
                                .workspace_size = sizeof workspace,
                                .readings = &reading,
                                .reading_size = sizeof reading};
    CHECK(lg_score(guard, &call) == LG_OK);
    return reading;
}

int main(int const count, char **const arguments)
{
    char path[1024];
    lg_guard *guard;
    CHECK(count == 2);
    CHECK(snprintf(path, sizeof path, "%s/ok-familiarity.npz", arguments[1]) < (int)sizeof path);
    CHECK(lg_open(path, NULL, &guard) == LG_OK);
    lg_detector_info info = {.struct_size = sizeof info};
    CHECK(lg_detector_describe(guard, 0, &info) == LG_OK);
    CHECK(info.shadow && info.pooling == LG_MEAN && strcmp(info.name, "familiarity") == 0);
    uint64_t seed = 1;
    for (int trial = 0; trial < 50; trial++) {
        float *const states = floats(STATES * TOKENS * WIDTH, &seed);
        double mean[WIDTH] = {0.0};
        for (size_t i = 0; i < TOKENS * WIDTH; i++) {
            states[TOKENS * WIDTH + i] = roundf(states[i] * 16.0F) + (trial % 2 ? 8.0F : 0.0F);
            mean[i % WIDTH] += (double)states[TOKENS * WIDTH + i] / TOKENS;
        }
        lg_reading const found = reading_of(guard, states, sizeof *states, LG_F32);
        CHECK(fabs(found.score - distance(mean)) <= 1e-6 * (1.0 + found.score));
        CHECK(found.layer == 1 && found.evidence == found.score);
        CHECK(found.flagged == !(found.score <= 2.5));
        uint16_t *const halves = bfloats(STATES * TOKENS * WIDTH, states);
        CHECK(reading_of(guard, halves, sizeof *halves, LG_BF16).score == found.score);
        states[TOKENS * WIDTH] = trial % 2 ? NAN : INFINITY;
        CHECK(reading_of(guard, states, sizeof *states, LG_F32).status == LG_INVALID);
        free(halves);
        free(states);
    }
    lg_reading reading = {.status = LG_READ, .score = 9.0};
    lg_decide_call const call
        = {.struct_size = sizeof call, .readings = &reading, .reading_size = sizeof reading};
    lg_verdict verdict = {.struct_size = sizeof verdict};
    CHECK(lg_decide(guard, &call, &verdict) == LG_OK);
    CHECK(reading.flagged && !verdict.flagged && !verdict.invalid);
    lg_close(guard);
    return 0;
}
