/* SIREN: selected neurons of the pooled states, scaled, through a small network.
 *
 * Source: SIREN, arXiv 2604.18519; the formulas are in layerguard_api.h.
 * Precision: float32 lanes in every dot product; the softmax of the two logits is double.
 * Non-finite values: ReLU and softmax can turn infinity into a finite number. A non-finite feature
 * makes every sum of the first map non-finite. Each sum times zero, which is NaN unless the sum is
 * finite, is added to the score of its row, so the score becomes NaN.
 */
#include "lanes.h"
#include "widen.h"

/* Neighbouring rows of a weight matrix that are read in one pass. */
enum { OUTPUTS = 4 };

static void gather(lg_siren const *const model, lg_states const *const states, size_t const row,
                   float *restrict const features)
{
    for (size_t c = 0; c < model->chosen_count; c++) {
        void const *const state = lg_row(states, (size_t)model->layers[c], row);
        float const *const singles = state;
        uint16_t const *const halves = state;
        float const alpha = model->alpha[c];
        size_t const begin = (size_t)model->neuron_offsets[c];
        size_t const end = (size_t)model->neuron_offsets[c + 1];
        if (states->dtype == LG_F32)
            for (size_t i = begin; i < end; i++)
                features[i] = singles[model->neurons[i]] * alpha;
        else if (states->dtype == LG_BF16)
            for (size_t i = begin; i < end; i++)
                features[i] = lg_widen_bf16(halves[model->neurons[i]]) * alpha;
        else
            for (size_t i = begin; i < end; i++)
                features[i] = lg_widen_f16(halves[model->neurons[i]]) * alpha;
    }
}

static inline void add_products(size_t const count, float const *const x, float const *const w,
                                float lanes[LG_LANES])
{
    for (size_t k = 0; k < count; k++)
        lanes[k] += x[k] * w[k];
}

/* y_o = dot of x and row o of w, for `outputs` <= OUTPUTS neighbouring rows of length `count`. */
static inline void dot_rows(size_t const outputs, size_t const count, float const *const x,
                            float const *const w, float *const y)
{
    float registers[OUTPUTS][LG_LANES], lanes[OUTPUTS][LG_LANES];
    for (size_t o = 0; o < outputs; o++)
        for (size_t k = 0; k < LG_LANES; k++)
            registers[o][k] = 0.0f;
    size_t i = 0;
    for (; i + LG_LANES <= count; i += LG_LANES)
        for (size_t o = 0; o < outputs; o++)
            add_products(LG_LANES, x + i, w + o * count + i, registers[o]);
    for (size_t o = 0; o < outputs; o++)
        for (size_t k = 0; k < LG_LANES; k++)
            lanes[o][k] = registers[o][k];
    if (i < count)
        for (size_t o = 0; o < outputs; o++)
            add_products(count - i, x + i, w + o * count + i, lanes[o]);
    for (size_t o = 0; o < outputs; o++)
        y[o] = lg_sum_lanes(lanes[o]);
}

/* The two row counts for which the lanes stay in registers, as compile-time constants. */
LG_NOINLINE static void dot_many(size_t const count, float const *const x, float const *const w,
                                 float *const y)
{
    dot_rows(OUTPUTS, count, x, w, y);
}

LG_NOINLINE static void dot_one(size_t const count, float const *const x, float const *const w,
                                float *const y)
{
    dot_rows(1, count, x, w, y);
}

/* y = w x, for one row of the batch and outputs first to first + count. */
static void multiply(size_t const inputs, size_t const outputs, float const *const x,
                     float const *const w, float *const y)
{
    if (outputs == OUTPUTS)
        dot_many(inputs, x, w, y);
    else
        for (size_t o = 0; o < outputs; o++)
            dot_one(inputs, x, w + o * inputs, y + o);
}

/* Scores `rows` <= LG_SIREN_ROWS rows of the states, from row `first` on. */
static void score_rows(lg_siren_call const *const call, size_t const first, size_t const rows)
{
    lg_siren const *const model = call->model;
    double *const scores = call->scores + first;
    float *x = call->workspace;                             /* (rows, widths[m]) */
    float *y = call->workspace + call->workspace_count / 2; /* (rows, widths[m + 1]) */
    for (size_t r = 0; r < rows; r++) {
        gather(model, &call->states, first + r, x + r * model->widths[0]);
        scores[r] = 0.0;
    }
    for (size_t m = 0; m < model->linear_count; m++) {
        size_t const inputs = model->widths[m], outputs = model->widths[m + 1];
        int const last = m + 1 == model->linear_count;
        for (size_t o = 0; o < outputs; o += OUTPUTS) {
            size_t const count = outputs - o < OUTPUTS ? outputs - o : (size_t)OUTPUTS;
            for (size_t r = 0; r < rows; r++) {
                float *const sums = y + r * outputs + o;
                multiply(inputs, count, x + r * inputs, model->weights[m] + o * inputs, sums);
                for (size_t k = 0; k < count; k++) {
                    float const sum = sums[k] + model->biases[m][o + k];
                    scores[r] += (double)(sum * 0.0f);
                    sums[k] = last || sum > 0.0f ? sum : 0.0f;
                }
            }
        }
        float *const swap = x;
        x = y;
        y = swap;
    }
    for (size_t r = 0; r < rows; r++)
        scores[r]
            = lg_canonical(scores[r] + lg_softmax_second((double)x[2 * r], (double)x[2 * r + 1]));
}

void LG_AT_LEVEL(lg_siren)(lg_siren_call const *const call)
{
    size_t const rows = call->states.rows;
    for (size_t first = 0; first < rows; first += LG_SIREN_ROWS) {
        size_t const left = rows - first;
        score_rows(call, first, left < LG_SIREN_ROWS ? left : (size_t)LG_SIREN_ROWS);
    }
}

/* y = relu(w x + bias) of one row. */
static void map_row(lg_siren const *const model, size_t const m, float const *const x,
                    float *const y)
{
    size_t const inputs = model->widths[m], outputs = model->widths[m + 1];
    for (size_t o = 0; o < outputs; o += OUTPUTS) {
        size_t const count = outputs - o < OUTPUTS ? outputs - o : (size_t)OUTPUTS;
        multiply(inputs, count, x, model->weights[m] + o * inputs, y + o);
    }
    for (size_t o = 0; o < outputs; o++) {
        float const sum = y[o] + model->biases[m][o];
        y[o] = sum > 0.0f ? sum : 0.0f;
    }
}

/* The gradient at the inputs of map m from that at its outputs; outputs of 0 or less pass none. */
static void lead_back(lg_siren const *const model, size_t const m, float const *const outputs,
                      float const *const gradient, float *restrict const back)
{
    size_t const inputs = model->widths[m];
    for (size_t i = 0; i < inputs; i++)
        back[i] = 0.0f;
    for (size_t o = 0; o < model->widths[m + 1]; o++) {
        float const *restrict const weights = model->weights[m] + o * inputs;
        float const factor = gradient[o];
        if (outputs[o] > 0.0f)
            for (size_t i = 0; i < inputs; i++)
                back[i] += factor * weights[i];
    }
}

void LG_AT_LEVEL(lg_siren_shares)(lg_shares_call const *const call)
{
    lg_siren const *const model = call->model;
    size_t const last = model->linear_count - 1;
    float *values = call->workspace; /* features, then the outputs of all maps but the last */
    gather(model, call->states, call->row, values);
    for (size_t m = 0; m < last; m++) {
        map_row(model, m, values, values + model->widths[m]);
        values += model->widths[m];
    }
    float *gradient = values + model->widths[last];
    float *back
        = gradient + (lg_shares_workspace(model) - (size_t)(gradient - call->workspace)) / 2;
    for (size_t i = 0; i < model->widths[last]; i++)
        gradient[i] = model->weights[last][model->widths[last] + i] - model->weights[last][i];
    for (size_t m = last; m-- > 0;) {
        lead_back(model, m, values, gradient, back);
        values -= model->widths[m];
        float *const swap = gradient;
        gradient = back;
        back = swap;
    }
    for (size_t c = 0; c < model->chosen_count; c++) {
        call->shares[c] = 0.0;
        for (int i = model->neuron_offsets[c]; i < model->neuron_offsets[c + 1]; i++)
            call->shares[c] += (double)values[i] * (double)gradient[i];
    }
}
