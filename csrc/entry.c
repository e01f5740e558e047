/* The front door: every public scoring call. Checks, floating-point environment, dispatch. */
#include <limits.h> /* INT_MAX */
#include <stdint.h> /* uintptr_t, PTRDIFF_MAX, SIZE_MAX */

#include "fpenv.h"
#include "internal.h"

static int misaligned(void const *const address, size_t const size)
{
    return (uintptr_t)address % size != 0;
}

/* Whether count - 1 strides exceed `room` bytes; takes them from it if not. */
static int exceeds(size_t const count, ptrdiff_t const stride, size_t *const room)
{
    size_t const bytes = stride < 0 ? (size_t)0 - (size_t)stride : (size_t)stride;
    if (count < 2 || bytes == 0)
        return 0;
    if (count - 1 > *room / bytes)
        return 1;
    *room -= (count - 1) * bytes;
    return 0;
}

static lg_status check_states(lg_states const *const states)
{
    size_t const size = lg_element_size(states->dtype);
    if (!states->layers && !states->base)
        return LG_ERR_NULL;
    if (!size)
        return LG_ERR_DTYPE;
    if (!states->layer_count || !states->width)
        return LG_ERR_SHAPE;
    size_t room = PTRDIFF_MAX;
    if (states->width > room / size)
        return LG_ERR_OVERFLOW;
    room -= states->width * size;
    if (exceeds(states->rows, states->row_stride, &room)
        || (!states->layers && exceeds(states->layer_count, states->layer_stride, &room)))
        return LG_ERR_OVERFLOW;
    if (states->rows > 1 && states->row_stride % (ptrdiff_t)size != 0)
        return LG_ERR_ALIGNMENT;
    if (!states->layers)
        return misaligned(states->base, size) || states->layer_stride % (ptrdiff_t)size != 0
                   ? LG_ERR_ALIGNMENT
                   : LG_OK;
    for (size_t l = 0; l < states->layer_count; l++) {
        if (!states->layers[l])
            return LG_ERR_NULL;
        if (misaligned(states->layers[l], size))
            return LG_ERR_ALIGNMENT;
    }
    return LG_OK;
}

/* Whether rows * columns elements of `size` bytes cannot lie in memory. */
static int too_large(size_t const rows, size_t const columns, size_t const size)
{
    return columns && rows > (size_t)PTRDIFF_MAX / size / columns;
}

lg_status lg_lcf_score(lg_lcf_call const *const call)
{
    if (!call || !call->model || !call->scores || !call->z)
        return LG_ERR_NULL;
    lg_lcf const *const model = call->model;
    if (!model->mu || !model->inverse_sigma || !model->score_mean || !model->score_scale
        || !model->centre || !model->precision)
        return LG_ERR_NULL;
    lg_status status = check_states(&call->states);
    if (status != LG_OK)
        return status;
    if (call->states.layer_count - 1 != model->layer_count || !model->layer_count
        || call->states.width != model->width)
        return LG_ERR_SHAPE;
    if (too_large(model->layer_count, model->width, sizeof(float))
        || too_large(model->layer_count, model->layer_count, sizeof(double))
        || too_large(call->states.rows, model->layer_count, sizeof(double)))
        return LG_ERR_OVERFLOW;
    lg_kernels const *const kernels = lg_kernels_in_use(&status);
    if (!kernels)
        return status;
    lg_fpenv const saved = lg_fpenv_enter();
    kernels->lcf(call);
    lg_fpenv_leave(saved);
    return LG_OK;
}

static lg_status check_pool(lg_pool_call const *const call)
{
    if (!call || !call->pooled)
        return LG_ERR_NULL;
    lg_status const status = check_states(&call->states);
    if (status != LG_OK)
        return status;
    if (too_large(call->states.layer_count, call->states.width, sizeof(double)))
        return LG_ERR_OVERFLOW;
    for (size_t token = 0; token < call->states.rows; token++)
        if (!call->mask || call->mask[token])
            return LG_OK;
    return LG_ERR_EMPTY;
}

lg_status lg_pool_mean(lg_pool_call const *const call)
{
    lg_status status = check_pool(call);
    if (status != LG_OK)
        return status;
    if (!call->workspace)
        return LG_ERR_NULL;
    lg_kernels const *const kernels = lg_kernels_in_use(&status);
    if (!kernels)
        return status;
    lg_fpenv const saved = lg_fpenv_enter();
    kernels->pool_mean(call);
    lg_fpenv_leave(saved);
    return LG_OK;
}

lg_status lg_pool_last(lg_pool_call const *const call)
{
    lg_status status = check_pool(call);
    if (status != LG_OK)
        return status;
    lg_kernels const *const kernels = lg_kernels_in_use(&status);
    if (!kernels)
        return status;
    lg_fpenv const saved = lg_fpenv_enter();
    kernels->pool_last(call);
    lg_fpenv_leave(saved);
    return LG_OK;
}

static lg_status check_sums(lg_sums_call const *const call)
{
    if (!call || !call->sums)
        return LG_ERR_NULL;
    lg_status const status = check_states(&call->states);
    if (status != LG_OK)
        return status;
    if (too_large(call->states.layer_count, call->states.width, sizeof(double)))
        return LG_ERR_OVERFLOW;
    return call->mean && !call->counted ? LG_ERR_SHAPE : LG_OK;
}

lg_status lg_sums_add(lg_sums_call const *const call)
{
    lg_status status = check_sums(call);
    if (status != LG_OK)
        return status;
    lg_kernels const *const kernels = lg_kernels_in_use(&status);
    if (!kernels)
        return status;
    lg_fpenv const saved = lg_fpenv_enter();
    kernels->sums(call);
    lg_fpenv_leave(saved);
    return LG_OK;
}

/* Offsets first: they say how many neurons there are to be read. */
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
        if (too_large(model->widths[m + 1], model->widths[m], sizeof(float)))
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
    return too_large(at_once, widest, 2 * sizeof(float)) ? 0 : at_once * widest * 2;
}

lg_status lg_siren_score(lg_siren_call const *const call)
{
    if (!call || !call->model || !call->scores || !call->workspace)
        return LG_ERR_NULL;
    lg_status status = check_states(&call->states);
    if (status != LG_OK)
        return status;
    if (call->states.layer_count < call->model->states_needed
        || call->states.width < call->model->width_needed)
        return LG_ERR_SHAPE;
    size_t const needed = lg_siren_workspace(call->model, call->states.rows);
    if ((!needed && call->states.rows) || too_large(call->states.rows, 1, sizeof(double)))
        return LG_ERR_OVERFLOW;
    if (call->workspace_count < needed)
        return LG_ERR_WORKSPACE;
    lg_kernels const *const kernels = lg_kernels_in_use(&status);
    if (!kernels)
        return status;
    lg_fpenv const saved = lg_fpenv_enter();
    kernels->siren(call);
    lg_fpenv_leave(saved);
    return LG_OK;
}

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
    if (too_large(count, model->width, size) || too_large(count, 2 * LG_ROLES, sizeof(float)))
        return LG_ERR_OVERFLOW;
    return misaligned(model->directions, size) ? LG_ERR_ALIGNMENT : LG_OK;
}

size_t lg_extremes_workspace(lg_directions const *const model, int const dtype)
{
    return !model || dtype == LG_F32 ? 0 : LG_TOKENS_AT_ONCE * model->width;
}

lg_status lg_extremes(lg_extremes_call const *const call)
{
    if (!call || !call->model || !call->extremes)
        return LG_ERR_NULL;
    lg_status status = check_states(&call->states);
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
    lg_kernels const *const kernels = lg_kernels_in_use(&status);
    if (!kernels)
        return status;
    lg_fpenv const saved = lg_fpenv_enter();
    kernels->extremes(call);
    lg_fpenv_leave(saved);
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
        || too_large(call->rows, ranges->count, 2 * LG_ROLES * sizeof(float)))
        return LG_ERR_OVERFLOW;
    lg_status status;
    lg_kernels const *const kernels = lg_kernels_in_use(&status);
    if (!kernels)
        return status;
    lg_fpenv const saved = lg_fpenv_enter();
    kernels->excess(call);
    lg_fpenv_leave(saved);
    return LG_OK;
}
