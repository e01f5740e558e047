/* Layerwise convergence fingerprint: diagonal Mahalanobis distances of the differences between
 * neighbouring layers, standardised, and their quadratic form.
 *
 * Source: LCF, arXiv 2604.24542; the formulas stand in layerguard_api.h.
 * Precision: float32 lanes for the squared distance of a layer, double from its square root on.
 * A row is read once for each of its two neighbours; parameters are read once for all rows.
 */
#include "widen.h"

/* lanes[i % LG_LANES] += (((after_i - before_i) - mu_i) * inverse_sigma_i)^2  for i < count. */
static void add_squares(size_t const count, float const *restrict const before,
                        float const *restrict const after, float const *restrict const mu,
                        float const *restrict const inverse_sigma, float *restrict const lanes)
{
    float t[LG_LANES];
    memcpy(t, lanes, sizeof t);
    size_t i = 0;
    for (; i + LG_LANES <= count; i += LG_LANES)
        for (size_t k = 0; k < LG_LANES; k++) {
            float const x = ((after[i + k] - before[i + k]) - mu[i + k]) * inverse_sigma[i + k];
            t[k] += x * x;
        }
    for (size_t k = 0; i + k < count; k++) {
        float const x = ((after[i + k] - before[i + k]) - mu[i + k]) * inverse_sigma[i + k];
        t[k] += x * x;
    }
    memcpy(lanes, t, sizeof t);
}

static double distance(int const dtype, size_t const width, void const *const before,
                       void const *const after, float const *const mu,
                       float const *const inverse_sigma)
{
    float lanes[LG_LANES] = {0};
    if (dtype == LG_F32) {
        add_squares(width, before, after, mu, inverse_sigma, lanes);
    } else {
        float wide_before[LG_BLOCK], wide_after[LG_BLOCK];
        for (size_t i = 0; i < width; i += LG_BLOCK) {
            size_t const count = lg_block(i, width);
            lg_widen(dtype, before, i, count, wide_before);
            lg_widen(dtype, after, i, count, wide_after);
            add_squares(count, wide_before, wide_after, mu + i, inverse_sigma + i, lanes);
        }
    }
    return sqrt((double)lg_sum_lanes(lanes));
}

/* (z - centre)' precision (z - centre). Columns are summed side by side, each in the order of the
 * rows, so that the order of additions does not depend on how many fit a register. */
static double quadratic_form(size_t const count, double const *restrict const z,
                             double const *restrict const centre,
                             double const *restrict const precision)
{
    enum { COLUMNS = 8 };
    double form = 0.0;
    for (size_t j = 0; j < count; j += COLUMNS) {
        size_t const columns = count - j < COLUMNS ? count - j : (size_t)COLUMNS;
        double sums[COLUMNS] = {0};
        for (size_t i = 0; i < count; i++) {
            double const offset = z[i] - centre[i];
            double const *const row = precision + i * count + j;
            if (columns == COLUMNS)
                for (size_t k = 0; k < COLUMNS; k++)
                    sums[k] += offset * row[k];
            else
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
    for (size_t l = 0; l < depth; l++)
        for (size_t r = 0; r < states->rows; r++) {
            double const length = distance(states->dtype, model->width, lg_row(states, l, r),
                                           lg_row(states, l + 1, r), model->mu + l * model->width,
                                           model->inverse_sigma + l * model->width);
            call->z[r * depth + l] =
                lg_canonical((length - model->score_mean[l]) / model->score_scale[l]);
        }
    for (size_t r = 0; r < states->rows; r++)
        call->scores[r] = lg_canonical(
            sqrt(quadratic_form(depth, call->z + r * depth, model->centre, model->precision)));
}
