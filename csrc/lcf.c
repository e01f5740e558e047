/* Layerwise convergence fingerprint: diagonal Mahalanobis distances of the differences between
 * neighbouring layers, standardised, and their quadratic form.
 *
 * Source: LCF, arXiv 2604.24542; the formulas stand in layerguard_api.h.
 * Precision: float32 lanes for the squared distance of a layer, double from its square root on.
 * A row is read once for each of its two neighbours; parameters are read once for all rows.
 */
#include "lanes.h"
#include "widen.h"

/* Neighbouring layers of a row that are measured in one pass: the states between them are then read
 * once, not twice. As many as keep their lanes in registers; each layer has lanes of its own, so
 * the number changes no bit. It pays for long rows and for batches (bench/lcf_kernel.py). */
#if defined(__AVX512F__)
enum { PASS = 4 };
#elif defined(__AVX__) || defined(__aarch64__)
enum { PASS = 2 };
#else
enum { PASS = 1 };
#endif
enum { LONG_ROW = 2048 };

/* lanes_k += (((after_k - before_k) - mu_k) * inverse_sigma_k)^2  for k < count <= LG_LANES. */
static inline void add_squares(size_t const count, float const *const before,
                               float const *const after, float const *const mu,
                               float const *const inverse_sigma, float lanes[LG_LANES])
{
    for (size_t k = 0; k < count; k++) {
        float const x = ((after[k] - before[k]) - mu[k]) * inverse_sigma[k];
        lanes[k] += x * x;
    }
}

/* The same for `count` elements of `layers` layers, whose parameters lie `width` apart: element i
 * goes to lane i % LG_LANES of its layer. */
static inline void add_layers(size_t const layers, size_t const count, size_t const width,
                              float const *const states[], float const *const mu,
                              float const *const inverse_sigma, float lanes[][LG_LANES])
{
    size_t i = 0;
    for (; i + LG_LANES <= count; i += LG_LANES)
        for (size_t l = 0; l < layers; l++)
            add_squares(LG_LANES, states[l] + i, states[l + 1] + i, mu + l * width + i,
                        inverse_sigma + l * width + i, lanes[l]);
    if (i < count)
        for (size_t l = 0; l < layers; l++)
            add_squares(count - i, states[l] + i, states[l + 1] + i, mu + l * width + i,
                        inverse_sigma + l * width + i, lanes[l]);
}

/* squared_l = sum of squares of layer l, for `layers` <= PASS layers of one row from `first` on. */
static inline void measure(size_t const layers, lg_lcf const *const model,
                           lg_states const *const states, size_t const first, size_t const row,
                           float *const squared)
{
    size_t const width = model->width;
    float const *const mu = model->mu + first * width;
    float const *const inverse_sigma = model->inverse_sigma + first * width;
    float lanes[PASS][LG_LANES], wide[PASS + 1][LG_BLOCK];
    float const *rows[PASS + 1];
    for (size_t l = 0; l < layers; l++)
        for (size_t k = 0; k < LG_LANES; k++)
            lanes[l][k] = 0.0f;
    if (states->dtype == LG_F32) {
        for (size_t l = 0; l <= layers; l++)
            rows[l] = lg_row(states, first + l, row);
        add_layers(layers, width, width, rows, mu, inverse_sigma, lanes);
    } else {
        for (size_t l = 0; l <= layers; l++)
            rows[l] = wide[l];
        for (size_t i = 0; i < width; i += LG_BLOCK) {
            size_t const count = lg_block(i, width);
            for (size_t l = 0; l <= layers; l++)
                lg_widen(states->dtype, lg_row(states, first + l, row), i, count, wide[l]);
            add_layers(layers, count, width, rows, mu + i, inverse_sigma + i, lanes);
        }
    }
    for (size_t l = 0; l < layers; l++)
        squared[l] = lg_sum_lanes(lanes[l]);
}

/* The two numbers of layers for which lanes stay in registers: known when compiled. */
LG_NOINLINE static void measure_one(lg_lcf const *const model, lg_states const *const states,
                                    size_t const first, size_t const row, float *const squared)
{
    measure(1, model, states, first, row, squared);
}

LG_NOINLINE static void measure_pass(lg_lcf const *const model, lg_states const *const states,
                                     size_t const first, size_t const row, float *const squared)
{
    measure(PASS, model, states, first, row, squared);
}

/* (z - centre)' precision (z - centre). Columns are summed side by side, each in the order of the
 * rows: so the order of additions does not depend on how many fit a register. */
static double quadratic_form(size_t const count, double const *restrict const z,
                             double const *restrict const centre,
                             double const *restrict const precision)
{
    enum { COLUMNS = 64 };
    double form = 0.0;
    for (size_t j = 0; j < count; j += COLUMNS) {
        size_t const columns = count - j < COLUMNS ? count - j : (size_t)COLUMNS;
        double sums[COLUMNS];
        for (size_t k = 0; k < columns; k++)
            sums[k] = 0.0;
        for (size_t i = 0; i < count; i++) {
            double const offset = z[i] - centre[i];
            double const *const row = precision + i * count + j;
            for (size_t k = 0; k < columns; k++)
                sums[k] += offset * row[k];
        }
        for (size_t k = 0; k < columns; k++)
            form += sums[k] * (z[j + k] - centre[j + k]);
    }
    return form;
}

void LG_AT_LEVEL(lg_lcf)(lg_lcf_call const *const call)
{
    lg_lcf const *const model = call->model;
    lg_states const *const states = &call->states;
    size_t const depth = model->layer_count;
    size_t const pass = model->width >= LONG_ROW || states->rows > 1 ? (size_t)PASS : 1;
    for (size_t first = 0, layers; first < depth; first += layers) {
        layers = depth - first >= pass ? pass : 1;
        for (size_t r = 0; r < states->rows; r++) {
            float squared[PASS];
            if (layers == PASS)
                measure_pass(model, states, first, r, squared);
            else
                measure_one(model, states, first, r, squared);
            for (size_t l = 0; l < layers; l++)
                call->z[r * depth + first + l]
                    = lg_canonical((sqrt((double)squared[l]) - model->score_mean[first + l])
                                   / model->score_scale[first + l]);
        }
    }
    for (size_t r = 0; r < states->rows; r++)
        call->scores[r] = lg_canonical(
            sqrt(quadratic_form(depth, call->z + r * depth, model->centre, model->precision)));
}
