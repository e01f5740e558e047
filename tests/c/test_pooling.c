/* Pooling: masked means and last tokens against the textbook, and all float16 values. */
#include "check.h"

enum { LAYERS = 2 };

/* Masks: all tokens, the first or the last half (right or left padding), every third token. */
static unsigned char *make_mask(size_t const tokens, size_t const kind)
{
    unsigned char *const mask = buffer(tokens, 1);
    for (size_t t = 0; t < tokens; t++)
        mask[t] = kind == 0                   ? 1
                  : kind == 1                 ? t < (tokens + 1) / 2
                  : kind == 2                 ? t >= tokens / 2
                  : t % 3 == (tokens - 1) % 3 ? 255
                                              : 0;
    return mask;
}

static void check_pool(size_t const tokens, size_t const width, size_t const kind,
                       uint64_t *const seed)
{
    float *const states = floats(LAYERS * tokens * width, seed);
    unsigned char *const mask = make_mask(tokens, kind);
    double *const workspace = buffer(width, sizeof *workspace);
    float *const pooled = buffer(LAYERS * width, sizeof *pooled);
    float *const first = buffer(LAYERS * width, sizeof *first);
    ptrdiff_t const row = (ptrdiff_t)(width * sizeof(float));
    lg_states const s = {NULL, states, (ptrdiff_t)tokens * row, row, LAYERS, tokens, width, LG_F32};
    int seen = 0;
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        lg_pool_call const call = {s, kind ? mask : NULL, pooled, workspace};
        size_t last = 0;
        CHECK(lg_pool_mean(&call) == LG_OK);
        for (size_t l = 0; l < LAYERS; l++)
            for (size_t i = 0; i < width; i++) {
                double sum = 0.0, counted = 0.0;
                for (size_t t = 0; t < tokens; t++)
                    if (mask[t]) {
                        sum += states[(l * tokens + t) * width + i];
                        counted += 1.0;
                        last = t;
                    }
                /* 256 additions of numbers below 1, each within 2^-24 of the sum. */
                CHECK(fabs(pooled[l * width + i] - sum / counted) <= 256.0 / 16777216.0);
            }
        if (!seen++)
            memcpy(first, pooled, LAYERS * width * sizeof *first);
        CHECK(memcmp(first, pooled, LAYERS * width * sizeof *first) == 0);
        CHECK(lg_pool_last(&call) == LG_OK);
        for (size_t l = 0; l < LAYERS; l++)
            CHECK(memcmp(pooled + l * width, states + (l * tokens + last) * width,
                         width * sizeof *pooled)
                  == 0);
    }
    CHECK(seen > 0);
    free(states);
    free(mask);
    free(workspace);
    free(pooled);
    free(first);
}

/* Masked tokens may hold any value; unmasked tokens propagate NaN and infinity. */
static void check_not_finite(void)
{
    float const states[] = {1.0f, NAN, INFINITY, 2.0f};
    unsigned char mask[] = {1, 0, 0, 1};
    float pooled;
    double workspace;
    lg_states const s = {NULL, states, 0, sizeof(float), 1, 4, 1, LG_F32};
    CHECK(lg_pool_mean(&(lg_pool_call){s, mask, &pooled, &workspace}) == LG_OK && pooled == 1.5f);
    mask[2] = 1;
    CHECK(lg_pool_mean(&(lg_pool_call){s, mask, &pooled, &workspace}) == LG_OK && isinf(pooled));
    mask[1] = 1;
    CHECK(lg_pool_mean(&(lg_pool_call){s, mask, &pooled, &workspace}) == LG_OK && isnan(pooled));
}

/* All 65,536 float16 and bfloat16 values widen exactly, read from either side of a block. */
static void check_every_half(int const dtype)
{
    enum { ALL = 65536 };
    uint16_t *const halves = buffer(ALL, sizeof *halves);
    float *const pooled = buffer(ALL, sizeof *pooled);
    for (size_t i = 0; i < ALL; i++)
        halves[i] = (uint16_t)i;
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        for (size_t first = 0; first < 2; first++) {
            size_t const width = ALL - 3 * first;
            lg_states const s = {NULL, halves + first, 0, 0, 1, 1, width, dtype};
            CHECK(lg_pool_last(&(lg_pool_call){s, NULL, pooled, NULL}) == LG_OK);
            for (size_t i = 0; i < width; i++) {
                uint16_t const half = halves[first + i];
                float const expected = dtype == LG_BF16 ? bfloat_value(half) : half_value(half);
                CHECK(isnan(expected) ? isnan(pooled[i])
                                      : memcmp(&pooled[i], &expected, sizeof expected) == 0);
            }
        }
    }
    free(halves);
    free(pooled);
}

int main(void)
{
    uint64_t seed = 2;
    size_t const tokens[] = {1, 2, 5, 255, 256, 257, 600};
    for (size_t w = 0; w < COUNT(WIDTHS); w += 3)
        for (size_t t = 0; t < COUNT(tokens); t++)
            for (size_t kind = 0; kind < 4; kind++)
                check_pool(tokens[t], WIDTHS[w], kind, &seed);
    check_not_finite();
    check_every_half(LG_F16);
    check_every_half(LG_BF16);
    return 0;
}
