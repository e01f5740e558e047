/* LCF from its frozen arrays, and the reading of one text. */
#include <math.h> /* fabs, isfinite */

#include "detector.h"

/* sigma becomes its inverse where it lies: each rounded to float32 once. */
static lg_status invert(lg_binding const *const binding, float *const sigma, size_t const count)
{
    int finite = 1;
    for (size_t i = 0; i < count; i++) {
        sigma[i] = (float)(1.0 / (double)sigma[i]);
        finite &= isfinite(sigma[i]) != 0;
    }
    return finite ? LG_OK
                  : lg_unfit(binding, "sigma",
                             "has a value below 3e-39, whose inverse no float32 holds");
}

static lg_status bind(lg_binding const *const binding, lg_detector *const detector)
{
    lg_expected const first
        = {.name = "mu", .type = LG_TYPE_F32, .rank = 2, .sides = {LG_ANY_SIDE, LG_ANY_SIDE}};
    lg_array const *mu;
    lg_status status = lg_need(binding, &first, &mu);
    if (status != LG_OK)
        return status;
    size_t const depth = mu->npy.sides[0], width = mu->npy.sides[1];
    if (!depth || !width)
        return lg_unfit(binding, "mu", "is empty; expected [layers, width]");
    lg_expected const others[] = {
        {.name = "sigma", .type = LG_TYPE_F32, .rank = 2, .sides = {depth, width}, .positive = 1},
        {.name = "score_mean", .type = LG_TYPE_F64, .rank = 1, .sides = {depth}},
        {.name = "score_scale", .type = LG_TYPE_F64, .rank = 1, .sides = {depth}, .positive = 1},
        {.name = "centre", .type = LG_TYPE_F64, .rank = 1, .sides = {depth}},
        {.name = "precision", .type = LG_TYPE_F64, .rank = 2, .sides = {depth, depth}},
    };
    enum { COUNT = sizeof others / sizeof *others };
    lg_array const *found[COUNT];
    status = lg_need_all(binding, COUNT, others, found);
    if (status == LG_OK)
        status = invert(binding, found[0]->data, found[0]->count);
    if (status != LG_OK)
        return status;
    detector->model.lcf = (lg_lcf){
        .layer_count = depth,
        .width = width,
        .mu = mu->data,
        .inverse_sigma = found[0]->data,
        .score_mean = found[1]->data,
        .score_scale = found[2]->data,
        .centre = found[3]->data,
        .precision = found[4]->data,
    };
    detector->states = depth + 1;
    detector->width = width;
    detector->states_known = detector->width_known = 1;
    return LG_OK;
}

/* The evidence is the layer whose z lies farthest from zero; the first, where several do. */
static void score(lg_detector const *const detector, lg_seen const *const seen,
                  lg_reading *const reading)
{
    lg_lcf const *const model = &detector->model.lcf;
    lg_lcf_call const call
        = {.model = model, .states = seen->row, .scores = &reading->score, .z = seen->z};
    seen->kernels->lcf(&call);
    if (!isfinite(reading->score))
        return;
    size_t farthest = 0;
    for (size_t l = 1; l < model->layer_count; l++)
        if (fabs(seen->z[l]) > fabs(seen->z[farthest]))
            farthest = l;
    reading->layer = (int)farthest + 1;
    reading->evidence = seen->z[farthest];
}

lg_kind const lg_kind_lcf = {"lcf", LG_PROMPT, LG_LAST, bind, score};
