/* The public calls of WeightWatch: model check, extremes and excess. */
#include <limits.h> /* INT_MAX */

#include "checks.h"

lg_status lg_directions_check(lg_directions const *const model)
{
    if (!model || !model->layers || !model->offsets || !model->directions)
        return LG_ERR_NULL;
    size_t const size = lg_element_size(model->dtype);
    if (!size)
        return LG_ERR_DTYPE;
    if (!model->chosen_count || !model->width)
        return LG_ERR_SHAPE;
    for (size_t c = 0; c < model->chosen_count; c++)
        if (model->layers[c] < 0 || (size_t)model->layers[c] >= model->states_needed
            || model->offsets[0] != 0 || model->offsets[c + 1] < model->offsets[c])
            return LG_ERR_INDEX;
    size_t const count = (size_t)model->offsets[model->chosen_count];
    if (lg_too_large(count, model->width, size) || lg_too_large(count, 2 * LG_ROLES, sizeof(float)))
        return LG_ERR_OVERFLOW;
    return lg_misaligned(model->directions, size) ? LG_ERR_ALIGNMENT : LG_OK;
}

size_t lg_extremes_workspace(lg_directions const *const model, int const dtype)
{
    return !model || dtype == LG_F32 ? 0 : LG_TOKENS_AT_ONCE * model->width;
}

lg_status lg_extremes(lg_extremes_call const *const call)
{
    if (!call || !call->model || !call->extremes)
        return LG_ERR_NULL;
    lg_status status = lg_check_states(&call->states);
    if (status != LG_OK)
        return status;
    if (call->states.layer_count < call->model->states_needed
        || call->states.width != call->model->width)
        return LG_ERR_SHAPE;
    if (call->states.dtype != LG_F32 && !call->workspace)
        return LG_ERR_NULL;
    for (size_t token = 0; call->roles && token < call->states.rows; token++)
        if (call->roles[token] >= LG_ROLES)
            return LG_ERR_INDEX;
    lg_run run;
    if ((status = lg_enter(&run)) != LG_OK)
        return status;
    run.kernels->extremes(call);
    lg_leave(&run);
    return LG_OK;
}

lg_status lg_excess(lg_excess_call const *const call)
{
    if (!call || !call->ranges || !call->extremes || !call->scores || !call->worst)
        return LG_ERR_NULL;
    lg_ranges const *const ranges = call->ranges;
    if (!ranges->low || !ranges->high || !ranges->scale)
        return LG_ERR_NULL;
    if (!ranges->count)
        return LG_ERR_SHAPE;
    if (ranges->count > INT_MAX / LG_ROLES
        || lg_too_large(call->rows, ranges->count, 2 * LG_ROLES * sizeof(float)))
        return LG_ERR_OVERFLOW;
    lg_run run;
    lg_status const status = lg_enter(&run);
    if (status != LG_OK)
        return status;
    run.kernels->excess(call);
    lg_leave(&run);
    return LG_OK;
}
