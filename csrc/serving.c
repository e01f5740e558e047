/* What a program without the manifest has to know of a bundle: which view of a text each detector
 * was calibrated on, how it pools the tokens, and the model's size. The arrays serving/... have an
 * entry for each detector, in the order of their names. An archive that lacks them was frozen
 * before there were any, or holds just what a detector's fit returned: then each detector reads
 * what its kind does. */
#include <stdint.h> /* uint8_t */

#include "checks.h"
#include "guard.h"

/* Whether a kind can read what a pooling gives. */
static int can_read(lg_kind const *const kind, int const pooling)
{
    return pooling <= LG_EXTREMES && (kind->pooling == LG_EXTREMES) == (pooling == LG_EXTREMES);
}

static lg_status bind_model(lg_guard *const guard, lg_binding const *const binding,
                            int const model[2])
{
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_detector const *const detector = &guard->detectors[d];
        if (model[0] < 1 || model[1] < 1 || detector->states > (size_t)model[0] + 1
            || detector->width > (size_t)model[1]
            || (detector->states_known && detector->states != (size_t)model[0] + 1)
            || (detector->width_known && detector->width != (size_t)model[1]))
            return lg_unfit(binding, "model", "is of another size than the detectors");
    }
    guard->all = (lg_extent){(size_t)model[0] + 1, (size_t)model[1]};
    guard->states_known = guard->width_known = 1;
    return LG_OK;
}

lg_status lg_serving_bind(lg_guard *const guard, lg_fault const *const fault)
{
    lg_binding const binding = {&guard->archive, "serving", &guard->memory, fault};
    if (!lg_has_group(&guard->archive, binding.group))
        return LG_OK;
    size_t const count = guard->detector_count;
    lg_expected const expected[] = {
        {.name = "views", .type = LG_TYPE_U8, .rank = 1, .sides = {count}},
        {.name = "poolings", .type = LG_TYPE_U8, .rank = 1, .sides = {count}},
        {.name = "final_norm", .type = LG_TYPE_BOOL, .rank = 1, .sides = {count}},
        {.name = "model", .type = LG_TYPE_I32, .rank = 1, .sides = {2}},
    };
    lg_array const *found[4];
    for (size_t i = 0; i < 4; i++) {
        lg_status const status = lg_need(&binding, &expected[i], &found[i]);
        if (status != LG_OK)
            return status;
    }
    uint8_t const *const views = found[0]->data, *const poolings = found[1]->data;
    for (size_t d = 0; d < count; d++) {
        lg_detector *const detector = &guard->detectors[d];
        if (views[d] > LG_TRAJECTORY || !can_read(detector->kind, poolings[d]))
            return lg_unfit(&binding, "poolings", "or views has what a detector cannot read");
        detector->view = views[d];
        detector->pooling = poolings[d];
        detector->final_norm = ((uint8_t const *)found[2]->data)[d] != 0;
    }
    return bind_model(guard, &binding, found[3]->data);
}

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
