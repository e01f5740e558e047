/* A toy detector: the mean distance of the last token's state after one block from a centre. */
#include <math.h>   /* fabs */
#include <string.h> /* memcpy */

#include "registry.h"
#include "widen.h"

static lg_parameter const parameters[] = {
    {"layer", LG_TYPE_I32, "", 0},
    {"centre", LG_TYPE_F32, "D", LG_NOT_EMPTY},
};

typedef struct toy {
    size_t layer;
    float const *centre; /* (D) */
} toy;

static lg_status bind(lg_binding *const binding, lg_bound *const bound)
{
    toy *const model = lg_allocate(binding->memory, 1, sizeof *model);
    if (!model)
        return lg_no_memory(binding);
    int const layer = *(int const *)lg_find(binding, "layer")->data;
    if (layer < 0)
        return lg_unfit(binding, "layer", "is %d; expected 0 or more", layer);
    *model = (toy){(size_t)layer, lg_find(binding, "centre")->data};
    *bound = (lg_bound){.model = model,
                        .states = model->layer + 1,
                        .width = lg_length(binding, 'D'),
                        .width_known = 1};
    return LG_OK;
}

static size_t scratch(lg_bound const *const bound, size_t const rows, int const explained)
{
    (void)rows;
    (void)explained;
    return bound->width * sizeof(float);
}

static void score(lg_bound const *const bound, lg_input const *const input, double *const scores)
{
    toy const *const model = bound->model;
    float *const state = input->scratch;
    for (size_t row = 0; row < input->rows.rows; row++) {
        double sum = 0.0;
        void const *const values = lg_row(&input->rows, model->layer, row);
        if (input->rows.dtype == LG_F32)
            memcpy(state, values, bound->width * sizeof *state);
        else
            lg_widen(input->rows.dtype, values, 0, bound->width, state);
        for (size_t i = 0; i < bound->width; i++)
            sum += fabs((double)state[i] - (double)model->centre[i]);
        scores[row] = lg_canonical(sum / (double)bound->width);
    }
}

static size_t explain(lg_bound const *const bound, lg_input const *const input, size_t const row,
                      lg_reading const *const reading, lg_evidence *const evidence,
                      size_t const count)
{
    toy const *const model = bound->model;
    (void)input;
    (void)row;
    (void)count;
    evidence[0] = (lg_evidence){.value = reading->score, .layer = (int)model->layer};
    return 1;
}

lg_kind const lg_kind_toy = {
    .name = "toy",
    .view = LG_PROMPT,
    .pooling = LG_LAST,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof *parameters,
    .bind = bind,
    .scratch = scratch,
    .score = score,
    .explain = explain,
    .explains_cheaply = 1,
};
