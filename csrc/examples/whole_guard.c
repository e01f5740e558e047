/* A complete guard in one process without Python: reads token ids, prints verdicts and scores.
 *     whole_guard BUNDLE < IDS
 * A line of IDS is one text: token ids separated by spaces. The bundle's graph must give the states
 * of every token (`layerguard export --mode states`). Link with ONNX Runtime and liblayerguard. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <layerguard.h>
#include <onnxruntime_c_api.h>

enum { TOKENS = 4096, LAYERS = 256, LINE = 1 << 16 };

static OrtApi const *ort;

static void stop(char const *const what, char const *const why)
{
    fprintf(stderr, "whole_guard: %s: %s\n", what, why);
    exit(2);
}

static void check(OrtStatus *const status)
{
    if (status)
        stop("onnxruntime", ort->GetErrorMessage(status));
}

static void check_guard(lg_status const status)
{
    if (status != LG_OK)
        stop("layerguard", lg_strerror(status));
}

static OrtSession *open_graph(OrtEnv *const env, char const *const bundle)
{
    char path[1024];
    OrtSessionOptions *options;
    OrtSession *session;
    snprintf(path, sizeof path, "%s/score.onnx", bundle);
    check(ort->CreateSessionOptions(&options));
    check(ort->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"));
    check(ort->CreateSession(env, path, options, &session));
    ort->ReleaseSessionOptions(options);
    return session;
}

static lg_guard *open_guard(char const *const bundle)
{
    char path[1024], why[256] = "";
    lg_open_options const options = {sizeof options, 0, why, sizeof why};
    lg_guard *guard;
    snprintf(path, sizeof path, "%s/detectors.npz", bundle);
    if (lg_open(path, &options, &guard) != LG_OK)
        stop(path, why);
    return guard;
}

/* Refuses detectors of different views: each view would need its own list of tokens. */
static void check_views(lg_guard const *const guard, size_t const detectors)
{
    lg_detector_info first = {.struct_size = sizeof first}, next = first;
    check_guard(lg_detector_describe(guard, 0, &first));
    for (size_t d = 1; d < detectors; d++) {
        check_guard(lg_detector_describe(guard, d, &next));
        if (next.view != first.view)
            stop(next.name, "reads another view than the first detector: expected one view");
    }
}

/* Parses the token ids of a line and returns their number. Stops the program on an invalid or too
 * long line: a text that was read in part must not pass. */
static size_t parse(char *const line, int64_t ids[TOKENS])
{
    size_t count = 0;
    if (!strchr(line, '\n') && !feof(stdin))
        stop("a line", "is longer than this program accepts");
    for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
        char *end;
        if (count == TOKENS)
            stop("a line", "has more tokens than this program accepts");
        ids[count++] = strtoll(word, &end, 10);
        if (*end)
            stop(word, "is not a token id");
    }
    return count;
}

/* The data of a state, which must be float32 [1, tokens, width]. */
static void const *state_of(OrtValue *const value, size_t const tokens, size_t const width)
{
    OrtTensorTypeAndShapeInfo *info;
    ONNXTensorElementDataType type;
    int64_t shape[3] = {0};
    size_t rank;
    void *data;
    check(ort->GetTensorTypeAndShape(value, &info));
    check(ort->GetTensorElementType(info, &type));
    check(ort->GetDimensionsCount(info, &rank));
    check(ort->GetDimensions(info, shape, rank < 3 ? rank : 3));
    ort->ReleaseTensorTypeAndShapeInfo(info);
    if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || rank != 3 || shape[1] != (int64_t)tokens
        || shape[2] != (int64_t)width)
        stop("a state", "is not float32 [1, tokens, width] of the guard's model");
    check(ort->GetTensorMutableData(value, &data));
    return data;
}

/* Runs the graph on one text: values[l] is its state after block l, [1, tokens, width]. */
static void run_graph(OrtSession *const session, OrtMemoryInfo const *const memory,
                      int64_t *const ids, size_t const tokens, size_t const states,
                      OrtValue *values[LAYERS])
{
    static char const *const inputs[] = {"input_ids", "attention_mask"};
    static char names[LAYERS][16];
    int64_t const shape[] = {1, (int64_t)tokens};
    int64_t mask[TOKENS];
    char const *outputs[LAYERS];
    OrtValue *feeds[2];
    int64_t *const arrays[] = {ids, mask};
    for (size_t t = 0; t < tokens; t++)
        mask[t] = 1;
    for (size_t l = 0; l < states; l++) {
        snprintf(names[l], sizeof names[l], "state_%02zu", l);
        outputs[l] = names[l];
        values[l] = NULL;
    }
    for (size_t i = 0; i < 2; i++)
        check(ort->CreateTensorWithDataAsOrtValue(memory, arrays[i], tokens * sizeof *ids, shape, 2,
                                                  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &feeds[i]));
    check(ort->Run(session, NULL, inputs, (OrtValue const *const *)feeds, 2, outputs, states,
                   values));
    ort->ReleaseValue(feeds[0]);
    ort->ReleaseValue(feeds[1]);
}

int main(int const count, char **const arguments)
{
    if (count != 2)
        stop("found no BUNDLE", "whole_guard BUNDLE < IDS");
    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!ort)
        stop("onnxruntime", "is older than its header");
    OrtEnv *env;
    OrtMemoryInfo *memory;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "whole_guard", &env));
    check(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    OrtSession *const session = open_graph(env, arguments[1]);
    lg_guard *const guard = open_guard(arguments[1]);
    lg_guard_info info = {.struct_size = sizeof info};
    check_guard(lg_guard_describe(guard, &info));
    if (!info.states_known || !info.width_known)
        stop(arguments[1], "the archive does not hold the model's size; calibrate again");
    check_views(guard, info.detectors);
    if (info.states > LAYERS)
        stop(arguments[1], "the model has more layers than this program accepts");
    lg_reading *const readings = calloc(info.detectors, sizeof *readings);
    void *const workspace = malloc(info.workspace);

    static char line[LINE];
    static int64_t ids[TOKENS];
    while (fgets(line, sizeof line, stdin)) {
        size_t const tokens = parse(line, ids);
        OrtValue *values[LAYERS];
        void const *layers[LAYERS];
        run_graph(session, memory, ids, tokens, info.states, values);
        for (size_t l = 0; l < info.states; l++)
            layers[l] = state_of(values[l], tokens, info.width);
        lg_states const states = {.layers = layers,
                                  .row_stride = (ptrdiff_t)(info.width * 4),
                                  .layer_count = info.states,
                                  .rows = tokens,
                                  .width = info.width,
                                  .dtype = LG_F32};
        lg_score_call const score = {.struct_size = sizeof score,
                                     .states = states,
                                     .workspace = workspace,
                                     .workspace_size = info.workspace,
                                     .readings = readings,
                                     .reading_size = sizeof *readings};
        lg_decide_call const decide = {sizeof decide, readings, sizeof *readings, NULL};
        lg_verdict verdict = {.struct_size = sizeof verdict};
        check_guard(lg_score(guard, &score));
        check_guard(lg_decide(guard, &decide, &verdict));
        printf("%d", verdict.flagged);
        for (size_t d = 0; d < info.detectors; d++)
            printf(" %.17g", readings[d].score);
        printf("\n");
        fflush(stdout);
        for (size_t l = 0; l < info.states; l++)
            ort->ReleaseValue(values[l]);
    }
    free(workspace);
    free(readings);
    lg_close(guard);
    ort->ReleaseSession(session);
    ort->ReleaseMemoryInfo(memory);
    ort->ReleaseEnv(env);
    return 0;
}
