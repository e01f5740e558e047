/* The guard's calls: each fault has its status, structs of other versions are accepted, nothing is
 * allocated after a guard and its streams are open, and a stream gives the readings of a whole text.
 *     test_guard CORPUS */
#include <fenv.h> /* fesetround */

#include "check.h"

enum { DETECTORS = 4, STATES = 3, WIDTH = 3, TOKENS = 6 };

/* The linker redirects the library's allocations to these functions (--wrap). */
static size_t allocations;
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *__wrap_malloc(size_t const size)
{
    allocations++;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t const count, size_t const size)
{
    allocations++;
    return __real_calloc(count, size);
}

static lg_guard *open_archive(char const *const folder, char const *const name)
{
    char path[1024];
    lg_guard *guard;
    CHECK(snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path);
    CHECK(lg_open(path, NULL, &guard) == LG_OK);
    return guard;
}

static float values[STATES * TOKENS * WIDTH];
static double workspace[1024];
static lg_reading readings[DETECTORS];

static lg_score_call const good = {.struct_size = sizeof good,
                                   .states = {.base = values,
                                              .layer_stride = TOKENS * WIDTH * sizeof(float),
                                              .row_stride = WIDTH * sizeof(float),
                                              .layer_count = STATES,
                                              .rows = TOKENS,
                                              .width = WIDTH,
                                              .dtype = LG_F32},
                                   .workspace = workspace,
                                   .workspace_size = sizeof workspace,
                                   .readings = readings,
                                   .reading_size = sizeof *readings};

static void check_opening(void)
{
    lg_guard *guard = (lg_guard *)workspace;
    CHECK(lg_open(NULL, NULL, &guard) == LG_ERR_NULL && !guard);
    CHECK(lg_open("/", NULL, NULL) == LG_ERR_NULL);
    CHECK(lg_open_memory(NULL, 0, NULL, &guard) == LG_ERR_NULL);
    CHECK(lg_open("/", NULL, &guard) == LG_ERR_FILE);
    char message[16] = "untouched";
    lg_open_options options = {.struct_size = 0, .message = message, .message_size = 16};
    CHECK(lg_open("/", &options, &guard) == LG_ERR_STRUCT_SIZE && !guard);
    options.struct_size = sizeof options;
    CHECK(lg_open("/", &options, &guard) == LG_ERR_FILE && strlen(message) == 15);
    options.message_size = 0;
    message[0] = '!';
    CHECK(lg_open("/", &options, &guard) == LG_ERR_FILE && message[0] == '!');
    lg_close(NULL);
    lg_stream_close(NULL);
}

static void check_description(lg_guard const *const guard)
{
    lg_guard_info info = {.struct_size = sizeof info};
    CHECK(lg_guard_describe(NULL, &info) == LG_ERR_NULL);
    CHECK(lg_guard_describe(guard, NULL) == LG_ERR_NULL);
    CHECK(lg_guard_describe(guard, &info) == LG_OK);
    CHECK(info.detectors == DETECTORS && info.states == STATES && info.width == WIDTH);
    CHECK(info.states_known && info.width_known && info.policy == LG_ANY && info.domains == 0);
    CHECK(info.workspace <= sizeof workspace && info.struct_size == sizeof info);
    static char const *const names[] = {"agent_siren", "lcf", "siren", "weightwatch"};
    static int const poolings[] = {LG_LAST, LG_LAST, LG_MEAN, LG_EXTREMES};
    for (size_t d = 0; d < DETECTORS; d++) {
        lg_detector_info detector = {.struct_size = sizeof detector};
        CHECK(lg_detector_describe(guard, d, &detector) == LG_OK);
        CHECK(strcmp(detector.name, names[d]) == 0 && detector.pooling == poolings[d]);
        CHECK(detector.threshold == 2.5 && detector.clean_count == 3);
    }
    CHECK(lg_detector_describe(guard, DETECTORS, &(lg_detector_info){0}) == LG_ERR_INDEX);
    CHECK(!lg_domain_name(guard, 0) && !lg_domain_name(NULL, 0));
}

static lg_status score(lg_guard const *const guard, lg_score_call const call)
{
    memset(readings, 0, sizeof readings);
    lg_status const status = lg_score(guard, &call);
    for (size_t d = 0; status != LG_OK && d < DETECTORS; d++)
        CHECK(readings[d].status == LG_UNREAD);
    return status;
}

static void check_faults(lg_guard const *const guard)
{
    unsigned char const nothing[TOKENS] = {0}, strange[TOKENS] = {0, 1, 2, 3, 4, 0};
    CHECK(score(guard, good) == LG_OK);
    CHECK(lg_score(NULL, &good) == LG_ERR_NULL && lg_score(guard, NULL) == LG_ERR_NULL);
    lg_score_call call = good;
    call.workspace = NULL;
    CHECK(score(guard, call) == LG_ERR_NULL);
    call = good;
    call.readings = NULL;
    CHECK(score(guard, call) == LG_ERR_NULL);
    call = good;
    call.workspace_size = 8;
    CHECK(score(guard, call) == LG_ERR_WORKSPACE);
    call = good;
    call.workspace = (char *)workspace + 4;
    CHECK(score(guard, call) == LG_ERR_ALIGNMENT);
    call = good;
    call.mask = nothing;
    CHECK(score(guard, call) == LG_ERR_EMPTY);
    call = good;
    call.states.rows = 0;
    CHECK(score(guard, call) == LG_ERR_EMPTY);
    call = good;
    call.roles = strange;
    CHECK(score(guard, call) == LG_ERR_INDEX);
    call = good;
    call.final_norm = 1;
    CHECK(score(guard, call) == LG_ERR_POOLING);
    for (int more = -1; more <= 1; more += 2) {
        call = good;
        call.states.layer_count += (size_t)more;
        CHECK(score(guard, call) == LG_ERR_SHAPE);
        call = good;
        call.states.width += (size_t)more;
        CHECK(score(guard, call) == LG_ERR_SHAPE);
    }
    call = good;
    call.states.base = NULL;
    CHECK(score(guard, call) == LG_ERR_NULL);
    call = good;
    call.states.dtype = 7;
    CHECK(score(guard, call) == LG_ERR_DTYPE);
}

/* A struct of a later header has more fields; no struct has fewer yet. */
static void check_versions(lg_guard const *const guard)
{
    struct {
        lg_score_call call;
        size_t later;
    } longer = {.call = good, .later = 0};
    longer.call.struct_size = sizeof longer;
    CHECK(lg_score(guard, &longer.call) == LG_OK);
    longer.later = 1;
    CHECK(lg_score(guard, &longer.call) == LG_ERR_STRUCT_SIZE);
    lg_score_call shorter = good;
    shorter.struct_size--;
    CHECK(lg_score(guard, &shorter) == LG_ERR_STRUCT_SIZE);
    size_t const sizes[] = {0, 4, sizeof(size_t), 1 << 20};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        lg_score_call call = good;
        call.struct_size = sizes[i];
        CHECK(score(guard, call) == LG_ERR_STRUCT_SIZE);
        call = good;
        call.reading_size = sizes[i];
        CHECK(score(guard, call) == LG_ERR_STRUCT_SIZE);
        lg_verdict verdict = {.struct_size = sizes[i]};
        CHECK(lg_decide(guard, &(lg_decide_call){0}, &verdict) == LG_ERR_STRUCT_SIZE);
    }
    struct {
        lg_reading reading;
        double later;
    } wide[DETECTORS] = {{.later = 9.0}};
    lg_score_call call = good;
    call.readings = &wide[0].reading;
    call.reading_size = sizeof *wide;
    CHECK(score(guard, good) == LG_OK && lg_score(guard, &call) == LG_OK);
    for (size_t d = 0; d < DETECTORS; d++)
        CHECK(memcmp(&wide[d].reading, &readings[d], sizeof *readings) == 0);
    CHECK(wide[0].later == 9.0);
    struct {
        lg_guard_info info;
        size_t later;
    } info = {.info.struct_size = sizeof info, .later = 5};
    CHECK(lg_guard_describe(guard, &info.info) == LG_OK && info.later == 5);
    lg_guard_info less = {.struct_size = offsetof(lg_guard_info, states), .states = 77};
    CHECK(lg_guard_describe(guard, &less) == LG_ERR_STRUCT_SIZE && less.states == 77);
}

/* Readings of an earlier text in the array do not affect a text that could not be read. */
static void check_failures_decide_nothing(lg_guard const *const guard)
{
    lg_decide_call const decide = {sizeof decide, readings, sizeof *readings, NULL};
    lg_verdict verdict = {.struct_size = sizeof verdict};
    CHECK(score(guard, good) == LG_OK && lg_decide(guard, &decide, &verdict) == LG_OK);
    lg_score_call call = good;
    call.states.base = NULL;
    CHECK(lg_score(guard, &call) == LG_ERR_NULL);
    CHECK(lg_decide(guard, &decide, &verdict) == LG_ERR_DECISION);
    CHECK(verdict.flagged && verdict.invalid);
    verdict = (lg_verdict){.struct_size = sizeof verdict};
    CHECK(lg_decide(NULL, &decide, &verdict) == LG_ERR_NULL);
    CHECK(verdict.flagged && verdict.invalid);
}

/* Parameters and scores do not depend on the rounding mode of the thread that opens the archive. */
static void check_rounding(lg_guard const *const guard, char const *const folder)
{
    double expected[DETECTORS];
    CHECK(score(guard, good) == LG_OK);
    for (size_t d = 0; d < DETECTORS; d++)
        expected[d] = readings[d].score;
    fesetround(FE_UPWARD);
    lg_guard *const other = open_archive(folder, "ok-everything.npz");
    fesetround(FE_TONEAREST);
    CHECK(score(other, good) == LG_OK);
    for (size_t d = 0; d < DETECTORS; d++)
        CHECK(readings[d].score == expected[d]);
    lg_close(other);
}

/* One text of one token, whose readings are computed by hand from the archive of corpus/make.py:
 *   LCF          h1 - h0 = mu_0, so S = (0, 4), z = (-3, 5), score = sqrt(34)
 *   SIREN        features (-0.5, -0.1, 0), hidden (0.56, 0), logits (-0.56, 0.56 / 3)
 *   Agent-SIREN  the same features, logits (0.56, -0.16)
 *   WeightWatch  cosines -1 / sqrt(1.4) at state 1, 0 at state 2; ranges +-0.25, scale 0.25 */
static void check_values(lg_guard const *const guard)
{
    float const text[STATES][WIDTH] = {{0}, {-1.0f, -0.6f, -0.2f}, {4.8f, 0.0f, 0.8f}};
    struct {
        double score, p_value, evidence;
        int flagged, layer;
    } const expected[DETECTORS] = {
        {1.0 / (1.0 + exp(0.72)), 1.0, 0.0, 0, -1},
        {sqrt(34.0), 0.25, 5.0, 1, 2},
        {1.0 / (1.0 + exp(-0.56 * 4.0 / 3.0)), 0.75, 0.0, 0, -1},
        {(1.0 / sqrt(1.4) - 0.25) / 0.25, 0.25, (1.0 / sqrt(1.4) - 0.25) / 0.25, 0, 1},
    };
    lg_score_call call = good;
    call.states = (lg_states){.base = text,
                              .layer_stride = sizeof *text,
                              .row_stride = sizeof *text,
                              .layer_count = STATES,
                              .rows = 1,
                              .width = WIDTH,
                              .dtype = LG_F32};
    CHECK(score(guard, call) == LG_OK);
    for (size_t d = 0; d < DETECTORS; d++) {
        CHECK(fabs(readings[d].score - expected[d].score) < 1e-5);
        CHECK(fabs(readings[d].evidence - expected[d].evidence) < 1e-5);
        CHECK(readings[d].p_value == expected[d].p_value && readings[d].threshold == 2.5);
        CHECK(readings[d].flagged == expected[d].flagged && readings[d].layer == expected[d].layer);
        CHECK(readings[d].status == LG_READ);
    }
    lg_decide_call const decide = {sizeof decide, readings, sizeof *readings, NULL};
    lg_verdict verdict = {.struct_size = sizeof verdict};
    CHECK(lg_decide(guard, &decide, &verdict) == LG_OK);
    CHECK(verdict.flagged && !verdict.invalid && verdict.p_value == -1.0 && verdict.domain == -1);
    readings[1].score = 2.5; /* on the threshold: it passes */
    CHECK(lg_decide(guard, &decide, &verdict) == LG_OK && !verdict.flagged);
    readings[1].score = nextafter(2.5, 3.0);
    CHECK(lg_decide(guard, &decide, &verdict) == LG_OK && verdict.flagged && readings[1].flagged);
    readings[1].score = 1.0; /* equal clean scores are counted: 1 and 2 of three */
    CHECK(lg_decide(guard, &decide, &verdict) == LG_OK && readings[1].p_value == 0.75);
    readings[1].score = NAN;
    CHECK(lg_decide(guard, &decide, &verdict) == LG_OK && verdict.flagged && verdict.invalid);
    CHECK(readings[1].status == LG_INVALID && readings[1].p_value == 0.25);
}

/* An archive with SIREN only does not hold the model's size: larger states are accepted, states
 * without what SIREN reads are refused. It reads states 1 and 2, neurons 0 to 2. */
static void check_smaller_models(char const *const folder)
{
    lg_guard *const guard = open_archive(folder, "ok-siren.npz");
    lg_guard_info info = {.struct_size = sizeof info};
    CHECK(lg_guard_describe(guard, &info) == LG_OK && info.detectors == 1);
    CHECK(info.states == 3 && info.width == 3 && !info.states_known && !info.width_known);
    CHECK(score(guard, good) == LG_OK);
    double const expected = readings[0].score;
    for (size_t layers = 1; layers < 3; layers++) {
        lg_score_call call = good;
        call.states.layer_count = layers;
        CHECK(score(guard, call) == LG_ERR_SHAPE);
    }
    for (size_t width = 1; width < 3; width++) {
        lg_score_call call = good;
        call.states.width = width;
        CHECK(score(guard, call) == LG_ERR_SHAPE);
    }
    lg_stream *stream;
    CHECK(lg_stream_open(guard, NULL, 0, &stream) == LG_OK);
    lg_push_call push_call = {.struct_size = sizeof push_call, .states = good.states};
    push_call.states.layer_count = 2;
    CHECK(lg_stream_push(stream, &push_call) == LG_ERR_SHAPE);
    lg_stream_close(stream);
    float larger[STATES + 1][TOKENS][WIDTH + 1] = {{{0}}};
    for (size_t l = 0; l < STATES; l++)
        for (size_t t = 0; t < TOKENS; t++)
            memcpy(larger[l][t], values + (l * TOKENS + t) * WIDTH, WIDTH * sizeof *values);
    lg_score_call call = good;
    call.states.base = larger;
    call.states.layer_stride = sizeof *larger;
    call.states.row_stride = sizeof **larger;
    call.states.layer_count = STATES + 1;
    call.states.width = WIDTH + 1;
    CHECK(score(guard, call) == LG_OK && readings[0].score == expected);
    lg_close(guard);
}

static void check_choice(lg_guard const *const guard)
{
    unsigned char const chosen[DETECTORS] = {0, 1, 0, 0};
    lg_reading all[DETECTORS];
    CHECK(score(guard, good) == LG_OK);
    memcpy(all, readings, sizeof all);
    lg_score_call call = good;
    call.chosen = chosen;
    CHECK(score(guard, call) == LG_OK);
    for (size_t d = 0; d < DETECTORS; d++)
        CHECK(chosen[d] ? memcmp(&readings[d], &all[d], sizeof *all) == 0
                        : readings[d].status == LG_UNREAD);
    lg_verdict verdict = {.struct_size = sizeof verdict};
    lg_decide_call const decide
        = {.struct_size = sizeof decide, .readings = readings, .reading_size = sizeof *readings};
    CHECK(lg_decide(guard, &decide, &verdict) == LG_ERR_DECISION);
    CHECK(verdict.flagged && verdict.invalid && verdict.domain == -1);
}

static lg_status push(lg_stream *const stream, size_t const first, size_t const count)
{
    lg_push_call call = {.struct_size = sizeof call, .states = good.states};
    call.states.base = values + first * WIDTH;
    call.states.rows = count;
    return lg_stream_push(stream, &call);
}

static void check_streams(lg_guard const *const guard, lg_guard const *const other)
{
    lg_guard_info info = {.struct_size = sizeof info};
    CHECK(lg_guard_describe(guard, &info) == LG_OK);
    void *const memory = buffer(info.stream_bytes, 1);
    lg_stream *stream, *strange;
    lg_read_call const read
        = {.struct_size = sizeof read, .readings = readings, .reading_size = sizeof *readings};
    CHECK(lg_stream_open(guard, memory, info.stream_bytes - 1, &stream) == LG_ERR_WORKSPACE);
    CHECK(!stream && lg_stream_open(NULL, NULL, 0, &stream) == LG_ERR_NULL);
    CHECK(lg_stream_open(guard, memory, info.stream_bytes, &stream) == LG_OK);
    CHECK(lg_stream_read(stream, &read) == LG_ERR_EMPTY);
    CHECK(lg_stream_open(other, NULL, 0, &strange) == LG_OK);
    CHECK(lg_stream_copy(stream, strange) == LG_ERR_BOUND);
    lg_stream_close(strange);

    size_t const before = allocations;
    lg_reading whole[DETECTORS], found[DETECTORS];
    CHECK(push(stream, 0, TOKENS) == LG_OK && lg_stream_read(stream, &read) == LG_OK);
    memcpy(whole, readings, sizeof whole);
    CHECK(lg_stream_open(guard, memory, info.stream_bytes, &stream) == LG_OK);
    for (size_t token = 0; token < TOKENS; token++) {
        CHECK(push(stream, token, 1) == LG_OK && push(stream, token, 0) == LG_OK);
        CHECK(lg_stream_read(stream, &read) == LG_OK);
    }
    memcpy(found, readings, sizeof found);
    CHECK(memcmp(whole, found, sizeof whole) == 0);
    CHECK(score(guard, good) == LG_OK && readings[1].score == whole[1].score);
    CHECK(allocations == before);
    lg_push_call call = {.struct_size = sizeof call, .states = good.states, .final_norm = 1};
    CHECK(lg_stream_push(stream, &call) == LG_ERR_POOLING);
    CHECK(lg_stream_push(NULL, &call) == LG_ERR_NULL
          && lg_stream_push(stream, NULL) == LG_ERR_NULL);
    lg_stream_close(stream);
    free(memory);
}

int main(int const count, char **const arguments)
{
    CHECK(count == 2);
    uint64_t seed = 3;
    for (size_t i = 0; i < COUNT(values); i++)
        values[i] = (float)number(&seed);
    check_opening();
    lg_guard *const guard = open_archive(arguments[1], "ok-everything.npz");
    lg_guard *const other = open_archive(arguments[1], "ok-lcf.npz");
    CHECK(allocations > 0);
    check_description(guard);
    check_faults(guard);
    check_versions(guard);
    check_failures_decide_nothing(guard);
    check_rounding(guard, arguments[1]);
    check_values(guard);
    check_smaller_models(arguments[1]);
    check_choice(guard);
    check_streams(guard, other);
    lg_close(other);
    lg_close(guard);
    return 0;
}
