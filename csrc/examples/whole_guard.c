/* A whole guard in one process and no Python in it: token ids in, verdicts and scores out.
 *     whole_guard BUNDLE < IDS
 * A line of IDS is a text, its token ids apart by spaces. The bundle's graph gives every token's
 * states (`layerguard export --mode states`). Link it with ONNX Runtime and liblayerguard. */
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

/* The token ids of a line; how many there are. */
static size_t parse(char *const line, int64_t ids[TOKENS])
{
    size_t count = 0;
    for (char *word = strtok(line, " \n"); word && count < TOKENS; word = strtok(NULL, " \n"))
        ids[count++] = strtoll(word, NULL, 10);
    return count;
}

/* Runs the graph over one text: values[l] is its state after block l, [1, tokens, width]. */
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
    int64_t *const given[] = {ids, mask};
    for (size_t t = 0; t < tokens; t++)
        mask[t] = 1;
    for (size_t l = 0; l < states; l++) {
        snprintf(names[l], sizeof names[l], "state_%02zu", l);
        outputs[l] = names[l];
        values[l] = NULL;
    }
    for (size_t i = 0; i < 2; i++)
        check(ort->CreateTensorWithDataAsOrtValue(memory, given[i], tokens * sizeof *ids, shape, 2,
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
    if (info.states > LAYERS)
        stop(arguments[1], "the model has more layers than this program takes");
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
            check(ort->GetTensorMutableData(values[l], (void **)&layers[l]));
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
