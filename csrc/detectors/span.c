/* span: parameters, score and evidence. The formulas are in layerguard_api.h. */
#include "registry.h"

static lg_parameter const parameters[] = {
    {"layers", LG_TYPE_I32, "K", LG_NOT_EMPTY},
    {"weights", LG_TYPE_F32, "KD", LG_NOT_EMPTY},
    {"bias", LG_TYPE_F64, "", 0},
    {"window", LG_TYPE_I32, "", 0},
};

static void check_layers(lg_binding const *const binding, int const *const layers,
                         size_t const count)
{
    size_t const depth = lg_length(binding, 'L');
    int fits = layers[0] >= 0;
    for (size_t k = 1; k < count; k++)
        fits &= layers[k] > layers[k - 1];
    char shown[LG_SHOWN];
    if (!fits)
        lg_unfit(binding, "layers", "is %s; expected states from 0 on, ascending, each once",
                 lg_show_integers(shown, layers, count));
    else if (depth != LG_UNKNOWN && (size_t)layers[count - 1] > depth)
        lg_unfit(binding, "layers", "is %s; expected states within 0..%zu",
                 lg_show_integers(shown, layers, count), depth);
}

static lg_status bind(lg_binding *const binding, lg_bound *const bound)
{
    size_t const before = binding->faults->count;
    lg_probe *const model = lg_allocate(binding->memory, 1, sizeof *model);
    if (!model)
        return lg_no_memory(binding);
    int const *const layers = lg_find(binding, "layers")->data;
    int const window = *(int const *)lg_find(binding, "window")->data;
    size_t const count = lg_length(binding, 'K');
    check_layers(binding, layers, count);
    if (window < 1 || window > LG_LONGEST_WINDOW)
        lg_unfit(binding, "window", "is %d; expected 1 to %d tokens", window, LG_LONGEST_WINDOW);
    if (binding->faults->count > before)
        return LG_ERR_PARAMETERS;
    *model = (lg_probe){.states_needed = (size_t)layers[count - 1] + 1,
                        .width = lg_length(binding, 'D'),
                        .chosen_count = count,
                        .layers = layers,
                        .weights = lg_find(binding, "weights")->data,
                        .bias = *(double const *)lg_find(binding, "bias")->data,
                        .window = (size_t)window};
    *bound = (lg_bound){.model = model,
                        .probe = model,
                        .states = model->states_needed,
                        .width = model->width,
                        .width_known = 1};
    return LG_OK;
}

static size_t scratch(lg_bound const *const bound, size_t const rows, int const explained)
{
    (void)bound;
    (void)rows;
    (void)explained;
    return 0;
}

static void score(lg_bound const *const bound, lg_input const *const input, double *const scores)
{
    (void)bound;
    for (size_t row = 0; row < input->rows.rows; row++) {
        float const *const windows = lg_row(&input->rows, 0, row);
        scores[row]
            = windows[LG_WINDOW_TOKENS] > 0.0f ? (double)windows[LG_WINDOW_BEST] : (double)NAN;
    }
}

/* The number of a window's first token; -1 if the row, which may come from outside, holds none. */
static int token_of(float const number)
{
    return number >= 0.0f && number < 0x1p31f ? (int)number : -1;
}

/* The best window: its first token, and its mean. */
static size_t explain(lg_bound const *const bound, lg_input const *const input, size_t const row,
                      lg_reading const *const reading, lg_evidence *const evidence,
                      size_t const count)
{
    lg_probe const *const model = bound->model;
    (void)count;
    if (reading->status != LG_READ)
        return 0;
    float const *const windows = lg_row(&input->rows, 0, row);
    evidence[0] = (lg_evidence){.value = reading->score,
                                .layer = model->layers[model->chosen_count - 1],
                                .place = token_of(windows[LG_WINDOW_FIRST])};
    return 1;
}

lg_kind const lg_kind_span = {
    .name = "span",
    .view = LG_CONTENT,
    .pooling = LG_WINDOW,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof *parameters,
    .bind = bind,
    .scratch = scratch,
    .score = score,
    .explain = explain,
    .explains_cheaply = 1,
};
