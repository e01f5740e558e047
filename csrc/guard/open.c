/* Opening and closing a guard. */
#include <stdlib.h> /* calloc, free */

#include "checks.h"
#include "frozen.h"
#include "layout.h"
#include "structs.h"

static size_t const MOST_BYTES = (size_t)2 << 30;

/* Memory that a call or a stream may always need, even for a small archive. */
static size_t const LEAST_WORKING_BYTES = (size_t)64 << 20;

/* The source of the arrays and the destination of faults. */
typedef struct opening {
    lg_source const *source; /* of an archive; or null: `call` has arrays */
    lg_open_call const *call;
    size_t max_bytes;
    lg_faults faults;
} opening;

/* The first fault is written to `message`, all of them to `list`. */
static opening begin(size_t const max_bytes, char *const message, size_t const message_size,
                     char *const list, size_t const list_size)
{
    if (message && message_size)
        message[0] = '\0';
    if (list && list_size)
        list[0] = '\0';
    return (opening){
        .max_bytes = max_bytes && max_bytes < MOST_BYTES ? max_bytes : MOST_BYTES,
        .faults
        = {.message = message, .message_size = message_size, .list = list, .list_size = list_size},
    };
}

/* Binds one detector of the archive: first by its tables, then by its own checks. */
static void bind_detector(lg_guard *const guard, lg_kind const *const kind, size_t const layers,
                          size_t const width, lg_faults *const faults)
{
    lg_binding binding = lg_binding_of(&guard->archive, kind->name, &guard->memory, faults);
    lg_detector *const detector = &guard->detectors[guard->detector_count++];
    *detector = (lg_detector){
        .kind = kind, .view = kind->view, .pooling = kind->pooling, .shadow = kind->never_decides};
    lg_set_length(&binding, 'L', layers);
    lg_set_length(&binding, 'D', width);
    size_t const before = faults->count;
    lg_check_parameters(&binding, kind->parameters, kind->parameter_count);
    lg_check_parameters(&binding, lg_calibrated, LG_CALIBRATED);
    if (faults->count > before)
        return;
    detector->threshold = lg_threshold_of(&binding);
    kind->bind(&binding, &detector->bound);
}

static int needs(opening const *const opening, char const *const detector)
{
    return opening->call && opening->call->detector
           && strcmp(opening->call->detector, detector) == 0;
}

static void bind_detectors(lg_guard *const guard, opening *const opening)
{
    size_t layers = LG_UNKNOWN, width = LG_UNKNOWN;
    lg_serving_model(&guard->archive, &layers, &width);
    if (opening->call && opening->call->layers)
        layers = opening->call->layers;
    if (opening->call && opening->call->width)
        width = opening->call->width;
    for (size_t k = 0; k < lg_kind_count; k++)
        if (lg_has_group(&guard->archive, lg_kinds[k]->name) || needs(opening, lg_kinds[k]->name))
            bind_detector(guard, lg_kinds[k], layers, width, &opening->faults);
    if (!guard->detector_count)
        lg_refuse(&opening->faults, LG_ERR_PARAMETERS,
                  "the archive holds no detector; calibrate first");
}

/* Adds a fault for every unused array. Unless `whole`, serving/ and decision/ were not checked and are
 * left out. */
static void refuse_unknown(lg_archive const *const archive, int const whole,
                           lg_faults *const faults)
{
    for (size_t i = 0; i < archive->count; i++) {
        lg_array const *const array = &archive->arrays[i];
        int const unchecked = !whole
                              && (strncmp(array->name, "serving/", 8) == 0
                                  || strncmp(array->name, "decision/", 9) == 0);
        if (!array->used && !unchecked)
            lg_refuse(faults, LG_ERR_PARAMETERS,
                      "%s is unknown to this release; upgrade, or calibrate again", array->name);
    }
}

static lg_status read_arrays(lg_guard *const guard, opening *const opening)
{
    return opening->source
               ? lg_archive_read(&guard->archive, opening->source, opening->max_bytes,
                                 &guard->memory, &opening->faults)
               : lg_archive_copy(&guard->archive, opening->call->arrays, opening->call->array_count,
                                 &guard->memory, &opening->faults);
}

static void fill(lg_guard *const guard, opening *const opening)
{
    lg_faults *const faults = &opening->faults;
    if (read_arrays(guard, opening) != LG_OK)
        return;
    bind_detectors(guard, opening);
    int const whole = !faults->count;
    if (whole && lg_serving_bind(guard, faults) == LG_OK && lg_lay_out(guard, faults) == LG_OK) {
        size_t const working
            = opening->max_bytes > LEAST_WORKING_BYTES ? opening->max_bytes : LEAST_WORKING_BYTES;
        if (guard->stream_layout.size > working)
            lg_refuse(faults, LG_ERR_LIMIT, "a stream of it needs %zu bytes; expected at most %zu",
                      guard->stream_layout.size, working);
        else
            lg_decision_bind(guard, faults);
    }
    refuse_unknown(&guard->archive, whole && !faults->count, faults);
}

static lg_status open_guard(opening *const opening, lg_guard **const guard)
{
    lg_guard *const made = calloc(1, sizeof *made);
    if (!made)
        return lg_refuse(&opening->faults, LG_ERR_MEMORY, "no memory for a guard");
    lg_fpenv const saved = lg_fpenv_enter(); /* parameters do not depend on the caller's mode */
    fill(made, opening);
    lg_fpenv_leave(saved);
    if (opening->faults.count)
        lg_close(made);
    else
        *guard = made;
    return opening->faults.status;
}

static lg_status open_path(opening *const opening, char const *const path, lg_guard **const guard)
{
    lg_source source;
    lg_status status = lg_source_open(&source, path, &opening->faults);
    if (status != LG_OK)
        return status;
    opening->source = &source;
    status = open_guard(opening, guard);
    lg_source_close(&source);
    return status;
}

static lg_status open_memory(opening *const opening, void const *const archive, size_t const size,
                             lg_guard **const guard)
{
    lg_source const source = {.bytes = archive, .size = size};
    opening->source = &source;
    return open_guard(opening, guard);
}

/* Checks the arguments that all calls have; *guard is null until a guard is open. */
static lg_status read_options(lg_open_options const *const argument, lg_guard **const guard,
                              opening *const opening)
{
    if (!guard)
        return LG_ERR_NULL;
    *guard = NULL;
    lg_open_options options = {.max_bytes = 0};
    lg_status const status = argument ? lg_copy_in(&options, sizeof options, argument) : LG_OK;
    if (status == LG_OK)
        *opening = begin(options.max_bytes, options.message, options.message_size, NULL, 0);
    return status;
}

lg_status lg_open_memory(void const *const archive, size_t const size,
                         lg_open_options const *const options, lg_guard **const guard)
{
    opening opening;
    lg_status const status = read_options(options, guard, &opening);
    if (status != LG_OK)
        return status;
    return archive ? open_memory(&opening, archive, size, guard) : LG_ERR_NULL;
}

lg_status lg_open(char const *const path, lg_open_options const *const options,
                  lg_guard **const guard)
{
    opening opening;
    lg_status const status = read_options(options, guard, &opening);
    if (status != LG_OK)
        return status;
    return path ? open_path(&opening, path, guard) : LG_ERR_NULL;
}

lg_status lg_open_checked(lg_open_call *const argument, lg_guard **const guard)
{
    lg_open_call call;
    if (!guard)
        return LG_ERR_NULL;
    *guard = NULL;
    lg_status status = lg_copy_in(&call, sizeof call, argument);
    if (status != LG_OK)
        return status;
    opening opening = begin(call.max_bytes, NULL, 0, call.faults, call.faults_size);
    opening.call = &call;
    if (call.path)
        status = open_path(&opening, call.path, guard);
    else if (call.archive)
        status = open_memory(&opening, call.archive, call.archive_size, guard);
    else if (call.arrays)
        status = open_guard(&opening, guard);
    else
        status = LG_ERR_NULL;
    call.fault_count = opening.faults.count;
    call.faults_needed = opening.faults.needed;
    lg_status const written = lg_copy_out(argument, &call, sizeof call);
    return status == LG_OK ? written : status;
}

void lg_close(lg_guard *const guard)
{
    if (!guard)
        return;
    lg_free_all(&guard->memory);
    free(guard);
}
