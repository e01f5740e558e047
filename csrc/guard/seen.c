/* From pooled states to readings; see the header. */
#include <math.h>   /* INFINITY */
#include <string.h> /* memcpy */

#include "checks.h"
#include "seen.h"
#include "sized.h"

lg_status lg_check_text(lg_guard const *const guard, lg_states const *const states,
                        unsigned char const *const roles)
{
    lg_status const status = lg_check_states(states);
    if (status != LG_OK)
        return status;
    if (states->layer_count < guard->all.states || states->width < guard->all.width
        || (guard->states_known && states->layer_count != guard->all.states)
        || (guard->width_known && states->width != guard->all.width))
        return LG_ERR_SHAPE;
    for (size_t token = 0; roles && token < states->rows; token++)
        if (roles[token] >= LG_ROLES)
            return LG_ERR_INDEX;
    return LG_OK;
}

int lg_pools(lg_guard const *const guard, unsigned char const *const chosen, int const pooling)
{
    for (size_t d = 0; d < guard->detector_count; d++)
        if (lg_is_chosen(chosen, d) && guard->detectors[d].pooling == pooling)
            return 1;
    return 0;
}

lg_status lg_check_chosen(lg_guard const *const guard, unsigned char const *const chosen,
                          int const final_norm)
{
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_detector const *const detector = &guard->detectors[d];
        if (lg_is_chosen(chosen, d)
            && (detector->pooling == LG_MLP_MEAN || detector->final_norm != (final_norm != 0)))
            return LG_ERR_POOLING;
    }
    return LG_OK;
}

lg_status lg_check_readings(lg_guard const *const guard, unsigned char const *const chosen,
                            lg_reading *const readings, size_t const reading_size)
{
    if (!readings)
        return LG_ERR_NULL;
    if (!lg_reading_fits(reading_size))
        return LG_ERR_STRUCT_SIZE;
    if (lg_misaligned(readings, _Alignof(lg_reading)))
        return LG_ERR_ALIGNMENT;
    for (size_t d = 0; d < guard->detector_count; d++)
        if (lg_is_chosen(chosen, d))
            lg_reading_at(readings, reading_size, d)->status = LG_UNREAD;
    return LG_OK;
}

void lg_clear_extremes(float *const extremes, size_t const count)
{
    size_t const directions = count / (2 * LG_ROLES);
    for (size_t i = 0; i < count; i++)
        extremes[i] = i / directions % 2 ? -INFINITY : INFINITY;
}

void lg_add_extremes(lg_guard const *const guard, lg_kernels const *const kernels,
                     lg_extremes_call call, char *const workspace)
{
    call.model = &guard->watched->directions;
    call.workspace = (float *)(void *)(workspace + guard->layout.wide);
    kernels->extremes(&call);
}

void lg_read_all(lg_guard const *const guard, lg_pooled const *const pooled,
                 unsigned char const *const chosen, lg_reading *const readings,
                 size_t const reading_size)
{
    lg_seen seen = {
        .kernels = pooled->kernels,
        .extremes = pooled->extremes,
        .z = (double *)(void *)(pooled->workspace + guard->layout.z),
        .network = (float *)(void *)(pooled->workspace + guard->layout.network),
        .network_count = guard->network_count,
    };
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_detector const *const detector = &guard->detectors[d];
        lg_reading reading = {.layer = -1};
        if (!lg_is_chosen(chosen, d))
            continue;
        seen.row = detector->pooling == LG_LAST ? pooled->last : pooled->mean;
        detector->kind->score(detector, &seen, &reading);
        lg_limit_apply(&detector->limit, &reading);
        memcpy(lg_reading_at(readings, reading_size, d), &reading, sizeof reading);
    }
}
