/* The public calls of the probe: model check and windows. */
#include "checks.h"

lg_status lg_probe_check(lg_probe const *const model)
{
    if (!model || !model->layers || !model->weights)
        return LG_ERR_NULL;
    if (!model->chosen_count || !model->width || !model->window
        || model->window > LG_LONGEST_WINDOW)
        return LG_ERR_SHAPE;
    for (size_t c = 0; c < model->chosen_count; c++)
        if (model->layers[c] < 0 || (size_t)model->layers[c] >= model->states_needed)
            return LG_ERR_INDEX;
    return lg_too_large(model->chosen_count, model->width, sizeof(float)) ? LG_ERR_OVERFLOW : LG_OK;
}

size_t lg_windows_floats(lg_probe const *const model)
{
    return model ? LG_WINDOW_LOGITS + model->window : 0;
}

lg_status lg_windows(lg_windows_call const *const call)
{
    if (!call || !call->model || !call->windows)
        return LG_ERR_NULL;
    lg_status status = lg_check_states(&call->states);
    if (status != LG_OK)
        return status;
    if (call->states.layer_count < call->model->states_needed
        || call->states.width != call->model->width)
        return LG_ERR_SHAPE;
    lg_run run;
    if ((status = lg_enter(&run)) != LG_OK)
        return status;
    run.kernels->windows(call);
    lg_leave(&run);
    return LG_OK;
}
