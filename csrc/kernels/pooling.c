/* Pools the tokens of one text to one row per layer: masked mean, last unmasked token, or running
 * mean.
 *
 * Precision: float32 sums over up to TOKENS tokens, added to double; one division at the end.
 * Running sums are double from the first token on, so that they do not depend on how a text is split.
 * Memory is read sequentially: every token once, from its first element to its last.
 */
#include "widen.h"

enum { TOKENS = 256 };

static void add_row(int const dtype, size_t const width, void const *const row,
                    float *restrict const sums)
{
    if (dtype == LG_F32) {
        float const *restrict const values = row;
        for (size_t i = 0; i < width; i++)
            sums[i] += values[i];
        return;
    }
    float wide[LG_BLOCK];
    for (size_t i = 0; i < width; i += LG_BLOCK) {
        size_t const count = lg_block(i, width);
        lg_widen(dtype, row, i, count, wide);
        for (size_t k = 0; k < count; k++)
            sums[i + k] += wide[k];
    }
}

static void flush(size_t const width, float *restrict const sums, double *restrict const totals)
{
    for (size_t i = 0; i < width; i++) {
        totals[i] += (double)sums[i];
        sums[i] = 0.0f;
    }
}

void LG_AT_LEVEL(lg_pool_mean)(lg_pool_call const *const call)
{
    lg_states const *const states = &call->states;
    size_t const width = states->width;
    double *restrict const totals = call->workspace;
    for (size_t l = 0; l < states->layer_count; l++) {
        float *restrict const sums = call->pooled + l * width;
        for (size_t i = 0; i < width; i++) {
            totals[i] = 0.0;
            sums[i] = 0.0f;
        }
        size_t counted = 0;
        for (size_t token = 0; token < states->rows; token++) {
            if (call->mask && !call->mask[token])
                continue;
            add_row(states->dtype, width, lg_row(states, l, token), sums);
            if (++counted % TOKENS == 0)
                flush(width, sums, totals);
        }
        flush(width, sums, totals);
        for (size_t i = 0; i < width; i++)
            sums[i] = (float)lg_canonical(totals[i] / (double)counted);
    }
}

void LG_AT_LEVEL(lg_pool_last)(lg_pool_call const *const call)
{
    lg_states const *const states = &call->states;
    size_t const width = states->width;
    size_t last = states->rows - 1;
    while (call->mask && !call->mask[last])
        last--;
    for (size_t l = 0; l < states->layer_count; l++) {
        void const *const row = lg_row(states, l, last);
        float *restrict const pooled = call->pooled + l * width;
        if (states->dtype == LG_F32)
            memcpy(pooled, row, width * sizeof(float));
        else
            lg_widen(states->dtype, row, 0, width, pooled);
        for (size_t i = 0; i < width; i++)
            pooled[i] = pooled[i] == pooled[i] ? pooled[i] : NAN;
    }
}

static void add_wide(size_t const count, float const *restrict const values,
                     double *restrict const sums)
{
    for (size_t i = 0; i < count; i++)
        sums[i] += (double)values[i];
}

static void add_token(int const dtype, size_t const width, void const *const row,
                      double *restrict const sums)
{
    if (dtype == LG_F32) {
        add_wide(width, row, sums);
        return;
    }
    float wide[LG_BLOCK];
    for (size_t i = 0; i < width; i += LG_BLOCK) {
        size_t const count = lg_block(i, width);
        lg_widen(dtype, row, i, count, wide);
        add_wide(count, wide, sums + i);
    }
}

void LG_AT_LEVEL(lg_sums)(lg_sums_call const *const call)
{
    lg_states const *const states = &call->states;
    size_t const width = states->width;
    for (size_t l = 0; l < states->layer_count; l++) {
        double *restrict const sums = call->sums + l * width;
        for (size_t token = 0; token < states->rows; token++)
            add_token(states->dtype, width, lg_row(states, l, token), sums);
        if (!call->mean)
            continue;
        float *restrict const mean = call->mean + l * width;
        for (size_t i = 0; i < width; i++)
            mean[i] = (float)lg_canonical(sums[i] / (double)call->counted);
    }
}
