/* SIREN: the chosen neurons of the pooled states, scaled, through a small network.
 *
 * Source: SIREN, arXiv 2604.18519; the formulas stand in layerguard_api.h.
 * Precision: float32 lanes in every dot product; the softmax of the two logits is double.
 * Not finite: ReLU and softmax would turn -inf into an ordinary number, so every feature and every
 * sum before a ReLU also adds itself times zero, which is NaN unless it is finite, to the score.
 */
#include "widen.h"

static float element(int const dtype, void const *const row, size_t const i)
{
    if (dtype == LG_F32)
        return ((float const *)row)[i];
    uint16_t const half = ((uint16_t const *)row)[i];
    return dtype == LG_BF16 ? lg_widen_bf16(half) : lg_widen_f16(half);
}

/* The features of one row; returns 0, or NaN if one is not finite. */
static float gather(lg_siren const *const model, lg_states const *const states, size_t const row,
                    float *restrict const features)
{
    float poison = 0.0f;
    for (size_t c = 0; c < model->chosen_count; c++) {
        void const *const state = lg_row(states, (size_t)model->layers[c], row);
        size_t const end = (size_t)model->neuron_offsets[c + 1];
        for (size_t i = (size_t)model->neuron_offsets[c]; i < end; i++) {
            features[i] =
                element(states->dtype, state, (size_t)model->neurons[i]) * model->alpha[c];
            poison += features[i] * 0.0f;
        }
    }
    return poison;
}

static float dot(size_t const count, float const *restrict const x, float const *restrict const w)
{
    float t[LG_LANES] = {0};
    size_t i = 0;
    for (; i + LG_LANES <= count; i += LG_LANES)
        for (size_t k = 0; k < LG_LANES; k++)
            t[k] += x[i + k] * w[i + k];
    for (size_t k = 0; i + k < count; k++)
        t[k] += x[i + k] * w[i + k];
    return lg_sum_lanes(t);
}

void LG_AT_LEVEL(lg_siren)(lg_siren_call const *const call)
{
    lg_siren const *const model = call->model;
    lg_states const *const states = &call->states;
    size_t const rows = states->rows;
    float *x = call->workspace;
    float *y = call->workspace + call->workspace_count / 2;
    for (size_t r = 0; r < rows; r++)
        call->scores[r] = (double)gather(model, states, r, x + r * model->widths[0]);
    for (size_t m = 0; m < model->linear_count; m++) {
        size_t const in = model->widths[m], out = model->widths[m + 1];
        int const last = m + 1 == model->linear_count;
        for (size_t o = 0; o < out; o++)
            for (size_t r = 0; r < rows; r++) {
                float const sum =
                    dot(in, x + r * in, model->weights[m] + o * in) + model->biases[m][o];
                call->scores[r] += (double)(sum * 0.0f);
                y[r * out + o] = last || sum > 0.0f ? sum : 0.0f;
            }
        float *const swap = x;
        x = y;
        y = swap;
    }
    for (size_t r = 0; r < rows; r++)
        call->scores[r] = lg_canonical(
            call->scores[r] + lg_softmax_second((double)x[2 * r], (double)x[2 * r + 1]));
}
