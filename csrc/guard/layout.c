/* Computes sizes and layouts from a guard's detectors; see the header. */
#include "layout.h"
#include "checks.h"

static void extend(lg_extent *const extent, lg_bound const *const bound)
{
    extent->states = bound->states > extent->states ? bound->states : extent->states;
    extent->width = bound->width > extent->width ? bound->width : extent->width;
}

/* Reserves `bytes` after the existing parts and returns their offset. */
static size_t add(size_t *const size, size_t const bytes)
{
    size_t const place = *size;
    *size = lg_aligned(place + bytes);
    return place;
}

/* Sets how many states, and how much of each, every pooling reads. */
static void set_extents(lg_guard *const guard)
{
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_detector *const detector = &guard->detectors[d];
        extend(&guard->all, &detector->bound);
        guard->states_known |= detector->bound.states_known;
        guard->width_known |= detector->bound.width_known;
        if (detector->pooling == LG_LAST)
            extend(&guard->last, &detector->bound);
        else if (detector->pooling == LG_MEAN)
            extend(&guard->mean, &detector->bound);
        detector->gathered = guard->gathered_count;
        guard->gathered_count += lg_gathered_of(detector);
    }
}

static void lay_out_workspace(lg_guard *const guard)
{
    lg_layout *const to = &guard->layout;
    size_t size = 0, wide = 0, scratch = 0;
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_detector const *const detector = &guard->detectors[d];
        size_t const widened = lg_extremes_workspace(detector->bound.directions, LG_F16);
        size_t const own
            = detector->kind->scratch(&detector->bound, 1, detector->kind->explains_cheaply);
        wide = widened > wide ? widened : wide;
        scratch = own > scratch ? own : scratch;
    }
    to->pointers = add(&size, guard->last.states * sizeof(void *));
    to->mean = add(&size, guard->mean.states * guard->mean.width * sizeof(float));
    to->totals = add(&size, guard->mean.width * sizeof(double));
    to->gathered = add(&size, guard->gathered_count * sizeof(float));
    to->wide = add(&size, wide * sizeof(float));
    to->scratch = add(&size, scratch);
    to->size = size;
}

static void lay_out_stream(lg_guard *const guard)
{
    lg_stream_layout *const to = &guard->stream_layout;
    size_t size = lg_aligned(sizeof(lg_stream));
    to->last = add(&size, guard->last.states * guard->last.width * sizeof(float));
    to->sums = add(&size, guard->mean.states * guard->mean.width * sizeof(double));
    to->gathered = add(&size, guard->gathered_count * sizeof(float));
    to->workspace = add(&size, guard->layout.size);
    to->size = to->workspace + guard->layout.size;
}

lg_status lg_lay_out(lg_guard *const guard, lg_faults *const faults)
{
    set_extents(guard);
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_bound const *const bound = &guard->detectors[d].bound;
        if ((bound->states_known && bound->states != guard->all.states)
            || (bound->width_known && bound->width != guard->all.width))
            return lg_refuse(faults, LG_ERR_PARAMETERS,
                             "the detectors were calibrated on models of different sizes; "
                             "calibrate again");
    }
    if (lg_too_large(guard->all.states, guard->all.width, 64))
        return lg_refuse(
            faults, LG_ERR_PARAMETERS,
            "the detectors read states that exceed the address space; calibrate again");
    lay_out_workspace(guard);
    lay_out_stream(guard);
    return LG_OK;
}
