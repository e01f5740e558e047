/* delta: parameters, score and evidence. The formula is in layerguard_api.h.
 *
 * Precision: double from the difference on. The library computes no row: the graph does. */
#include <math.h>   /* isfinite */
#include <stdint.h> /* uint8_t */

#include "registry.h"

static lg_parameter const parameters[] = {
    {"layers", LG_TYPE_I32, "K", LG_NOT_EMPTY},
    {"parts", LG_TYPE_U8, "K", 0},
    {"centre", LG_TYPE_F32, "K", 0},
    {"scale", LG_TYPE_F32, "K", LG_POSITIVE},
};

typedef struct lengths {
    int const *layers;   /* (count) block of each value, from 1 */
    float const *centre; /* (count) */
    float const *scale;  /* (count), > 0 */
    size_t count;
} lengths;

/* Checks that every value has a matrix of the model, ascending, each once. */
static void check_places(lg_binding const *const binding, int const *const layers,
                         uint8_t const *const parts, size_t const count)
{
    size_t const depth = lg_length(binding, 'L');
    int fits = 1, known = 1, ordered = 1;
    for (size_t k = 0; k < count; k++) {
        fits &= layers[k] >= 1 && (depth == LG_UNKNOWN || (size_t)layers[k] <= depth);
        known &= parts[k] <= 1;
        ordered &= !k || layers[k] > layers[k - 1]
                   || (layers[k] == layers[k - 1] && parts[k] > parts[k - 1]);
    }
    char shown[LG_SHOWN];
    if (!fits && depth == LG_UNKNOWN)
        lg_unfit(binding, "layers", "is %s; expected blocks from 1 on",
                 lg_show_integers(shown, layers, count));
    else if (!fits)
        lg_unfit(binding, "layers", "is %s; expected blocks within 1..%zu",
                 lg_show_integers(shown, layers, count), depth);
    if (!known)
        lg_unfit(binding, "parts", "has values above 1; expected 0 for down_proj and 1 for o_proj");
    if (!ordered)
        lg_unfit(binding, "layers", "is %s; expected blocks and their parts ascending, each once",
                 lg_show_integers(shown, layers, count));
}

static lg_status bind(lg_binding *const binding, lg_bound *const bound)
{
    size_t const before = binding->faults->count;
    lengths *const model = lg_allocate(binding->memory, 1, sizeof *model);
    if (!model)
        return lg_no_memory(binding);
    *model = (lengths){.layers = lg_find(binding, "layers")->data,
                       .centre = lg_find(binding, "centre")->data,
                       .scale = lg_find(binding, "scale")->data,
                       .count = lg_length(binding, 'K')};
    check_places(binding, model->layers, lg_find(binding, "parts")->data, model->count);
    if (binding->faults->count > before)
        return LG_ERR_PARAMETERS;
    *bound = (lg_bound){
        .model = model, .row = model->count, .states = (size_t)model->layers[model->count - 1] + 1};
    return LG_OK;
}

static size_t scratch(lg_bound const *const bound, size_t const rows, int const explained)
{
    (void)bound;
    (void)rows;
    (void)explained;
    return 0;
}

/* How far a value lies above its centre, in deviations. */
static double excess(lengths const *const model, float const *const values, size_t const k)
{
    return ((double)values[k] - (double)model->centre[k]) / (double)model->scale[k];
}

/* Index of the value that lies furthest above its centre; of equal ones the first. */
static size_t furthest(lengths const *const model, float const *const values)
{
    size_t best = 0;
    for (size_t k = 1; k < model->count; k++)
        if (excess(model, values, k) > excess(model, values, best))
            best = k;
    return best;
}

static void score(lg_bound const *const bound, lg_input const *const input, double *const scores)
{
    lengths const *const model = bound->model;
    for (size_t row = 0; row < input->rows.rows; row++) {
        float const *const values = lg_row(&input->rows, 0, row);
        int finite = 1;
        for (size_t k = 0; k < model->count; k++)
            finite &= isfinite(values[k]) != 0;
        scores[row] = finite ? excess(model, values, furthest(model, values)) : (double)NAN;
    }
}

/* The matrix with the largest excess; for a flagged text also the next ones above their centres. */
static size_t explain(lg_bound const *const bound, lg_input const *const input, size_t const row,
                      lg_reading const *const reading, lg_evidence *const evidence,
                      size_t const count)
{
    lengths const *const model = bound->model;
    if (reading->status != LG_READ)
        return 0;
    float const *const values = lg_row(&input->rows, 0, row);
    size_t const best = furthest(model, values);
    evidence[0]
        = (lg_evidence){.value = reading->score, .layer = model->layers[best], .place = (int)best};
    size_t used = 1;
    for (size_t k = 0; reading->flagged && count > 1 && k < model->count; k++) {
        lg_evidence const entry
            = {.value = excess(model, values, k), .layer = model->layers[k], .place = (int)k};
        if (k != best && entry.value > 0.0)
            used = 1 + lg_rank_evidence(evidence + 1, used - 1, count - 1, entry);
    }
    return used;
}

lg_kind const lg_kind_delta = {
    .name = "delta",
    .view = LG_PROMPT,
    .pooling = LG_DELTA,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof *parameters,
    .bind = bind,
    .scratch = scratch,
    .score = score,
    .explain = explain,
    .explains_cheaply = 1,
};
