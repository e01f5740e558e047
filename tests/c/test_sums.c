/* Running sums: the textbook mean, and the same bits for any split of a text's tokens. */
#include "check.h"

enum { LAYERS = 2 };

static lg_states slice(lg_states all, size_t const first, size_t const count)
{
    all.base = (char const *)all.base + (ptrdiff_t)first * all.row_stride;
    all.rows = count;
    return all;
}

/* Adds the tokens in pieces of `piece` and leaves their mean in `mean`. */
static void add_in_pieces(lg_states const all, size_t const piece, double *const sums,
                          float *const mean)
{
    memset(sums, 0, LAYERS * all.width * sizeof *sums);
    for (size_t first = 0; first < all.rows; first += piece) {
        size_t const count = all.rows - first < piece ? all.rows - first : piece;
        lg_sums_call const call = {slice(all, first, count), sums, first + count, mean};
        CHECK(lg_sums_add(&call) == LG_OK);
    }
}

static void check_sums(size_t const tokens, size_t const width, uint64_t *const seed)
{
    float *const values = floats(LAYERS * tokens * width, seed);
    double *const sums = buffer(LAYERS * width, sizeof *sums);
    float *const mean = buffer(LAYERS * width, sizeof *mean);
    float *const first = buffer(LAYERS * width, sizeof *first);
    ptrdiff_t const row = (ptrdiff_t)(width * sizeof(float));
    lg_states const all
        = {NULL, values, (ptrdiff_t)tokens * row, row, LAYERS, tokens, width, LG_F32};
    int seen = 0;
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        for (size_t piece = 1; piece <= tokens; piece = piece * 3 + 1) {
            add_in_pieces(all, piece, sums, mean);
            if (!seen++)
                memcpy(first, mean, LAYERS * width * sizeof *first);
            CHECK(memcmp(first, mean, LAYERS * width * sizeof *first) == 0);
        }
        for (size_t l = 0; l < LAYERS; l++)
            for (size_t i = 0; i < width; i++) {
                double sum = 0.0;
                for (size_t t = 0; t < tokens; t++)
                    sum += values[(l * tokens + t) * width + i];
                CHECK(mean[l * width + i] == (float)(sum / (double)tokens));
            }
    }
    CHECK(seen > 0);
    free(values);
    free(sums);
    free(mean);
    free(first);
}

/* Half-precision values are added exactly, including infinities and NaN. */
static void check_halves(int const dtype)
{
    enum { WIDTH = 300, TOKENS = 3 };
    uint16_t halves[TOKENS * WIDTH];
    double sums[WIDTH] = {0.0};
    float mean[WIDTH];
    for (size_t i = 0; i < TOKENS * WIDTH; i++)
        halves[i] = (uint16_t)(i * 37);
    lg_states const all = {NULL, halves, 0, WIDTH * sizeof *halves, 1, TOKENS, WIDTH, dtype};
    CHECK(lg_sums_add(&(lg_sums_call){all, sums, TOKENS, mean}) == LG_OK);
    for (size_t i = 0; i < WIDTH; i++) {
        double sum = 0.0;
        for (size_t t = 0; t < TOKENS; t++)
            sum += (double)(dtype == LG_BF16 ? bfloat_value(halves[t * WIDTH + i])
                                             : half_value(halves[t * WIDTH + i]));
        CHECK(isnan(sum) ? isnan(mean[i]) : mean[i] == (float)(sum / TOKENS));
    }
}

/* Two tokens after two earlier ones, by hand: (1, 2) and (3, 6) are added to (4, 0) in the first
 * layer, (0, -8) and (2, 8) to (0, 2) in the second; the means are of four tokens. */
static void check_values(void)
{
    float const states[LAYERS][2][2] = {{{1, 2}, {3, 6}}, {{0, -8}, {2, 8}}};
    double sums[] = {4, 0, 0, 2, 7};
    float mean[] = {9, 9, 9, 9, 9};
    lg_states const s = {NULL, states, sizeof *states, sizeof **states, LAYERS, 2, 2, LG_F32};
    CHECK(lg_sums_add(&(lg_sums_call){s, sums, 4, mean}) == LG_OK);
    CHECK(sums[0] == 8.0 && sums[1] == 8.0 && sums[2] == 2.0 && sums[3] == 2.0 && sums[4] == 7.0);
    CHECK(mean[0] == 2.0f && mean[1] == 2.0f && mean[2] == 0.5f && mean[3] == 0.5f);
    CHECK(mean[4] == 9.0f);
}

static void check_refusals(void)
{
    float const value = 1.0f;
    float mean = -1.0f;
    double sums = 2.0;
    lg_states const one = {NULL, &value, 0, sizeof value, 1, 1, 1, LG_F32};
    lg_states strange = one;
    strange.dtype = 9;
    CHECK(lg_sums_add(NULL) == LG_ERR_NULL);
    CHECK(lg_sums_add(&(lg_sums_call){one, NULL, 1, &mean}) == LG_ERR_NULL);
    CHECK(lg_sums_add(&(lg_sums_call){one, &sums, 0, &mean}) == LG_ERR_SHAPE);
    CHECK(lg_sums_add(&(lg_sums_call){strange, &sums, 1, &mean}) == LG_ERR_DTYPE);
    CHECK(sums == 2.0 && mean == -1.0f);
    CHECK(lg_sums_add(&(lg_sums_call){one, &sums, 0, NULL}) == LG_OK && sums == 3.0);
    CHECK(lg_sums_add(&(lg_sums_call){slice(one, 0, 0), &sums, 2, &mean}) == LG_OK);
    CHECK(sums == 3.0 && mean == 1.5f);
}

int main(void)
{
    uint64_t seed = 3;
    size_t const tokens[] = {1, 2, 5, 300};
    for (size_t w = 0; w < COUNT(WIDTHS); w += 3)
        for (size_t t = 0; t < COUNT(tokens); t++)
            check_sums(tokens[t], WIDTHS[w], &seed);
    check_halves(LG_F16);
    check_halves(LG_BF16);
    check_values();
    check_refusals();
    return 0;
}
