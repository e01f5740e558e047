/* The public calls of SIREN: model check, workspace size and scoring. */
#include "checks.h"

/* Checks the offsets first: they give the number of neurons. */
static lg_status check_siren_indices(lg_siren const *const model)
{
    int const *const offsets = model->neuron_offsets;
    for (size_t c = 0; c < model->chosen_count; c++)
        if (model->layers[c] < 0 || (size_t)model->layers[c] >= model->states_needed
            || offsets[0] != 0 || offsets[c + 1] < offsets[c])
            return LG_ERR_INDEX;
    if (model->widths[0] != (size_t)offsets[model->chosen_count])
        return LG_ERR_SHAPE;
    for (size_t i = 0; i < model->widths[0]; i++)
        if (model->neurons[i] < 0 || (size_t)model->neurons[i] >= model->width_needed)
            return LG_ERR_INDEX;
    return LG_OK;
}

lg_status lg_siren_check(lg_siren const *const model)
{
    if (!model || !model->layers || !model->neuron_offsets || !model->neurons || !model->alpha
        || !model->widths || !model->weights || !model->biases)
        return LG_ERR_NULL;
    if (!model->chosen_count || !model->linear_count)
        return LG_ERR_SHAPE;
    lg_status const status = check_siren_indices(model);
    if (status != LG_OK)
        return status;
    if (model->widths[model->linear_count] != 2)
        return LG_ERR_SHAPE;
    for (size_t m = 0; m < model->linear_count; m++) {
        if (!model->widths[m])
            return LG_ERR_SHAPE;
        if (lg_too_large(model->widths[m + 1], model->widths[m], sizeof(float)))
            return LG_ERR_OVERFLOW;
        if (!model->weights[m] || !model->biases[m])
            return LG_ERR_NULL;
    }
    return LG_OK;
}

size_t lg_siren_workspace(lg_siren const *const model, size_t const rows)
{
    if (!model || !model->widths)
        return 0;
    size_t widest = 2;
    for (size_t m = 0; m < model->linear_count; m++)
        if (model->widths[m] > widest)
            widest = model->widths[m];
    size_t const at_once = rows < LG_SIREN_ROWS ? rows : (size_t)LG_SIREN_ROWS;
    return lg_too_large(at_once, widest, 2 * sizeof(float)) ? 0 : at_once * widest * 2;
}

size_t lg_shares_workspace(lg_siren const *const model)
{
    size_t sum = 0, widest = 0;
    for (size_t m = 0; m < model->linear_count; m++) {
        sum += model->widths[m];
        widest = model->widths[m] > widest ? model->widths[m] : widest;
    }
    return sum + 2 * widest;
}

lg_status lg_siren_score(lg_siren_call const *const call)
{
    if (!call || !call->model || !call->scores || !call->workspace)
        return LG_ERR_NULL;
    lg_status status = lg_check_states(&call->states);
    if (status != LG_OK)
        return status;
    if (call->states.layer_count < call->model->states_needed
        || call->states.width < call->model->width_needed)
        return LG_ERR_SHAPE;
    size_t const needed = lg_siren_workspace(call->model, call->states.rows);
    if ((!needed && call->states.rows) || lg_too_large(call->states.rows, 1, sizeof(double)))
        return LG_ERR_OVERFLOW;
    if (call->workspace_count < needed)
        return LG_ERR_WORKSPACE;
    lg_run run;
    if ((status = lg_enter(&run)) != LG_OK)
        return status;
    run.kernels->siren(call);
    lg_leave(&run);
    return LG_OK;
}
