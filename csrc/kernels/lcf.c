/* Layerwise convergence fingerprint: diagonal Mahalanobis distances of the differences between
 * neighbouring layers, standardised, and their quadratic form.
 *
 * Source: LCF, arXiv 2604.24542; the formulas are in layerguard_api.h.
 * Precision: float32 lanes for the squared distance of a layer, double from its square root on.
 * A row is read once for each of its two neighbours; parameters are read once for all rows.
 */
#include "lanes.h"
#include "widen.h"

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

/* The same for a whole row: element i goes to lane i % LG_LANES. */
static inline void add_row(size_t const count, float const *const before, float const *const after,
                           float const *const mu, float const *const inverse_sigma,
                           float lanes[LG_LANES])
{
    size_t i = 0;
    for (; i + LG_LANES <= count; i += LG_LANES)
        add_squares(LG_LANES, before + i, after + i, mu + i, inverse_sigma + i, lanes);
    if (i < count)
        add_squares(count - i, before + i, after + i, mu + i, inverse_sigma + i, lanes);
}

LG_NOINLINE static float squared_f32(size_t const width, float const *const before,
                                     float const *const after, float const *const mu,
                                     float const *const inverse_sigma)
{
    float lanes[LG_LANES];
    for (size_t k = 0; k < LG_LANES; k++)
        lanes[k] = 0.0f;
    add_row(width, before, after, mu, inverse_sigma, lanes);
    return lg_sum_lanes(lanes);
}

static float squared_half(int const dtype, size_t const width, void const *const before,
                          void const *const after, float const *const mu,
                          float const *const inverse_sigma)
{
    float lanes[LG_LANES], wide_before[LG_BLOCK], wide_after[LG_BLOCK];
    for (size_t k = 0; k < LG_LANES; k++)
        lanes[k] = 0.0f;
    for (size_t i = 0; i < width; i += LG_BLOCK) {
        size_t const count = lg_block(i, width);
        lg_widen(dtype, before, i, count, wide_before);
        lg_widen(dtype, after, i, count, wide_after);
        add_row(count, wide_before, wide_after, mu + i, inverse_sigma + i, lanes);
    }
    return lg_sum_lanes(lanes);
}

/* (z - centre)' precision (z - centre). Several columns are summed at a time, each in the order of the
 * rows, so the order of additions does not depend on the width of a register. */
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
    for (size_t l = 0; l < depth; l++) {
        float const *const mu = model->mu + l * model->width;
        float const *const inverse_sigma = model->inverse_sigma + l * model->width;
        for (size_t r = 0; r < states->rows; r++) {
            void const *const before = lg_row(states, l, r);
            void const *const after = lg_row(states, l + 1, r);
            float const squared
                = states->dtype == LG_F32
                      ? squared_f32(model->width, before, after, mu, inverse_sigma)
                      : squared_half(states->dtype, model->width, before, after, mu, inverse_sigma);
            call->z[r * depth + l] = lg_canonical((sqrt((double)squared) - model->score_mean[l])
                                                  / model->score_scale[l]);
        }
    }
    for (size_t r = 0; r < states->rows; r++)
        call->scores[r] = lg_canonical(
            sqrt(quadratic_form(depth, call->z + r * depth, model->centre, model->precision)));
}
