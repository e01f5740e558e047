/* Opening, describing and closing a guard. */
#include <stdlib.h> /* calloc, free */

#include "checks.h"
#include "guard.h"
#include "sized.h"

static size_t const MOST_BYTES = (size_t)2 << 30;

/* What a call or stream may need, however little the archive holds. */
static size_t const LEAST_WORKING_BYTES = (size_t)64 << 20;

lg_kind const *const lg_kinds[LG_KINDS]
    = {&lg_kind_agent_siren, &lg_kind_lcf, &lg_kind_siren, &lg_kind_weightwatch};

static lg_status bind_detectors(lg_guard *const guard, lg_fault const *const fault)
{
    for (size_t k = 0; k < LG_KINDS; k++) {
        lg_binding const binding = {&guard->archive, lg_kinds[k]->name, &guard->memory, fault};
        if (!lg_has_group(&guard->archive, binding.group))
            continue;
        lg_detector *const detector = &guard->detectors[guard->detector_count++];
        detector->kind = lg_kinds[k];
        detector->view = lg_kinds[k]->view;
        detector->pooling = lg_kinds[k]->pooling;
        lg_status status = lg_limit_bind(&binding, &detector->limit);
        if (status == LG_OK)
            status = lg_kinds[k]->bind(&binding, detector);
        if (status != LG_OK)
            return status;
    }
    return guard->detector_count ? LG_OK
                                 : lg_refuse(fault, LG_ERR_PARAMETERS,
                                             "the archive holds no detector that scores texts");
}

static lg_status refuse_unknown(lg_archive const *const archive, lg_fault const *const fault)
{
    for (size_t i = 0; i < archive->count; i++)
        if (!archive->arrays[i].used)
            return lg_refuse(fault, LG_ERR_PARAMETERS,
                             "%s is unknown to this release; upgrade, or calibrate again",
                             archive->arrays[i].name);
    return LG_OK;
}

static lg_status fill(lg_guard *const guard, lg_source const *const source, size_t const max_bytes,
                      lg_fault const *const fault)
{
    lg_status status = lg_archive_read(&guard->archive, source, max_bytes, &guard->memory, fault);
    if (status == LG_OK)
        status = bind_detectors(guard, fault);
    if (status == LG_OK)
        status = lg_serving_bind(guard, fault);
    if (status == LG_OK)
        status = lg_guard_lay_out(guard, fault);
    size_t const working = max_bytes > LEAST_WORKING_BYTES ? max_bytes : LEAST_WORKING_BYTES;
    if (status == LG_OK && lg_stream_bytes(guard) > working)
        status = lg_refuse(fault, LG_ERR_LIMIT, "a stream of it would take %zu bytes",
                           lg_stream_bytes(guard));
    if (status == LG_OK)
        status = lg_decision_bind(guard, fault);
    return status == LG_OK ? refuse_unknown(&guard->archive, fault) : status;
}

/* What an opening works with: the caller's options, and where a message goes. */
static lg_status take_options(lg_open_options const *const given, size_t *const max_bytes,
                              lg_fault *const fault)
{
    lg_open_options options = {.max_bytes = 0};
    lg_status const status = given ? lg_take(&options, sizeof options, given) : LG_OK;
    *fault = (lg_fault){options.message, options.message_size};
    *max_bytes
        = options.max_bytes && options.max_bytes < MOST_BYTES ? options.max_bytes : MOST_BYTES;
    if (status == LG_OK && fault->message && fault->size)
        fault->message[0] = '\0';
    return status;
}

static lg_status open_source(lg_source const *const source, size_t const max_bytes,
                             lg_fault const *const fault, lg_guard **const guard)
{
    lg_guard *const made = calloc(1, sizeof *made);
    if (!made)
        return lg_refuse(fault, LG_ERR_MEMORY, "no memory for a guard");
    lg_fpenv const saved = lg_fpenv_enter(); /* the same parameters whoever opens it */
    lg_status const status = fill(made, source, max_bytes, fault);
    lg_fpenv_leave(saved);
    if (status == LG_OK)
        *guard = made;
    else
        lg_close(made);
    return status;
}

lg_status lg_open_memory(void const *const archive, size_t const size,
                         lg_open_options const *const options, lg_guard **const guard)
{
    if (!guard)
        return LG_ERR_NULL;
    *guard = NULL;
    size_t max_bytes;
    lg_fault fault;
    lg_status const status = take_options(options, &max_bytes, &fault);
    if (status != LG_OK)
        return status;
    if (!archive)
        return LG_ERR_NULL;
    lg_source const source = {.bytes = archive, .size = size};
    return open_source(&source, max_bytes, &fault, guard);
}

lg_status lg_open(char const *const path, lg_open_options const *const options,
                  lg_guard **const guard)
{
    if (!guard)
        return LG_ERR_NULL;
    *guard = NULL;
    size_t max_bytes;
    lg_fault fault;
    lg_source source;
    lg_status status = take_options(options, &max_bytes, &fault);
    if (status != LG_OK)
        return status;
    if (!path)
        return LG_ERR_NULL;
    status = lg_source_open(&source, path, &fault);
    if (status != LG_OK)
        return status;
    status = open_source(&source, max_bytes, &fault, guard);
    lg_source_close(&source);
    return status;
}

void lg_close(lg_guard *const guard)
{
    if (!guard)
        return;
    lg_release(&guard->memory);
    free(guard);
}

lg_status lg_guard_describe(lg_guard const *const guard, lg_guard_info *const info)
{
    if (!guard)
        return LG_ERR_NULL;
    lg_guard_info const found = {
        .detectors = guard->detector_count,
        .states = guard->all.states,
        .width = guard->all.width,
        .states_known = guard->states_known,
        .width_known = guard->width_known,
        .policy = guard->decision.policy,
        .domains = guard->decision.domain_count,
        .workspace = guard->layout.size,
        .stream_bytes = lg_stream_bytes(guard),
    };
    return lg_give(info, &found, sizeof found);
}

lg_status lg_detector_describe(lg_guard const *const guard, size_t const index,
                               lg_detector_info *const info)
{
    if (!guard)
        return LG_ERR_NULL;
    if (index >= guard->detector_count)
        return LG_ERR_INDEX;
    lg_detector const *const detector = &guard->detectors[index];
    lg_detector_info const found = {
        .name = detector->kind->name,
        .view = detector->view,
        .pooling = detector->pooling,
        .final_norm = detector->final_norm,
        .shadow = detector->shadow,
        .threshold = detector->limit.threshold,
        .clean_count = detector->limit.clean_count,
    };
    return lg_give(info, &found, sizeof found);
}

char const *lg_domain_name(lg_guard const *const guard, size_t const index)
{
    return guard && index < guard->decision.domain_count ? guard->decision.domains[index].name
                                                         : NULL;
}
