/* WeightWatch: the least and largest cosine of tokens to watched directions, by role, and their
 * distance from the calibrated ranges.
 *
 * Source: WeightWatch, arXiv 2508.00161; the formulas are in layerguard_api.h.
 * Precision: products and squares are added by FMA, one rounding each, in float32 lanes; length,
 * cosine and excess are double. A cosine is rounded to float32 once.
 * Several tokens are processed together, so that each direction is read once for all of them. The
 * order in which a token's products are added does not depend on their number.
 */
#include "fused.h"
#include "lanes.h"
#include "widen.h"

/* Sums kept in registers: TOKENS * DIRECTIONS vectors of STEP lanes. */
#ifdef __AVX512F__
enum { TOKENS = LG_TOKENS_AT_ONCE, STEP = 16 };
#else
enum { TOKENS = 3, STEP = 8 };
#endif
enum { DIRECTIONS = 4, PAIRS = TOKENS * DIRECTIONS };

/* Directions and elements processed at a time: the tokens' elements stay in L1, the lanes in L2. */
enum { CHUNK = 48, ELEMENTS = 1024 };

/* Squared lengths outside of these bounds are too inexact to divide by. */
static float const SHORTEST = 0x1p-100f, LONGEST = 0x1p127f;

/* lanes of pair (t, d) += x_t * w_d, element i to lane i % LG_LANES; STEP lanes per pass. */
LG_NOINLINE static void add_many(size_t const count, float const *const x[], float const *const w[],
                                 float lanes[][LG_LANES])
{
    for (size_t first = 0; first < LG_LANES; first += STEP) {
        float sums[TOKENS][DIRECTIONS][STEP];
        LG_UNROLL for (size_t t = 0; t < TOKENS; t++)
            LG_UNROLL for (size_t d = 0; d < DIRECTIONS; d++) for (size_t k = 0; k < STEP; k++)
                sums[t][d][k] = lanes[t * DIRECTIONS + d][first + k];
        for (size_t i = first; i < count; i += LG_LANES)
            LG_UNROLL for (size_t t = 0; t < TOKENS; t++)
                LG_UNROLL for (size_t d = 0; d < DIRECTIONS; d++) for (size_t k = 0; k < STEP; k++)
                    sums[t][d][k] = lg_fused(x[t][i + k], w[d][i + k], sums[t][d][k]);
        LG_UNROLL for (size_t t = 0; t < TOKENS; t++)
            LG_UNROLL for (size_t d = 0; d < DIRECTIONS; d++) for (size_t k = 0; k < STEP; k++)
                lanes[t * DIRECTIONS + d][first + k] = sums[t][d][k];
    }
}

/* One token: directions of half precision are widened while they are read, without a buffer. */
static inline void add_one(int const dtype, size_t const count, float const *const x,
                           void const *const rows[], float lanes[][LG_LANES])
{
    float sums[DIRECTIONS][LG_LANES];
    LG_UNROLL for (size_t d = 0; d < DIRECTIONS; d++) for (size_t k = 0; k < LG_LANES; k++)
        sums[d][k] = lanes[d][k];
    for (size_t i = 0; i < count; i += LG_LANES)
        LG_UNROLL for (size_t d = 0; d < DIRECTIONS; d++)
        {
            float wide[LG_LANES];
            if (dtype == LG_F32)
                memcpy(wide, (float const *)rows[d] + i, sizeof wide);
            else
                lg_widen(dtype, rows[d], i, LG_LANES, wide);
            for (size_t k = 0; k < LG_LANES; k++)
                sums[d][k] = lg_fused(x[i + k], wide[k], sums[d][k]);
        }
    LG_UNROLL for (size_t d = 0; d < DIRECTIONS; d++) for (size_t k = 0; k < LG_LANES; k++)
        lanes[d][k] = sums[d][k];
}

LG_NOINLINE static void add_one_f32(size_t const count, float const *const x,
                                    void const *const rows[], float lanes[][LG_LANES])
{
    add_one(LG_F32, count, x, rows, lanes);
}

LG_NOINLINE static void add_one_f16(size_t const count, float const *const x,
                                    void const *const rows[], float lanes[][LG_LANES])
{
    add_one(LG_F16, count, x, rows, lanes);
}

LG_NOINLINE static void add_one_bf16(size_t const count, float const *const x,
                                     void const *const rows[], float lanes[][LG_LANES])
{
    add_one(LG_BF16, count, x, rows, lanes);
}

/* The same for elements after the last full set of lanes. */
static void add_rest(size_t const tokens, size_t const first, size_t const count,
                     float const *const x[], float const *const w[], float lanes[][LG_LANES])
{
    for (size_t t = 0; t < tokens; t++)
        for (size_t d = 0; d < DIRECTIONS; d++)
            for (size_t i = first; i < count; i++) {
                float *const lane = &lanes[t * DIRECTIONS + d][i - first];
                *lane = lg_fused(x[t][i], w[d][i], *lane);
            }
}

/* Several tokens' rows of one state as float32, their inverse lengths and their roles. */
typedef struct tile {
    float const *x[TOKENS];
    double inverse[TOKENS];
    size_t roles[TOKENS];
    size_t count;
} tile;

/* The inverse length of a row; NaN if the squared length is outside of the bounds. */
static double inverse_length(size_t const width, float const *const row)
{
    float lanes[LG_LANES];
    for (size_t k = 0; k < LG_LANES; k++)
        lanes[k] = 0.0f;
    size_t i = 0;
    for (; i + LG_LANES <= width; i += LG_LANES)
        for (size_t k = 0; k < LG_LANES; k++)
            lanes[k] = lg_fused(row[i + k], row[i + k], lanes[k]);
    for (size_t k = 0; i + k < width; k++)
        lanes[k] = lg_fused(row[i + k], row[i + k], lanes[k]);
    float const squared = lg_sum_lanes(lanes);
    return squared >= SHORTEST && squared <= LONGEST ? 1.0 / sqrt((double)squared) : (double)NAN;
}

/* Fills a tile with the next unmasked tokens from *token on, advances *token and returns their number.
 * Unused places repeat the last token; their sums are ignored. */
static size_t gather(lg_extremes_call const *const call, size_t const layer, size_t *const token,
                     tile *const tile)
{
    lg_states const *const states = &call->states;
    tile->count = 0;
    for (; tile->count < TOKENS && *token < states->rows; ++*token) {
        if (call->mask && !call->mask[*token])
            continue;
        void const *row = lg_row(states, layer, *token);
        if (states->dtype != LG_F32) {
            float *const wide = call->workspace + tile->count * states->width;
            lg_widen(states->dtype, row, 0, states->width, wide);
            row = wide;
        }
        tile->x[tile->count] = row;
        tile->inverse[tile->count] = inverse_length(states->width, row);
        tile->roles[tile->count++] = call->roles ? call->roles[*token] : (size_t)LG_USER;
    }
    for (size_t t = tile->count; t && t < TOKENS; t++)
        tile->x[t] = tile->x[t - 1];
    return tile->count;
}

/* `count` elements of a direction from element `i` on, as float32: in place or widened to `wide`. */
static float const *direction(lg_directions const *const model, size_t const k, size_t const i,
                              size_t const count, float wide[ELEMENTS])
{
    void const *const row
        = (char const *)model->directions + k * model->width * lg_element_size(model->dtype);
    if (model->dtype == LG_F32)
        return (float const *)row + i;
    lg_widen(model->dtype, row, i, count, wide);
    return wide;
}

/* sums_(t, k) = dot of token t and direction first + k, for `count` <= CHUNK directions. */
static void multiply(lg_directions const *const model, tile const *const tile, size_t const first,
                     size_t const count, float sums[TOKENS][CHUNK])
{
    size_t const width = model->width;
    float all_lanes[CHUNK / DIRECTIONS][PAIRS][LG_LANES], wide[DIRECTIONS][ELEMENTS];
    float const *x[TOKENS], *w[DIRECTIONS];
    for (size_t i = 0; i < width; i += ELEMENTS) {
        size_t const elements = width - i < ELEMENTS ? width - i : (size_t)ELEMENTS;
        size_t const full = elements - elements % LG_LANES;
        for (size_t t = 0; t < TOKENS; t++)
            x[t] = tile->x[t] + i;
        for (size_t k = 0; k < count; k += DIRECTIONS) {
            /* a single pass reuses the same lanes, which stay in L1 */
            float (*const lanes)[LG_LANES] = all_lanes[width > ELEMENTS ? k / DIRECTIONS : 0];
            if (i == 0)
                memset(lanes, 0, PAIRS * sizeof *lanes);
            for (size_t d = 0; d < DIRECTIONS; d++)
                w[d] = k + d < count ? direction(model, first + k + d, i, elements, wide[d]) : w[0];
            add_many(full, x, w, lanes);
            add_rest(TOKENS, full, elements, x, w, lanes);
            for (size_t t = 0; i + elements == width && t < tile->count; t++)
                for (size_t d = 0; d < DIRECTIONS; d++)
                    sums[t][k + d] = lg_sum_lanes(lanes[t * DIRECTIONS + d]);
        }
    }
}

/* The same for one token; reads each direction sequentially. */
static void multiply_one(lg_directions const *const model, float const *const x, size_t const first,
                         size_t const count, float sums[CHUNK])
{
    size_t const width = model->width, full = width - width % LG_LANES;
    size_t const bytes = width * lg_element_size(model->dtype);
    for (size_t k = 0; k < count; k += DIRECTIONS) {
        float lanes[DIRECTIONS][LG_LANES] = {{0.0f}}, wide[DIRECTIONS][ELEMENTS];
        void const *rows[DIRECTIONS];
        float const *const rest = x + full, *w[DIRECTIONS];
        for (size_t d = 0; d < DIRECTIONS; d++) {
            size_t const row = first + (k + d < count ? k + d : k);
            rows[d] = (char const *)model->directions + row * bytes;
            w[d] = direction(model, row, full, width - full, wide[d]);
        }
        if (model->dtype == LG_F32)
            add_one_f32(full, x, rows, lanes);
        else if (model->dtype == LG_F16)
            add_one_f16(full, x, rows, lanes);
        else
            add_one_bf16(full, x, rows, lanes);
        add_rest(1, 0, width - full, &rest, w, lanes);
        for (size_t d = 0; d < DIRECTIONS; d++)
            sums[k + d] = lg_sum_lanes(lanes[d]);
    }
}

/* Updates the extremes of a role with one token's cosines. A NaN stays. */
static void widen(size_t const count, float const *restrict const sums, double const inverse,
                  float *restrict const least, float *restrict const largest)
{
    for (size_t k = 0; k < count; k++) {
        float const cosine = (float)lg_canonical((double)sums[k] * inverse);
        float const below = cosine < least[k] ? cosine : least[k];
        float const above = cosine > largest[k] ? cosine : largest[k];
        least[k] = cosine == cosine ? below : cosine;
        largest[k] = cosine == cosine ? above : cosine;
    }
}

void LG_AT_LEVEL(lg_extremes)(lg_extremes_call const *const call)
{
    lg_directions const *const model = call->model;
    size_t const total = (size_t)model->offsets[model->chosen_count];
    for (size_t c = 0; c < model->chosen_count; c++) {
        size_t const end = (size_t)model->offsets[c + 1];
        size_t token = 0;
        tile tile;
        while (gather(call, (size_t)model->layers[c], &token, &tile))
            for (size_t first = (size_t)model->offsets[c]; first < end; first += CHUNK) {
                size_t const count = end - first < CHUNK ? end - first : (size_t)CHUNK;
                float sums[TOKENS][CHUNK];
                if (tile.count == 1)
                    multiply_one(model, tile.x[0], first, count, sums[0]);
                else
                    multiply(model, &tile, first, count, sums);
                for (size_t t = 0; t < tile.count; t++) {
                    float *const least = call->extremes + 2 * tile.roles[t] * total + first;
                    widen(count, sums[t], tile.inverse[t], least, least + total);
                }
            }
    }
}

/* The excess of a row: the largest over roles and directions, NaN if any is NaN. */
static double worst_of(lg_ranges const *const ranges, float const *const extremes, int *const worst)
{
    size_t const total = ranges->count;
    double largest = -INFINITY;
    int invalid = 0;
    *worst = -1;
    for (size_t role = 0; role < LG_ROLES; role++) {
        float const *const least = extremes + 2 * role * total;
        for (size_t k = 0; k < total; k++) {
            size_t const i = role * total + k;
            double const below = (double)ranges->low[i] - (double)least[k];
            double const above = (double)least[total + k] - (double)ranges->high[i];
            double const excess = (above > below ? above : below) / (double)ranges->scale[i];
            invalid |= above != above || below != below;
            if (excess > largest) {
                largest = excess;
                *worst = (int)i;
            }
        }
    }
    return invalid || *worst < 0 ? (double)NAN : largest;
}

void LG_AT_LEVEL(lg_excess)(lg_excess_call const *const call)
{
    for (size_t r = 0; r < call->rows; r++)
        call->scores[r] = worst_of(
            call->ranges, call->extremes + r * 2 * LG_ROLES * call->ranges->count, &call->worst[r]);
}
