/* lg_score_pooled: rows have the readings of lg_score, evidence is sorted, each fault has its status.
 *     test_pooled CORPUS */
#include "check.h"

enum { DETECTORS = 4, STATES = 3, WIDTH = 3, ROWS = 5, TOP = 3 };

static lg_guard *guard;
static double workspace[512];
static lg_reading readings[ROWS];
static lg_evidence evidence[ROWS * TOP];

static lg_pooled_call call_of(size_t const detector, float const *const values)
{
    return (lg_pooled_call){.struct_size = sizeof(lg_pooled_call),
                            .detector = detector,
                            .rows = {.base = values,
                                     .layer_stride = ROWS * WIDTH * sizeof(float),
                                     .row_stride = WIDTH * sizeof(float),
                                     .layer_count = STATES,
                                     .rows = ROWS,
                                     .width = WIDTH,
                                     .dtype = LG_F32},
                            .workspace = workspace,
                            .workspace_size = sizeof workspace,
                            .readings = readings,
                            .reading_size = sizeof *readings,
                            .evidence = evidence,
                            .evidence_count = TOP};
}

/* Every row alone, as a text of one token, and all rows at once. */
static void check_rows(float const *const values)
{
    static double room[512];
    for (size_t d = 0; d < 3; d++) {
        lg_pooled_call const call = call_of(d, values);
        CHECK(lg_score_pooled(guard, &call) == LG_OK);
        for (size_t row = 0; row < ROWS; row++) {
            lg_reading alone[DETECTORS];
            lg_score_call one = {.struct_size = sizeof one,
                                 .states = call.rows,
                                 .workspace = room,
                                 .workspace_size = sizeof room,
                                 .readings = alone,
                                 .reading_size = sizeof *alone};
            one.states.base = values + row * WIDTH;
            one.states.rows = 1;
            CHECK(lg_score(guard, &one) == LG_OK);
            CHECK(memcmp(&readings[row], &alone[d], sizeof *alone) == 0);
        }
    }
}

/* z of the text that test_guard.c computes by hand: (-3, 5). */
static void check_lcf(void)
{
    float const text[STATES][ROWS][WIDTH] = {{{0}}, {{-1.0f, -0.6f, -0.2f}}, {{4.8f, 0.0f, 0.8f}}};
    lg_pooled_call call = call_of(1, **text);
    CHECK(lg_score_pooled(guard, &call) == LG_OK && readings[0].flagged);
    CHECK(fabs(evidence[0].value - 5.0) < 1e-5 && evidence[0].layer == 2 && evidence[0].place == 1);
    CHECK(fabs(evidence[1].value + 3.0) < 1e-5 && evidence[1].layer == 1);
    CHECK(evidence[2].layer == -1 && readings[0].layer == 2);
    CHECK(readings[0].evidence == evidence[0].value);
    call.evidence_count = 0;
    call.evidence = NULL;
    CHECK(lg_score_pooled(guard, &call) == LG_OK && readings[0].layer == 2);
}

/* Ranges are +-0.25 and their scale 0.25; the threshold is 2.5. (role, least and largest, direction) */
static void check_extremes(void)
{
    float rows[2][LG_ROLES][2][2];
    for (size_t role = 0; role < LG_ROLES; role++)
        for (size_t k = 0; k < 2; k++)
            for (size_t row = 0; row < 2; row++) {
                rows[row][role][0][k] = INFINITY;
                rows[row][role][1][k] = -INFINITY;
            }
    rows[0][LG_USER][0][0] = 0.0f;
    rows[0][LG_USER][1][0] = 0.5f;  /* excess 1 */
    rows[0][LG_TOOL][0][1] = -1.0f; /* excess 3 */
    rows[0][LG_TOOL][1][1] = 0.0f;
    rows[1][LG_SYSTEM][0][1] = rows[1][LG_SYSTEM][1][1] = 0.0f; /* excess -1 */
    lg_pooled_info info = {.struct_size = sizeof info};
    CHECK(lg_pooled_describe(guard, 3, 2, &info) == LG_OK);
    CHECK(info.states == 1 && info.width == 16 && info.states_known && info.width_known);
    lg_pooled_call call = call_of(3, &rows[0][0][0][0]);
    call.rows.layer_count = 1;
    call.rows.rows = 2;
    call.rows.width = 16;
    call.rows.row_stride = sizeof *rows;
    call.workspace_size = info.workspace;
    CHECK(lg_score_pooled(guard, &call) == LG_OK);
    CHECK(readings[0].score == 3.0 && readings[0].flagged && readings[0].layer == 2);
    CHECK(evidence[0].value == 3.0 && evidence[0].place == LG_TOOL * 2 + 1);
    CHECK(evidence[1].value == 1.0 && evidence[1].place == LG_USER * 2 && evidence[1].layer == 1);
    CHECK(evidence[2].layer == -1);
    CHECK(readings[1].score == -1.0 && !readings[1].flagged && evidence[TOP].value == -1.0);
    CHECK(evidence[TOP].place == 1 && evidence[TOP + 1].layer == -1);
    call.workspace_size--;
    CHECK(lg_score_pooled(guard, &call) == LG_ERR_WORKSPACE);
    call.rows.dtype = LG_F16;
    CHECK(lg_score_pooled(guard, &call) == LG_ERR_DTYPE);
}

/* A row of windows from outside may hold any number where the first token's is. */
static void check_windows(char const *const path)
{
    static struct {
        float first;
        int place;
    } const cases[] = {{0.0f, 0},    {16777216.0f, 16777216}, {-1.0f, -1},
                       {1e30f, -1},  {-INFINITY, -1},         {NAN, -1},
                       {0x1p31f, -1}};
    lg_guard *windowed;
    CHECK(lg_open(path, NULL, &windowed) == LG_OK);
    float row[LG_WINDOW_LOGITS + 4] = {[LG_WINDOW_BEST] = 1.0f, [LG_WINDOW_TOKENS] = 4.0f};
    lg_pooled_call call = call_of(1, row);
    call.rows.layer_count = call.rows.rows = 1;
    call.rows.width = COUNT(row);
    for (size_t i = 0; i < COUNT(cases); i++) {
        row[LG_WINDOW_FIRST] = cases[i].first;
        CHECK(lg_score_pooled(windowed, &call) == LG_OK && readings[0].score == 1.0);
        CHECK(evidence[0].place == cases[i].place && readings[0].place == cases[i].place);
    }
    lg_close(windowed);
}

static lg_status change(float const *const values, void (*const change)(lg_pooled_call *))
{
    lg_pooled_call call = call_of(1, values);
    change(&call);
    return lg_score_pooled(guard, &call);
}

#define CHANGE(name, statement)                                                                    \
    static void name(lg_pooled_call *const call)                                                   \
    {                                                                                              \
        statement;                                                                                 \
    }
CHANGE(unknown_detector, call->detector = DETECTORS)
CHANGE(no_readings, call->readings = NULL)
CHANGE(no_workspace, call->workspace = NULL)
CHANGE(no_evidence, call->evidence = NULL)
CHANGE(small_readings, call->reading_size = 8)
CHANGE(shifted, call->workspace = (char *)workspace + 4)
CHANGE(shifted_evidence, call->evidence = (lg_evidence *)(void *)((char *)evidence + 4))
CHANGE(small_workspace, call->workspace_size = 8)
CHANGE(narrow, call->rows.width--)
CHANGE(deep, call->rows.layer_count--)
CHANGE(much_evidence, call->evidence_count = (size_t)-1 / 2)
CHANGE(other_struct, call->struct_size = 8)
CHANGE(empty, call->rows.rows = 0)

static void check_faults(float const *const values)
{
    CHECK(lg_score_pooled(NULL, &(lg_pooled_call){0}) == LG_ERR_NULL);
    CHECK(lg_score_pooled(guard, NULL) == LG_ERR_NULL);
    CHECK(change(values, unknown_detector) == LG_ERR_INDEX);
    CHECK(change(values, no_readings) == LG_ERR_NULL);
    CHECK(change(values, no_workspace) == LG_ERR_NULL);
    CHECK(change(values, no_evidence) == LG_ERR_NULL);
    CHECK(change(values, small_readings) == LG_ERR_STRUCT_SIZE);
    CHECK(change(values, shifted) == LG_ERR_ALIGNMENT);
    CHECK(change(values, shifted_evidence) == LG_ERR_ALIGNMENT);
    CHECK(change(values, small_workspace) == LG_ERR_WORKSPACE);
    CHECK(change(values, narrow) == LG_ERR_SHAPE);
    CHECK(change(values, deep) == LG_ERR_SHAPE);
    CHECK(change(values, much_evidence) == LG_ERR_OVERFLOW);
    CHECK(change(values, other_struct) == LG_ERR_STRUCT_SIZE);
    CHECK(change(values, empty) == LG_OK);
    lg_pooled_info info = {.struct_size = sizeof info};
    CHECK(lg_pooled_describe(NULL, 0, 1, &info) == LG_ERR_NULL);
    CHECK(lg_pooled_describe(guard, DETECTORS, 1, &info) == LG_ERR_INDEX);
    CHECK(lg_pooled_describe(guard, 1, (size_t)-1, &info) == LG_ERR_OVERFLOW);
    CHECK(lg_pooled_describe(guard, 1, 1, NULL) == LG_ERR_NULL);
}

int main(int const count, char **const arguments)
{
    char path[1024];
    uint64_t seed = 3;
    CHECK(count == 2);
    CHECK(snprintf(path, sizeof path, "%s/ok-everything.npz", arguments[1]) < (int)sizeof path);
    CHECK(lg_open(path, NULL, &guard) == LG_OK);
    float *const values = floats(STATES * ROWS * WIDTH, &seed);
    check_rows(values);
    check_lcf();
    check_extremes();
    check_faults(values);
    free(values);
    CHECK(snprintf(path, sizeof path, "%s/ok-span.npz", arguments[1]) < (int)sizeof path);
    check_windows(path);
    lg_close(guard);
    return 0;
}
