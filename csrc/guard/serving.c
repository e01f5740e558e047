/* What a program without the manifest has to know of a bundle: which view of a text each detector
 * was calibrated on, how it pools the tokens, and the model's size. The arrays serving/... have an
 * entry for each detector, in the order of their names. An archive that lacks them was frozen
 * before there were any, or holds just what a detector's fit returned: then each detector reads
 * what its kind does. */
#include <stdint.h> /* uint8_t */

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
    lg_status const status = lg_need_all(&binding, 4, expected, found);
    if (status != LG_OK)
        return status;
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
