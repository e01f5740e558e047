/* Computes the readings of one text from the states of its tokens, without copying them. */
#include "checks.h"
#include "readings.h"
#include "structs.h"

/* The states of the last unmasked token, one row per layer, by pointers. */
static lg_states last_token(lg_guard const *const guard, lg_score_call const *const call,
                            size_t const token)
{
    void const **const rows
        = (void const **)(void *)((char *)call->workspace + guard->layout.pointers);
    for (size_t l = 0; l < guard->last.states; l++)
        rows[l] = lg_row(&call->states, l, token);
    return (lg_states){.layers = rows,
                       .layer_count = guard->last.states,
                       .rows = 1,
                       .width = guard->last.width,
                       .dtype = call->states.dtype};
}

/* The mean over the unmasked tokens, of those states and elements that a detector reads. */
static lg_states pool_mean(lg_guard const *const guard, lg_kernels const *const kernels,
                           lg_score_call const *const call)
{
    char *const workspace = call->workspace;
    lg_pool_call pool = {
        .states = call->states,
        .mask = call->mask,
        .pooled = (float *)(void *)(workspace + guard->layout.mean),
        .workspace = (double *)(void *)(workspace + guard->layout.totals),
    };
    pool.states.layer_count = guard->mean.states;
    pool.states.width = guard->mean.width;
    kernels->pool_mean(&pool);
    return (lg_states){.base = pool.pooled,
                       .layer_stride = (ptrdiff_t)(guard->mean.width * sizeof(float)),
                       .layer_count = guard->mean.states,
                       .rows = 1,
                       .width = guard->mean.width,
                       .dtype = LG_F32};
}

static float const *gather(lg_guard const *const guard, lg_kernels const *const kernels,
                           lg_score_call const *const call)
{
    char *const workspace = call->workspace;
    float *const gathered = (float *)(void *)(workspace + guard->layout.gathered);
    lg_tokens const tokens = {call->states, call->mask, call->roles};
    lg_clear_gathered(guard, gathered);
    lg_gather(guard, kernels, call->chosen, &tokens, gathered, workspace);
    return gathered;
}

static lg_status check(lg_guard const *const guard, lg_score_call const *const call)
{
    lg_status status = lg_check_readings(guard, call->chosen, call->readings, call->reading_size);
    if (status != LG_OK)
        return status;
    if (!call->workspace)
        return LG_ERR_NULL;
    if (call->workspace_size < guard->layout.size)
        return LG_ERR_WORKSPACE;
    if (lg_misaligned(call->workspace, LG_ALIGNMENT))
        return LG_ERR_ALIGNMENT;
    status = lg_check_text(guard, &call->states, call->roles);
    return status == LG_OK ? lg_check_chosen(guard, call->chosen, call->final_norm) : status;
}

/* One more than the index of the last unmasked token; 0 if there is none. */
static size_t counted(lg_score_call const *const call)
{
    size_t last = call->states.rows;
    while (last && call->mask && !call->mask[last - 1])
        last--;
    return last;
}

static void score(lg_guard const *const guard, lg_kernels const *const kernels,
                  lg_score_call const *const call, size_t const last)
{
    lg_pooled pooled = {.kernels = kernels, .workspace = call->workspace};
    if (lg_pools(guard, call->chosen, LG_LAST))
        pooled.last = last_token(guard, call, last - 1);
    if (lg_pools(guard, call->chosen, LG_MEAN))
        pooled.mean = pool_mean(guard, kernels, call);
    if (guard->gathered_count)
        pooled.gathered = gather(guard, kernels, call);
    lg_read_all(guard, &pooled, call->chosen, call->readings, call->reading_size);
}

lg_status lg_score(lg_guard const *const guard, lg_score_call const *const argument)
{
    lg_score_call call;
    if (!guard)
        return LG_ERR_NULL;
    lg_status status = lg_copy_in(&call, sizeof call, argument);
    if (status == LG_OK)
        status = check(guard, &call);
    if (status != LG_OK)
        return status;
    size_t const last = counted(&call);
    if (!last)
        return LG_ERR_EMPTY;
    lg_run run;
    if ((status = lg_enter(&run)) != LG_OK)
        return status;
    score(guard, run.kernels, &call, last);
    lg_leave(&run);
    return LG_OK;
}
