/* Describes an open guard and its detectors. */
#include "layout.h"
#include "structs.h"

lg_status lg_guard_describe(lg_guard const *const guard, lg_guard_info *const info)
{
    if (!guard)
        return LG_ERR_NULL;
    lg_guard_info const fields = {
        .detectors = guard->detector_count,
        .states = guard->all.states,
        .width = guard->all.width,
        .states_known = guard->states_known,
        .width_known = guard->width_known,
        .policy = guard->decision.policy,
        .domains = guard->decision.domain_count,
        .workspace = guard->layout.size,
        .stream_bytes = guard->stream_layout.size,
    };
    return lg_copy_out(info, &fields, sizeof fields);
}

lg_status lg_detector_describe(lg_guard const *const guard, size_t const index,
                               lg_detector_info *const info)
{
    if (!guard)
        return LG_ERR_NULL;
    if (index >= guard->detector_count)
        return LG_ERR_INDEX;
    lg_detector const *const detector = &guard->detectors[index];
    lg_detector_info const fields = {
        .name = detector->kind->name,
        .view = detector->view,
        .pooling = detector->pooling,
        .final_norm = detector->final_norm,
        .shadow = detector->shadow,
        .threshold = detector->threshold.value,
        .clean_count = detector->threshold.clean_count,
    };
    return lg_copy_out(info, &fields, sizeof fields);
}

char const *lg_domain_name(lg_guard const *const guard, size_t const index)
{
    return guard && index < guard->decision.domain_count ? guard->decision.domains[index].name
                                                         : NULL;
}
