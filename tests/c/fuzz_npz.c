/* The fuzz target: opens any bytes as an archive and, if that succeeds, uses the guard.
 * `make fuzz` runs it with libFuzzer; test_corpus.c replays the corpus through the same function. */
#include "fuzz_npz.h"

#include "check.h"

enum { MOST_BYTES = 1 << 20, MOST_VALUES = 1 << 14, TOKENS = 3 };

/* States of a text, of the size that the guard reads. */
static lg_states some_states(lg_guard_info const *const info, float *const values)
{
    size_t const count = info->states * info->width * TOKENS;
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(i % 11) - 5.0f;
    return (lg_states){.base = values,
                       .layer_stride = (ptrdiff_t)(info->width * TOKENS * sizeof *values),
                       .row_stride = (ptrdiff_t)(info->width * sizeof *values),
                       .layer_count = info->states,
                       .rows = TOKENS,
                       .width = info->width,
                       .dtype = LG_F32};
}

static void decide(lg_guard const *const guard, lg_reading *const readings)
{
    char const *const domains[] = {NULL, "chat", "mail"};
    for (size_t i = 0; i < COUNT(domains); i++) {
        lg_verdict verdict = {.struct_size = sizeof verdict};
        lg_decide_call const call = {.struct_size = sizeof call,
                                     .readings = readings,
                                     .reading_size = sizeof *readings,
                                     .domain = domains[i]};
        lg_status const status = lg_decide(guard, &call, &verdict);
        CHECK(status == LG_OK || (status == LG_ERR_DECISION && verdict.flagged));
    }
}

static void stream(lg_guard const *const guard, lg_states const states, lg_reading *const readings)
{
    lg_stream *one, *two;
    CHECK(lg_stream_open(guard, NULL, 0, &one) == LG_OK);
    CHECK(lg_stream_open(guard, NULL, 0, &two) == LG_OK);
    lg_push_call const push = {.struct_size = sizeof push, .states = states};
    CHECK(lg_stream_push(one, &push) == LG_OK);
    CHECK(lg_stream_copy(two, one) == LG_OK);
    lg_read_call const read
        = {.struct_size = sizeof read, .readings = readings, .reading_size = sizeof *readings};
    lg_status const status = lg_stream_read(two, &read);
    CHECK(status == LG_OK || status == LG_ERR_POOLING);
    lg_stream_close(one);
    lg_stream_close(two);
}

/* Rows of zeros and small numbers, of the size that each detector reads. */
static void pool(lg_guard const *const guard, size_t const detectors, float const *const values,
                 size_t const count)
{
    for (size_t d = 0; d < detectors; d++) {
        lg_pooled_info info = {.struct_size = sizeof info};
        CHECK(lg_pooled_describe(guard, d, TOKENS, &info) == LG_OK);
        if (info.width * TOKENS > count || info.states * info.width > MOST_VALUES)
            continue;
        void *const workspace = buffer(info.workspace, 1);
        lg_reading found[TOKENS];
        lg_evidence evidence[TOKENS * 3];
        lg_pooled_call const call
            = {.struct_size = sizeof call,
               .detector = d,
               .rows = {.base = values,
                        .layer_stride = 0,
                        .row_stride = (ptrdiff_t)(info.width * sizeof *values),
                        .layer_count = info.states,
                        .rows = TOKENS,
                        .width = info.width,
                        .dtype = LG_F32},
               .workspace = workspace,
               .workspace_size = info.workspace,
               .readings = found,
               .reading_size = sizeof *found,
               .evidence = evidence,
               .evidence_count = 3};
        CHECK(lg_score_pooled(guard, &call) == LG_OK);
        free(workspace);
    }
}

static void use(lg_guard const *const guard)
{
    lg_guard_info info = {.struct_size = sizeof info};
    CHECK(lg_guard_describe(guard, &info) == LG_OK);
    CHECK(info.detectors > 0 && info.states > 0 && info.width > 0);
    if (info.width > MOST_VALUES || info.states > MOST_VALUES / info.width
        || info.stream_bytes > MOST_BYTES)
        return;
    float *const values = buffer(info.states * info.width * TOKENS, sizeof *values);
    lg_states const states = some_states(&info, values);
    void *const workspace = buffer(info.workspace, 1);
    lg_reading *const readings = buffer(info.detectors, sizeof *readings);
    memset(readings, 0, info.detectors * sizeof *readings);
    lg_score_call const call = {.struct_size = sizeof call,
                                .states = states,
                                .workspace = workspace,
                                .workspace_size = info.workspace,
                                .readings = readings,
                                .reading_size = sizeof *readings};
    lg_status const status = lg_score(guard, &call);
    CHECK(status == LG_OK || status == LG_ERR_POOLING);
    decide(guard, readings);
    stream(guard, states, readings);
    pool(guard, info.detectors, values, info.states * info.width * TOKENS);
    free(readings);
    free(workspace);
    free(values);
}

lg_status open_and_use(uint8_t const *const data, size_t const size, char message[MESSAGE])
{
    lg_guard *guard = (lg_guard *)(void *)message;
    memset(message, 'x', MESSAGE);
    lg_open_options const options = {.struct_size = sizeof options,
                                     .max_bytes = MOST_BYTES,
                                     .message = message,
                                     .message_size = MESSAGE};
    lg_status const status = lg_open_memory(data, size, &options, &guard);
    CHECK((status == LG_OK) == (guard != NULL) && memchr(message, '\0', MESSAGE));
    if (guard)
        use(guard);
    lg_close(guard);
    return status;
}

int LLVMFuzzerTestOneInput(uint8_t const *const data, size_t const size)
{
    char message[MESSAGE];
    open_and_use(data, size, message);
    return 0;
}
