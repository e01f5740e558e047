/* The fuzz target of the calls that score: the bytes choose a guard of the corpus and fill the structs
 * of one call of lg_score or lg_score_pooled, with at most two faults that the header says are refused.
 * All buffers end where the structs say that they end. `make fuzz` runs it with libFuzzer;
 * test_score_calls.c runs it on bytes of a seeded generator.
 *
 * A call without a fault must succeed, and one with faults must return the status of one of them. A
 * failure leaves the chosen readings LG_UNREAD. The same values in one contiguous block, and each pooled
 * row alone, give the same readings to the bit. Readings that were not chosen are not written.
 *
 * The environment variable LAYERGUARD_CORPUS names another folder of archives. */
#include "fuzz_score.h"

#include "check.h"
#include "fuzz_states.h"

enum { MOST_GUARDS = 7, MOST_EVIDENCE = 5, MOST_DETECTORS = 8, SLACK = 64 };

static char const *const names[MOST_GUARDS]
    = {"ok-everything.npz", "ok-weightwatch-half.npz", "ok-siren.npz", "ok-decided.npz",
       "ok-span.npz",       "ok-familiarity.npz",      "ok-delta.npz"};
static lg_guard *guards[MOST_GUARDS];

/* The archives are opened once; the guards live as long as the program. */
static void open_guards(void)
{
    char const *const named = getenv("LAYERGUARD_CORPUS");
    for (size_t i = 0; i < MOST_GUARDS && !guards[i]; i++) {
        char path[1024];
        CHECK(snprintf(path, sizeof path, "%s/%s", named ? named : CORPUS, names[i])
              < (int)sizeof path);
        CHECK(lg_open(path, NULL, &guards[i]) == LG_OK);
    }
}

/* ---- the other fields ------------------------------------------------------------------------ */

/* The memory that a call writes: it ends where the call says that it does. */
typedef struct outputs {
    char *workspace, *readings, *evidence;
    size_t workspace_size, reading_size, evidence_count;
} outputs;

static outputs make_outputs(input *const from, size_t const workspace, size_t const readings)
{
    outputs made = {.workspace_size = workspace + 8 * pick(from, 2),
                    .reading_size = sizeof(lg_reading) + (pick(from, 4) == 3 ? 8 : 0)};
    made.workspace = buffer(made.workspace_size, 1);
    made.readings = buffer(readings * made.reading_size, 1);
    memset(made.readings, 0x5a, readings * made.reading_size);
    return made;
}

static void free_outputs(outputs const *const made)
{
    free(made->workspace);
    free(made->readings);
    free(made->evidence);
}

/* The fields that both calls have. */
typedef struct fields {
    void *workspace;
    size_t workspace_size;
    lg_reading *readings;
    size_t reading_size;
} fields;

static fields spoil_fields(verdicts *const found, outputs const *const made, size_t const needed)
{
    fields chosen = {made->workspace, made->workspace_size, (lg_reading *)(void *)made->readings,
                     made->reading_size};
    if (has(found, NULL_WORKSPACE, LG_ERR_NULL))
        chosen.workspace = NULL;
    else if (has(found, MISALIGNED_WORKSPACE, LG_ERR_ALIGNMENT))
        chosen.workspace = made->workspace + 1;
    if (needed && has(found, SMALL_WORKSPACE, LG_ERR_WORKSPACE))
        chosen.workspace_size = needed - 1;
    if (has(found, NULL_READINGS, LG_ERR_NULL))
        chosen.readings = NULL;
    else if (has(found, MISALIGNED_READINGS, LG_ERR_ALIGNMENT))
        chosen.readings = (lg_reading *)(void *)(made->readings + 4);
    if (has(found, SMALL_READING, LG_ERR_STRUCT_SIZE))
        chosen.reading_size = sizeof(lg_reading) - 8;
    if (has(found, LARGE_READING, LG_ERR_STRUCT_SIZE))
        chosen.reading_size = 4104;
    if (has(found, ODD_READING, LG_ERR_STRUCT_SIZE))
        chosen.reading_size = sizeof(lg_reading) + 4;
    return chosen;
}

/* A call of a later release: the struct is followed by fields that this library does not know. */
static size_t spoil_size(verdicts *const found, size_t const size, char later[SLACK])
{
    memset(later, 0, SLACK);
    if (has(found, SMALL_STRUCT, LG_ERR_STRUCT_SIZE))
        return size - 1;
    if (has(found, LARGE_STRUCT, LG_ERR_STRUCT_SIZE))
        return 4097;
    if (has(found, UNKNOWN_FIELD, LG_ERR_STRUCT_SIZE))
        later[SLACK - 1] = 1;
    return size + SLACK;
}

static void check_status(verdicts const *const found, lg_status const status)
{
    if (found->allowed ? !(found->allowed >> -status & 1) : status != LG_OK)
        fprintf(stderr, "status %d, allowed 0x%x\n", status, (unsigned)found->allowed);
    CHECK(found->allowed ? found->allowed >> -status & 1 : status == LG_OK);
}

static void check_reading(lg_reading const *const reading)
{
    CHECK(reading->status == (isfinite(reading->score) ? LG_READ : LG_INVALID));
    CHECK(reading->flagged == !(isfinite(reading->score) && reading->score <= reading->threshold));
    CHECK(reading->p_value > 0.0 && reading->p_value <= 1.0 && reading->layer >= -1);
}

static lg_reading reading_at(outputs const *const made, size_t const index)
{
    lg_reading reading;
    memcpy(&reading, made->readings + index * made->reading_size, sizeof reading);
    return reading;
}

/* ---- lg_score -------------------------------------------------------------------------------- */

/* Tokens that are masked, their roles, and the detectors that are read; each may be null. */
typedef struct choices {
    unsigned char *mask, *roles, *chosen;
    size_t kept;
} choices;

static choices choose(input *const from, size_t const rows, size_t const detectors,
                      verdicts *const found)
{
    choices made = {.kept = rows};
    if (pick(from, 2)) {
        made.mask = buffer(rows + !rows, 1);
        made.kept = 0;
        for (size_t r = 0; r < rows; r++)
            made.kept += (made.mask[r] = (unsigned char)(pick(from, 3) * 127)) != 0;
    }
    if (pick(from, 2)) {
        made.roles = buffer(rows + !rows, 1);
        for (size_t r = 0; r < rows; r++) {
            made.roles[r] = (unsigned char)(pick(from, 256) < 250 ? pick(from, 4) : 4);
            if (made.roles[r] == LG_ROLES)
                allow(found, LG_ERR_INDEX);
        }
    }
    if (pick(from, 2)) {
        made.chosen = buffer(detectors, 1);
        for (size_t d = 0; d < detectors; d++)
            made.chosen[d] = (unsigned char)pick(from, 3);
    }
    if (!made.kept)
        allow(found, LG_ERR_EMPTY);
    return made;
}

static int is_read(choices const *const made, size_t const detector)
{
    return !made->chosen || made->chosen[detector];
}

static void allow_pooling(lg_guard const *const guard, choices const *const made,
                          size_t const detectors, int const final_norm, verdicts *const found)
{
    for (size_t d = 0; d < detectors; d++) {
        lg_detector_info info = {.struct_size = sizeof info};
        CHECK(lg_detector_describe(guard, d, &info) == LG_OK);
        int const in_graph = info.pooling == LG_MLP_MEAN || info.pooling == LG_DELTA;
        if (is_read(made, d) && (info.final_norm != final_norm || in_graph))
            allow(found, LG_ERR_POOLING);
    }
}

static void check_score(lg_guard const *const guard, lg_score_call const *const call,
                        choices const *const made, outputs const *const written,
                        size_t const detectors)
{
    lg_score_call again = *call;
    lg_reading readings[MOST_DETECTORS] = {0};
    void *const block = contiguous(&call->states, &again.states);
    again.struct_size = sizeof again;
    again.readings = readings;
    again.reading_size = sizeof *readings;
    CHECK(lg_score(guard, &again) == LG_OK);
    for (size_t d = 0; d < detectors; d++) {
        lg_reading const reading = reading_at(written, d);
        if (is_read(made, d)) {
            check_reading(&reading);
            CHECK(memcmp(&reading, &readings[d], sizeof reading) == 0);
        } else
            CHECK(reading.status == 0x5a5a5a5a);
    }
    free(block);
}

static lg_status score(input *const from, lg_guard const *const guard, verdicts *const found)
{
    lg_guard_info info = {.struct_size = sizeof info};
    CHECK(lg_guard_describe(guard, &info) == LG_OK && info.detectors <= MOST_DETECTORS);
    wanted const want = {.states = info.states,
                         .width = info.width,
                         .states_known = info.states_known,
                         .width_known = info.width_known};
    memory held = {0};
    choose_states(from, &want, &held);
    int const final_norm = (int)pick(from, 8) == 7;
    choices const made = choose(from, held.states.rows, info.detectors, found);
    allow_pooling(guard, &made, info.detectors, final_norm, found);
    spoil_states(found, &want, &held);
    outputs const written = make_outputs(from, info.workspace, info.detectors);
    fields const chosen = spoil_fields(found, &written, info.workspace);
    struct {
        lg_score_call call;
        char later[SLACK];
    } given;
    given.call = (lg_score_call){.struct_size = spoil_size(found, sizeof given.call, given.later),
                                 .states = held.states,
                                 .mask = made.mask,
                                 .roles = made.roles,
                                 .chosen = made.chosen,
                                 .workspace = chosen.workspace,
                                 .workspace_size = chosen.workspace_size,
                                 .readings = chosen.readings,
                                 .reading_size = chosen.reading_size,
                                 .final_norm = final_norm};
    lg_status const status = lg_score(has(found, NULL_GUARD, LG_ERR_NULL) ? NULL : guard,
                                      has(found, NULL_CALL, LG_ERR_NULL) ? NULL : &given.call);
    check_status(found, status);
    if (status == LG_OK)
        check_score(guard, &given.call, &made, &written, info.detectors);
    else
        for (size_t d = 0; d < info.detectors; d++) {
            int const said = reading_at(&written, d).status;
            CHECK(said == 0x5a5a5a5a || (said == LG_UNREAD && is_read(&made, d)));
        }
    free_outputs(&written);
    free(made.mask);
    free(made.roles);
    free(made.chosen);
    release(&held);
    return status;
}

/* ---- lg_score_pooled ------------------------------------------------------------------------- */

static void check_pooled(lg_guard const *const guard, lg_pooled_call const *const call,
                         outputs const *const written)
{
    lg_pooled_call again = *call;
    void *const block = contiguous(&call->rows, &again.rows);
    again.struct_size = sizeof again;
    again.reading_size = sizeof(lg_reading);
    lg_evidence entries[MOST_EVIDENCE];
    size_t const rows = call->rows.rows, bytes = call->evidence_count * sizeof *entries;
    again.evidence = call->evidence ? entries : NULL;
    again.rows.rows = 1;
    char const *const first = again.rows.base;
    for (size_t r = 0; r < rows; r++) { /* each row alone gives the same */
        lg_reading const reading = reading_at(written, r);
        lg_reading alone;
        memset(&alone, 0, sizeof alone);
        again.readings = &alone;
        again.rows.base = first + (ptrdiff_t)r * again.rows.row_stride;
        CHECK(lg_score_pooled(guard, &again) == LG_OK);
        check_reading(&reading);
        CHECK(memcmp(&reading, &alone, sizeof reading) == 0);
        CHECK(!bytes || memcmp(written->evidence + r * bytes, entries, bytes) == 0);
    }
    free(block);
}

static lg_status pooled(input *const from, lg_guard const *const guard, verdicts *const found)
{
    lg_guard_info info = {.struct_size = sizeof info};
    CHECK(lg_guard_describe(guard, &info) == LG_OK);
    size_t const detector = pick(from, info.detectors);
    lg_pooled_info takes = {.struct_size = sizeof takes};
    CHECK(lg_pooled_describe(guard, detector, 1, &takes) == LG_OK);
    lg_detector_info kind = {.struct_size = sizeof kind};
    CHECK(lg_detector_describe(guard, detector, &kind) == LG_OK);
    wanted const want = {.states = takes.states,
                         .width = takes.width,
                         .states_known = takes.states_known,
                         .width_known = takes.width_known,
                         .float_only = kind.pooling >= LG_EXTREMES};
    memory held = {0};
    choose_states(from, &want, &held);
    size_t const rows = held.states.rows;
    CHECK(lg_pooled_describe(guard, detector, rows, &takes) == LG_OK);
    spoil_states(found, &want, &held);
    outputs written = make_outputs(from, takes.workspace, rows);
    size_t const count = pick(from, MOST_EVIDENCE + 1);
    if (count)
        written.evidence = buffer(rows * count * sizeof(lg_evidence), 1);
    fields const chosen = spoil_fields(found, &written, takes.workspace);
    struct {
        lg_pooled_call call;
        char later[SLACK];
    } given;
    given.call = (lg_pooled_call){.struct_size = spoil_size(found, sizeof given.call, given.later),
                                  .detector = detector,
                                  .rows = held.states,
                                  .workspace = chosen.workspace,
                                  .workspace_size = chosen.workspace_size,
                                  .readings = chosen.readings,
                                  .reading_size = chosen.reading_size,
                                  .evidence = (lg_evidence *)(void *)written.evidence,
                                  .evidence_count = count};
    if (has(found, NO_DETECTOR, LG_ERR_INDEX))
        given.call.detector = info.detectors;
    if (count && has(found, NULL_EVIDENCE, LG_ERR_NULL))
        given.call.evidence = NULL;
    else if (count && has(found, MISALIGNED_EVIDENCE, LG_ERR_ALIGNMENT))
        given.call.evidence = (lg_evidence *)(void *)(written.evidence + 4);
    if (count && rows && has(found, HUGE_EVIDENCE, LG_ERR_OVERFLOW))
        given.call.evidence_count = SIZE_MAX / 2;
    lg_status const status
        = lg_score_pooled(has(found, NULL_GUARD, LG_ERR_NULL) ? NULL : guard,
                          has(found, NULL_CALL, LG_ERR_NULL) ? NULL : &given.call);
    check_status(found, status);
    if (status == LG_OK)
        check_pooled(guard, &given.call, &written);
    free_outputs(&written);
    release(&held);
    return status;
}

int call_and_check(uint8_t const *const data, size_t const size)
{
    open_guards();
    input from = {data, size};
    lg_guard const *const guard = guards[pick(&from, MOST_GUARDS)];
    int const whole = pick(&from, 2) == 0;
    verdicts found = choose_faults(&from);
    return -(whole ? score(&from, guard, &found) : pooled(&from, guard, &found));
}

int LLVMFuzzerTestOneInput(uint8_t const *const data, size_t const size)
{
    call_and_check(data, size);
    return 0;
}
