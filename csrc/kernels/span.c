/* A linear probe on every token of a text, and the window of tokens with the largest mean.
 *
 * The formulas are in layerguard_api.h; float64 oracle in tests/reference/span.py.
 * Precision: float32 lanes for the product of a state and its weights, double for the sum over layers
 * and over the window. A window is summed anew for every token, in the order of the tokens, so the
 * result does not depend on how a text is split, and errors do not add up.
 */
#include "lanes.h"
#include "widen.h"

static inline void add_products(size_t const count, float const *const x, float const *const w,
                                float lanes[LG_LANES])
{
    for (size_t k = 0; k < count; k++)
        lanes[k] += x[k] * w[k];
}

/* Element i goes to lane i % LG_LANES. */
static inline void add_row(size_t const count, float const *const x, float const *const w,
                           float lanes[LG_LANES])
{
    size_t i = 0;
    for (; i + LG_LANES <= count; i += LG_LANES)
        add_products(LG_LANES, x + i, w + i, lanes);
    if (i < count)
        add_products(count - i, x + i, w + i, lanes);
}

LG_NOINLINE static float product_f32(size_t const width, float const *const x, float const *const w)
{
    float lanes[LG_LANES];
    for (size_t k = 0; k < LG_LANES; k++)
        lanes[k] = 0.0f;
    add_row(width, x, w, lanes);
    return lg_sum_lanes(lanes);
}

static float product_half(int const dtype, size_t const width, void const *const row,
                          float const *const w)
{
    float lanes[LG_LANES], wide[LG_BLOCK];
    for (size_t k = 0; k < LG_LANES; k++)
        lanes[k] = 0.0f;
    for (size_t i = 0; i < width; i += LG_BLOCK) {
        size_t const count = lg_block(i, width);
        lg_widen(dtype, row, i, count, wide);
        add_row(count, wide, w + i, lanes);
    }
    return lg_sum_lanes(lanes);
}

/* The logit of a token; NaN unless it is finite, so that no later step can hide it. */
static float logit_of(lg_probe const *const model, lg_states const *const states,
                      size_t const token)
{
    double logit = model->bias;
    for (size_t c = 0; c < model->chosen_count; c++) {
        void const *const row = lg_row(states, (size_t)model->layers[c], token);
        float const *const weights = model->weights + c * model->width;
        logit += (double)(states->dtype == LG_F32
                              ? product_f32(model->width, row, weights)
                              : product_half(states->dtype, model->width, row, weights));
    }
    return isfinite((float)logit) ? (float)logit : NAN;
}

/* Appends a logit to the last ones, and compares the window that it completes with the best one. A
 * text shorter than a window has one window, which grows. A NaN stays. */
static void add_logit(size_t const window, float const logit, float *const windows)
{
    float *const logits = windows + LG_WINDOW_LOGITS;
    size_t const before
        = windows[LG_WINDOW_TOKENS] < (float)window ? (size_t)windows[LG_WINDOW_TOKENS] : window;
    size_t const held = before < window ? before + 1 : window;
    if (before == window)
        memmove(logits, logits + 1, (window - 1) * sizeof *logits);
    logits[held - 1] = logit;
    windows[LG_WINDOW_TOKENS] += 1.0f;
    double sum = 0.0;
    for (size_t i = 0; i < held; i++)
        sum += (double)logits[i];
    float const mean = (float)lg_canonical(sum / (double)held);
    float const best = windows[LG_WINDOW_BEST];
    if (best == best && (before < window || !(mean <= best))) {
        windows[LG_WINDOW_BEST] = mean;
        windows[LG_WINDOW_FIRST] = windows[LG_WINDOW_TOKENS] - (float)held;
    }
}

void LG_AT_LEVEL(lg_windows)(lg_windows_call const *const call)
{
    for (size_t token = 0; token < call->states.rows; token++)
        if (!call->mask || call->mask[token])
            add_logit(call->model->window, logit_of(call->model, &call->states, token),
                      call->windows);
}
