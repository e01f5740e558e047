/* LCF: parameters, score and evidence. The formulas are in layerguard_api.h. */
#include "registry.h"

static lg_parameter const parameters[] = {
    {"mu", LG_TYPE_F32, "LD", LG_NOT_EMPTY}, {"sigma", LG_TYPE_F32, "LD", LG_POSITIVE},
    {"score_mean", LG_TYPE_F64, "L", 0},     {"score_scale", LG_TYPE_F64, "L", LG_POSITIVE},
    {"centre", LG_TYPE_F64, "L", 0},         {"precision", LG_TYPE_F64, "LL", 0},
};

/* Replaces sigma by its inverse, rounded to float32 once. */
static lg_status invert(lg_binding const *const binding, lg_array *const sigma)
{
    float *const values = sigma->data;
    int finite = 1;
    for (size_t i = 0; i < sigma->count; i++) {
        values[i] = (float)(1.0 / (double)values[i]);
        finite &= isfinite(values[i]) != 0;
    }
    return finite ? LG_OK
                  : lg_unfit(binding, "sigma",
                             "has a value below 3e-39, whose inverse exceeds float32; expected "
                             "larger values");
}

static lg_status bind(lg_binding *const binding, lg_bound *const bound)
{
    lg_array *const sigma = lg_find(binding, "sigma");
    lg_status const status = invert(binding, sigma);
    lg_lcf *const model = lg_allocate(binding->memory, 1, sizeof *model);
    if (!model)
        return lg_no_memory(binding);
    *model = (lg_lcf){
        .layer_count = lg_length(binding, 'L'),
        .width = lg_length(binding, 'D'),
        .mu = lg_find(binding, "mu")->data,
        .inverse_sigma = sigma->data,
        .score_mean = lg_find(binding, "score_mean")->data,
        .score_scale = lg_find(binding, "score_scale")->data,
        .centre = lg_find(binding, "centre")->data,
        .precision = lg_find(binding, "precision")->data,
    };
    *bound = (lg_bound){.model = model,
                        .states = model->layer_count + 1,
                        .width = model->width,
                        .states_known = 1,
                        .width_known = 1};
    return status;
}

/* z: double (rows, L). */
static size_t scratch(lg_bound const *const bound, size_t const rows, int const explained)
{
    lg_lcf const *const model = bound->model;
    (void)explained;
    return rows * model->layer_count * sizeof(double);
}

static void score(lg_bound const *const bound, lg_input const *const input, double *const scores)
{
    lg_lcf_call const call
        = {.model = bound->model, .states = input->rows, .scores = scores, .z = input->scratch};
    input->kernels->lcf(&call);
}

/* The layers with the largest |z|. */
static size_t explain(lg_bound const *const bound, lg_input const *const input, size_t const row,
                      lg_reading const *const reading, lg_evidence *const evidence,
                      size_t const count)
{
    lg_lcf const *const model = bound->model;
    double const *const z = (double const *)input->scratch + row * model->layer_count;
    size_t used = 0;
    (void)reading;
    for (size_t l = 0; l < model->layer_count; l++) {
        lg_evidence const entry = {.value = z[l], .layer = (int)l + 1, .place = (int)l};
        used = lg_rank_evidence(evidence, used, count, entry);
    }
    return used;
}

lg_kind const lg_kind_lcf = {
    .name = "lcf",
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
