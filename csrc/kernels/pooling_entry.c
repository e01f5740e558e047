/* The public calls of pooling and running sums: they check, then call the kernel. */
#include "checks.h"

static lg_status check_pool(lg_pool_call const *const call)
{
    if (!call || !call->pooled)
        return LG_ERR_NULL;
    lg_status const status = lg_check_states(&call->states);
    if (status != LG_OK)
        return status;
    if (lg_too_large(call->states.layer_count, call->states.width, sizeof(double)))
        return LG_ERR_OVERFLOW;
    for (size_t token = 0; token < call->states.rows; token++)
        if (!call->mask || call->mask[token])
            return LG_OK;
    return LG_ERR_EMPTY;
}

static lg_status pool(lg_pool_call const *const call, int const mean)
{
    lg_status status = check_pool(call);
    if (status != LG_OK)
        return status;
    if (mean && !call->workspace)
        return LG_ERR_NULL;
    lg_run run;
    if ((status = lg_enter(&run)) != LG_OK)
        return status;
    if (mean)
        run.kernels->pool_mean(call);
    else
        run.kernels->pool_last(call);
    lg_leave(&run);
    return LG_OK;
}

lg_status lg_pool_mean(lg_pool_call const *const call)
{
    return pool(call, 1);
}

lg_status lg_pool_last(lg_pool_call const *const call)
{
    return pool(call, 0);
}

static lg_status check_sums(lg_sums_call const *const call)
{
    if (!call || !call->sums)
        return LG_ERR_NULL;
    lg_status const status = lg_check_states(&call->states);
    if (status != LG_OK)
        return status;
    if (lg_too_large(call->states.layer_count, call->states.width, sizeof(double)))
        return LG_ERR_OVERFLOW;
    return call->mean && !call->counted ? LG_ERR_SHAPE : LG_OK;
}

lg_status lg_sums_add(lg_sums_call const *const call)
{
    lg_status status = check_sums(call);
    if (status != LG_OK)
        return status;
    lg_run run;
    if ((status = lg_enter(&run)) != LG_OK)
        return status;
    run.kernels->sums(call);
    lg_leave(&run);
    return LG_OK;
}
