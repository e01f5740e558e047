/* Computes readings from pooled states; see the header. */
#include <math.h>   /* INFINITY */
#include <string.h> /* memcpy */

#include "checks.h"
#include "readings.h"
#include "structs.h"

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
            && (detector->pooling == LG_MLP_MEAN || detector->pooling == LG_DELTA
                || detector->final_norm != (final_norm != 0)))
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

void lg_clear_gathered(lg_guard const *const guard, float *const gathered)
{
    for (size_t d = 0; d < guard->detector_count; d++) {
        size_t const count = lg_gathered_of(&guard->detectors[d]);
        float *const own = gathered + guard->detectors[d].gathered;
        int const extremes = guard->detectors[d].bound.directions != NULL;
        for (size_t i = 0; i < count; i++)
            own[i] = !extremes ? 0.0f : i / (count / (2 * LG_ROLES)) % 2 ? -INFINITY : INFINITY;
    }
}

void lg_gather(lg_guard const *const guard, lg_kernels const *const kernels,
               unsigned char const *const chosen, lg_tokens const *const tokens,
               float *const gathered, char *const workspace)
{
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_bound const *const bound = &guard->detectors[d].bound;
        float *const own = gathered + guard->detectors[d].gathered;
        if (!lg_is_chosen(chosen, d))
            continue;
        if (bound->directions) {
            lg_extremes_call const call
                = {.model = bound->directions,
                   .states = tokens->states,
                   .mask = tokens->mask,
                   .roles = tokens->roles,
                   .extremes = own,
                   .workspace = (float *)(void *)(workspace + guard->layout.wide)};
            kernels->extremes(&call);
        } else if (bound->probe) {
            lg_windows_call const call = {.model = bound->probe,
                                          .states = tokens->states,
                                          .mask = tokens->mask,
                                          .windows = own};
            kernels->windows(&call);
        }
    }
}

static lg_states gathered_rows(lg_detector const *const detector, float const *const gathered)
{
    return (lg_states){.base = gathered,
                       .layer_count = 1,
                       .rows = 1,
                       .width = lg_gathered_of(detector),
                       .dtype = LG_F32};
}

void lg_read_all(lg_guard const *const guard, lg_pooled const *const pooled,
                 unsigned char const *const chosen, lg_reading *const readings,
                 size_t const reading_size)
{
    lg_input input
        = {.kernels = pooled->kernels, .scratch = pooled->workspace + guard->layout.scratch};
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_detector const *const detector = &guard->detectors[d];
        lg_reading reading = {.layer = -1};
        lg_evidence first;
        if (!lg_is_chosen(chosen, d))
            continue;
        input.rows = lg_gathered_of(detector)
                         ? gathered_rows(detector, pooled->gathered + detector->gathered)
                     : detector->pooling == LG_LAST ? pooled->last
                                                    : pooled->mean;
        detector->kind->score(&detector->bound, &input, &reading.score);
        lg_threshold_apply(&detector->threshold, &reading);
        if (reading.status == LG_READ && detector->kind->explains_cheaply
            && detector->kind->explain(&detector->bound, &input, 0, &reading, &first, 1)) {
            reading.layer = first.layer;
            reading.place = first.place;
            reading.evidence = first.value;
        }
        memcpy(lg_reading_at(readings, reading_size, d), &reading, sizeof reading);
    }
}
