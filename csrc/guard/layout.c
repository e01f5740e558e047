/* What follows from a guard's detectors: how much of a text's states is read, and where a call's
 * intermediate values lie in its workspace. */
#include "checks.h"
#include "guard.h"

static void extend(lg_extent *const extent, lg_detector const *const detector)
{
    extent->states = detector->states > extent->states ? detector->states : extent->states;
    extent->width = detector->width > extent->width ? detector->width : extent->width;
}

/* Room for `bytes` behind what is there; where it starts. */
static size_t add(size_t *const size, size_t const bytes)
{
    size_t const place = *size;
    *size = lg_aligned(place + bytes);
    return place;
}

static void lay_out(lg_guard *const guard, size_t const depth)
{
    lg_layout *const to = &guard->layout;
    size_t size = 0;
    to->pointers = add(&size, guard->last.states * sizeof(void *));
    to->mean = add(&size, guard->mean.states * guard->mean.width * sizeof(float));
    to->totals = add(&size, guard->mean.width * sizeof(double));
    to->extremes = add(&size, guard->extremes_count * sizeof(float));
    size_t const wide
        = guard->watched ? lg_extremes_workspace(&guard->watched->directions, LG_F16) : 0;
    to->wide = add(&size, wide * sizeof(float));
    to->z = add(&size, depth * sizeof(double));
    to->network = add(&size, guard->network_count * sizeof(float));
    to->size = size;
}

lg_status lg_guard_lay_out(lg_guard *const guard, lg_fault const *const fault)
{
    size_t depth = 0;
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_detector const *const detector = &guard->detectors[d];
        extend(&guard->all, detector);
        guard->states_known |= detector->states_known;
        guard->width_known |= detector->width_known;
        if (detector->pooling == LG_LAST)
            extend(&guard->last, detector);
        else if (detector->pooling == LG_MEAN)
            extend(&guard->mean, detector);
        else if (detector->pooling == LG_EXTREMES) {
            guard->watched = &detector->model.watched;
            guard->extremes_count = 2 * LG_ROLES * guard->watched->ranges.count;
        }
        if (detector->kind == &lg_kind_lcf)
            depth = detector->model.lcf.layer_count;
        else if (detector->kind != &lg_kind_weightwatch) {
            size_t const needed = lg_siren_workspace(&detector->model.siren, 1);
            guard->network_count = needed > guard->network_count ? needed : guard->network_count;
        }
    }
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_detector const *const detector = &guard->detectors[d];
        if ((detector->states_known && detector->states != guard->all.states)
            || (detector->width_known && detector->width != guard->all.width))
            return lg_refuse(fault, LG_ERR_PARAMETERS,
                             "the detectors were calibrated on models of different sizes; "
                             "calibrate again");
    }
    if (lg_too_large(guard->all.states, guard->all.width, 64))
        return lg_refuse(fault, LG_ERR_PARAMETERS,
                         "the detectors read states that no memory holds");
    lay_out(guard, depth);
    return LG_OK;
}
