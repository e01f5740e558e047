/* The public call of LCF: checks its arguments, then calls the kernel. */
#include "checks.h"

lg_status lg_lcf_score(lg_lcf_call const *const call)
{
    if (!call || !call->model || !call->scores || !call->z)
        return LG_ERR_NULL;
    lg_lcf const *const model = call->model;
    if (!model->mu || !model->inverse_sigma || !model->score_mean || !model->score_scale
        || !model->centre || !model->precision)
        return LG_ERR_NULL;
    lg_status status = lg_check_states(&call->states);
    if (status != LG_OK)
        return status;
    if (call->states.layer_count - 1 != model->layer_count || !model->layer_count
        || call->states.width != model->width)
        return LG_ERR_SHAPE;
    if (lg_too_large(model->layer_count, model->width, sizeof(float))
        || lg_too_large(model->layer_count, model->layer_count, sizeof(double))
        || lg_too_large(call->states.rows, model->layer_count, sizeof(double)))
        return LG_ERR_OVERFLOW;
    lg_run run;
    if ((status = lg_enter(&run)) != LG_OK)
        return status;
    run.kernels->lcf(call);
    lg_leave(&run);
    return LG_OK;
}
