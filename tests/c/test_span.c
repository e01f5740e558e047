/* The probe: windows against the textbook in double, at every level, in parts, for every dtype. */
#include "check.h"

enum { STATES = 4, CHOSEN = 2, TOKENS = 19, LONGEST = TOKENS + 2 };

static int const layers[CHOSEN] = {1, 3};
static double const BIAS = -0.25;

static lg_states states_of(void const *const values, size_t const tokens, size_t const width,
                           int const dtype)
{
    size_t const size = dtype == LG_F32 ? 4 : 2;
    ptrdiff_t const row = (ptrdiff_t)(width * size);
    return (lg_states){NULL, values, TOKENS * row, row, STATES, tokens, width, dtype};
}

/* states: (STATES, TOKENS, width) of float32. */
static double textbook(float const *const states, float const *const weights, size_t const width,
                       size_t const window, unsigned char const *const mask)
{
    double logits[TOKENS], best = -INFINITY;
    size_t count = 0;
    for (size_t t = 0; t < TOKENS; t++) {
        if (!mask[t])
            continue;
        logits[count] = BIAS;
        for (size_t c = 0; c < CHOSEN; c++)
            for (size_t i = 0; i < width; i++)
                logits[count] += (double)states[((size_t)layers[c] * TOKENS + t) * width + i]
                                 * weights[c * width + i];
        count++;
    }
    size_t const size = count < window ? count : window;
    for (size_t first = 0; first + size <= count; first++) {
        double sum = 0.0;
        for (size_t i = 0; i < size; i++)
            sum += logits[first + i];
        best = sum / (double)size > best ? sum / (double)size : best;
    }
    return best;
}

static void check_width(size_t const width, size_t const window, uint64_t *const seed)
{
    float *const states = floats(STATES * TOKENS * width, seed);
    float *const weights = floats(CHOSEN * width, seed);
    lg_probe const model = {STATES, width, CHOSEN, layers, weights, BIAS, window};
    CHECK(lg_probe_check(&model) == LG_OK);
    size_t const bytes = lg_windows_floats(&model) * sizeof(float);
    CHECK(bytes == (LG_WINDOW_LOGITS + window) * sizeof(float));
    unsigned char mask[TOKENS];
    for (size_t t = 0; t < TOKENS; t++)
        mask[t] = t % 5 != 4;
    float *const whole = buffer(1, bytes), *const first = buffer(1, bytes);
    int seen = 0;
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        for (size_t step = TOKENS; step; step /= 3) {
            memset(whole, 0, bytes);
            for (size_t t = 0; t < TOKENS; t += step) {
                size_t const rows = TOKENS - t < step ? TOKENS - t : step;
                lg_windows_call call
                    = {&model, states_of(states + t * width, rows, width, LG_F32), mask + t, whole};
                CHECK(lg_windows(&call) == LG_OK);
            }
            if (!seen++)
                memcpy(first, whole, bytes);
            CHECK(memcmp(first, whole, bytes) == 0);
        }
    }
    CHECK(seen > 0);
    double const expected = textbook(states, weights, width, window, mask);
    CHECK(fabs((double)first[LG_WINDOW_BEST] - expected) <= 1e-4);
    CHECK(first[LG_WINDOW_TOKENS] == 16.0f); /* masked: tokens 4, 9 and 14 */
    free(states);
    free(weights);
    free(whole);
    free(first);
}

/* States of half precision give the result of their float32 values. */
static void check_halves(size_t const width, uint64_t *const seed)
{
    float *const wide = floats(STATES * TOKENS * width, seed);
    float *const weights = floats(CHOSEN * width, seed);
    uint16_t *const halves = bfloats(STATES * TOKENS * width, wide);
    for (size_t i = 0; i < STATES * TOKENS * width; i++)
        wide[i] = bfloat_value(halves[i]);
    lg_probe const model = {STATES, width, CHOSEN, layers, weights, BIAS, 5};
    float expected[LG_WINDOW_LOGITS + 5] = {0.0f}, found[LG_WINDOW_LOGITS + 5] = {0.0f};
    lg_windows_call call = {&model, states_of(wide, TOKENS, width, LG_F32), NULL, expected};
    CHECK(lg_windows(&call) == LG_OK);
    call.states = states_of(halves, TOKENS, width, LG_BF16);
    call.windows = found;
    CHECK(lg_windows(&call) == LG_OK);
    CHECK(memcmp(expected, found, sizeof found) == 0);
    free(wide);
    free(weights);
    free(halves);
}

static void check_arguments(void)
{
    float const weights[CHOSEN * 3] = {0.0f}, states[STATES * TOKENS * 3] = {0.0f};
    float windows[LG_WINDOW_LOGITS + 2] = {0.0f};
    lg_probe const good = {STATES, 3, CHOSEN, layers, weights, 0.0, 2};
    lg_probe model = good;
    CHECK(lg_probe_check(NULL) == LG_ERR_NULL && lg_windows_floats(NULL) == 0);
    model.window = 0;
    CHECK(lg_probe_check(&model) == LG_ERR_SHAPE);
    model.window = LG_LONGEST_WINDOW + 1;
    CHECK(lg_probe_check(&model) == LG_ERR_SHAPE);
    model = good;
    model.states_needed = 3;
    CHECK(lg_probe_check(&model) == LG_ERR_INDEX);
    model = good;
    model.weights = NULL;
    CHECK(lg_probe_check(&model) == LG_ERR_NULL);
    lg_windows_call call = {&good, states_of(states, TOKENS, 3, LG_F32), NULL, windows};
    CHECK(lg_windows(NULL) == LG_ERR_NULL);
    call.states.width = 2;
    CHECK(lg_windows(&call) == LG_ERR_SHAPE);
    call.states.width = 3;
    call.states.layer_count = 3;
    CHECK(lg_windows(&call) == LG_ERR_SHAPE);
    call.states.layer_count = STATES;
    call.windows = NULL;
    CHECK(lg_windows(&call) == LG_ERR_NULL);
}

int main(void)
{
    uint64_t seed = 1;
    for (size_t w = 0; w < COUNT(WIDTHS); w++) {
        for (size_t window = 1; window <= LONGEST; window += 5)
            check_width(WIDTHS[w], window, &seed);
        check_halves(WIDTHS[w], &seed);
    }
    check_arguments();
    return 0;
}
