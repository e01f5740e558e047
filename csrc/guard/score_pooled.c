/* Computes one detector's readings of many texts from their pooled states. */
#include <string.h> /* memcpy */

#include "checks.h"
#include "layout.h"
#include "structs.h"

/* Bytes of the rows' scores; the detector's scratch memory follows them. */
static size_t score_bytes(size_t const rows)
{
    return lg_aligned(rows * sizeof(double));
}

/* Floats of a row that is not pooled states: extremes, windows or added lengths; else 0. */
static size_t row_of(lg_detector const *const detector)
{
    return detector->bound.row ? detector->bound.row : lg_gathered_of(detector);
}

/* The rows that a detector reads. Rows that are not pooled states have one layer. */
static lg_pooled_info takes(lg_detector const *const detector)
{
    size_t const own = row_of(detector);
    if (own)
        return (lg_pooled_info){.states = 1, .width = own, .states_known = 1, .width_known = 1};
    return (lg_pooled_info){.states = detector->bound.states,
                            .width = detector->bound.width,
                            .states_known = detector->bound.states_known,
                            .width_known = detector->bound.width_known};
}

lg_status lg_pooled_describe(lg_guard const *const guard, size_t const index, size_t const rows,
                             lg_pooled_info *const info)
{
    if (!guard)
        return LG_ERR_NULL;
    if (index >= guard->detector_count)
        return LG_ERR_INDEX;
    lg_detector const *const detector = &guard->detectors[index];
    if (lg_too_large(rows, guard->all.states, 64))
        return LG_ERR_OVERFLOW;
    lg_pooled_info fields = takes(detector);
    fields.workspace = score_bytes(rows) + detector->kind->scratch(&detector->bound, rows, 1);
    return lg_copy_out(info, &fields, sizeof fields);
}

static lg_status check_rows(lg_detector const *const detector, lg_states const *const rows)
{
    lg_status const status = lg_check_states(rows);
    if (status != LG_OK)
        return status;
    lg_pooled_info const expected = takes(detector);
    if (rows->layer_count < expected.states || rows->width < expected.width
        || (expected.states_known && rows->layer_count != expected.states)
        || (expected.width_known && rows->width != expected.width))
        return LG_ERR_SHAPE;
    return row_of(detector) && rows->dtype != LG_F32 ? LG_ERR_DTYPE : LG_OK;
}

static lg_status check(lg_guard const *const guard, lg_pooled_call const *const call)
{
    if (call->detector >= guard->detector_count)
        return LG_ERR_INDEX;
    lg_detector const *const detector = &guard->detectors[call->detector];
    lg_status const status = check_rows(detector, &call->rows);
    if (status != LG_OK)
        return status;
    if (!call->readings || !call->workspace || (!call->evidence && call->evidence_count))
        return LG_ERR_NULL;
    if (!lg_reading_fits(call->reading_size))
        return LG_ERR_STRUCT_SIZE;
    size_t const rows = call->rows.rows;
    if (lg_too_large(rows, guard->all.states, 64) || lg_too_large(rows, 1, call->reading_size)
        || lg_too_large(rows, call->evidence_count, sizeof(lg_evidence)))
        return LG_ERR_OVERFLOW;
    if (lg_misaligned(call->workspace, LG_ALIGNMENT)
        || lg_misaligned(call->readings, _Alignof(lg_reading))
        || lg_misaligned(call->evidence, _Alignof(lg_evidence)))
        return LG_ERR_ALIGNMENT;
    size_t const needed = score_bytes(rows) + detector->kind->scratch(&detector->bound, rows, 1);
    return call->workspace_size < needed ? LG_ERR_WORKSPACE : LG_OK;
}

/* Writes one row's evidence, and copies its first entry to the reading as lg_score does. */
static void explain(lg_detector const *const detector, lg_input const *const input,
                    lg_pooled_call const *const call, size_t const row, lg_reading *const reading)
{
    lg_evidence first;
    lg_evidence *const evidence
        = call->evidence_count ? call->evidence + row * call->evidence_count : &first;
    size_t const count = call->evidence_count ? call->evidence_count : 1;
    size_t used = 0;
    if (call->evidence_count || detector->kind->explains_cheaply)
        used = detector->kind->explain(&detector->bound, input, row, reading, evidence, count);
    if (used && detector->kind->explains_cheaply && reading->status == LG_READ) {
        reading->layer = evidence[0].layer;
        reading->place = evidence[0].place;
        reading->evidence = evidence[0].value;
    }
    for (; used < call->evidence_count; used++)
        evidence[used] = (lg_evidence){.layer = -1, .place = -1};
}

static void score(lg_detector const *const detector, lg_kernels const *const kernels,
                  lg_pooled_call const *const call)
{
    double *const scores = call->workspace;
    lg_input const input = {.kernels = kernels,
                            .rows = call->rows,
                            .scratch = (char *)call->workspace + score_bytes(call->rows.rows)};
    detector->kind->score(&detector->bound, &input, scores);
    for (size_t row = 0; row < call->rows.rows; row++) {
        lg_reading reading = {.score = scores[row], .layer = -1};
        lg_threshold_apply(&detector->threshold, &reading);
        explain(detector, &input, call, row, &reading);
        memcpy(lg_reading_at(call->readings, call->reading_size, row), &reading, sizeof reading);
    }
}

lg_status lg_score_pooled(lg_guard const *const guard, lg_pooled_call const *const argument)
{
    lg_pooled_call call;
    if (!guard)
        return LG_ERR_NULL;
    lg_status status = lg_copy_in(&call, sizeof call, argument);
    if (status == LG_OK)
        status = check(guard, &call);
    lg_run run;
    if (status == LG_OK)
        status = lg_enter(&run);
    if (status != LG_OK)
        return status;
    score(&guard->detectors[call.detector], run.kernels, &call);
    lg_leave(&run);
    return LG_OK;
}
