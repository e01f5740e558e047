/* delta: rows of added lengths have the score of its formula; states and streams cannot give them.
 *     test_delta CORPUS */
#include "check.h"

enum { MATRICES = 3, ROWS = 4, TOP = 4, STATES = 3, WIDTH = 3 };

static double workspace[256];
static lg_reading readings[ROWS];
static lg_evidence evidence[ROWS * TOP];

/* As corpus/make.py writes it; the threshold is 2.5. */
static double const centre[MATRICES] = {0.5, -1.0, 2.0}, scale[MATRICES] = {0.5, 0.25, 2.0};
static int const layers[MATRICES] = {1, 1, 2};

static lg_pooled_call call_of(float const *const values, size_t const rows)
{
    return (lg_pooled_call){.struct_size = sizeof(lg_pooled_call),
                            .rows = {.base = values,
                                     .row_stride = MATRICES * sizeof *values,
                                     .layer_count = 1,
                                     .rows = rows,
                                     .width = MATRICES,
                                     .dtype = LG_F32},
                            .workspace = workspace,
                            .workspace_size = sizeof workspace,
                            .readings = readings,
                            .reading_size = sizeof *readings,
                            .evidence = evidence,
                            .evidence_count = TOP};
}

static double excess(float const *const row, size_t const k)
{
    return ((double)row[k] - centre[k]) / scale[k];
}

/* The largest excess, and the evidence: of a flagged text every matrix above its centre. */
static void check_row(float const *const row, lg_reading const *const reading,
                      lg_evidence const *const entries)
{
    size_t best = 0, above = 0, used = 0;
    for (size_t k = 0; k < MATRICES; k++) {
        best = excess(row, k) > excess(row, best) ? k : best;
        above += excess(row, k) > 0.0;
    }
    CHECK(reading->status == LG_READ && reading->score == excess(row, best));
    CHECK(reading->flagged == !(reading->score <= 2.5));
    CHECK(reading->layer == layers[best] && reading->place == (int)best);
    CHECK(reading->evidence == reading->score && entries[0].value == reading->score);
    while (used < TOP && entries[used].layer >= 0) {
        CHECK(entries[used].value == excess(row, (size_t)entries[used].place));
        CHECK(entries[used].layer == layers[entries[used].place]);
        CHECK(!used || entries[used].value <= entries[used - 1].value);
        used++;
    }
    CHECK(used == (reading->flagged ? above : 1));
}

static void check_scores(lg_guard const *const guard)
{
    uint64_t seed = 5;
    for (int trial = 0; trial < 200; trial++) {
        float *const values = floats(ROWS * MATRICES, &seed);
        for (size_t i = 0; i < ROWS * MATRICES; i++)
            values[i] *= 4.0f;
        lg_pooled_call const call = call_of(values, ROWS);
        CHECK(lg_score_pooled(guard, &call) == LG_OK);
        for (size_t row = 0; row < ROWS; row++)
            check_row(values + row * MATRICES, &readings[row], evidence + row * TOP);
        free(values);
    }
}

/* A value that is not finite, in any place, flags its own row; a tie is that of the first matrix. */
static void check_special(lg_guard const *const guard)
{
    float const special[] = {NAN, INFINITY, -INFINITY};
    for (size_t place = 0; place < MATRICES; place++)
        for (size_t s = 0; s < COUNT(special); s++) {
            float values[2 * MATRICES] = {0};
            values[place] = special[s];
            lg_pooled_call const call = call_of(values, 2);
            CHECK(lg_score_pooled(guard, &call) == LG_OK);
            CHECK(readings[0].status == LG_INVALID && readings[0].flagged);
            CHECK(isnan(readings[0].score) && readings[0].layer == -1 && evidence[0].layer == -1);
            check_row(values + MATRICES, &readings[1], evidence + TOP);
        }
    float const tied[MATRICES] = {2.5f, 0.0f, 10.0f};
    lg_pooled_call const call = call_of(tied, 1);
    CHECK(lg_score_pooled(guard, &call) == LG_OK && readings[0].score == 4.0);
    CHECK(evidence[0].place == 0 && evidence[1].place == 1 && evidence[2].place == 2);
}

static void check_faults(lg_guard const *const guard)
{
    float const values[8] = {0};
    lg_pooled_call call = call_of(values, 1);
    call.rows.width = MATRICES - 1;
    CHECK(lg_score_pooled(guard, &call) == LG_ERR_SHAPE);
    call.rows.width = MATRICES + 1;
    CHECK(lg_score_pooled(guard, &call) == LG_ERR_SHAPE);
    call = call_of(values, 1);
    call.rows.layer_count = 2;
    CHECK(lg_score_pooled(guard, &call) == LG_ERR_SHAPE);
    call = call_of(values, 1);
    call.rows.dtype = LG_F16;
    CHECK(lg_score_pooled(guard, &call) == LG_ERR_DTYPE);
}

/* lg_score and streams read the other detector alone. */
static void check_states(lg_guard const *const guard)
{
    static float const states[STATES * WIDTH];
    unsigned char const chosen[2] = {0, 1};
    lg_reading both[2];
    lg_stream *stream;
    lg_states const text = {.base = states,
                            .layer_stride = WIDTH * sizeof *states,
                            .layer_count = STATES,
                            .rows = 1,
                            .width = WIDTH};
    lg_score_call call = {.struct_size = sizeof call,
                          .states = text,
                          .workspace = workspace,
                          .workspace_size = sizeof workspace,
                          .readings = both,
                          .reading_size = sizeof *both};
    CHECK(lg_score(guard, &call) == LG_ERR_POOLING && both[1].status == LG_UNREAD);
    call.chosen = chosen;
    CHECK(lg_score(guard, &call) == LG_OK && both[1].status == LG_READ);
    CHECK(lg_stream_open(guard, NULL, 0, &stream) == LG_OK);
    lg_push_call const push = {.struct_size = sizeof push, .states = text};
    CHECK(lg_stream_push(stream, &push) == LG_OK);
    lg_read_call read
        = {.struct_size = sizeof read, .readings = both, .reading_size = sizeof *both};
    CHECK(lg_stream_read(stream, &read) == LG_ERR_POOLING);
    read.chosen = chosen;
    CHECK(lg_stream_read(stream, &read) == LG_OK && both[1].status == LG_READ);
    lg_stream_close(stream);
}

int main(int const count, char **const arguments)
{
    char path[1024];
    lg_guard *guard;
    CHECK(count == 2);
    CHECK(snprintf(path, sizeof path, "%s/ok-delta.npz", arguments[1]) < (int)sizeof path);
    CHECK(lg_open(path, NULL, &guard) == LG_OK);
    lg_detector_info info = {.struct_size = sizeof info};
    CHECK(lg_detector_describe(guard, 0, &info) == LG_OK);
    CHECK(info.pooling == LG_DELTA && info.view == LG_PROMPT && strcmp(info.name, "delta") == 0);
    lg_pooled_info rows = {.struct_size = sizeof rows};
    CHECK(lg_pooled_describe(guard, 0, ROWS, &rows) == LG_OK);
    CHECK(rows.states == 1 && rows.width == MATRICES && rows.states_known && rows.width_known);
    check_scores(guard);
    check_special(guard);
    check_faults(guard);
    check_states(guard);
    lg_close(guard);
    return 0;
}
