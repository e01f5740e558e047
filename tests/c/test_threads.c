/* Eight threads score with one guard, each with its own memory: every call gives the same bits as a
 * single thread. Also built with the thread sanitizer (make threads).
 *     test_threads ARCHIVE CALLS */
#include <pthread.h>

#include "check.h"

enum { THREADS = 8, TOKENS = 5, TEXTS = 4 };

typedef struct worker {
    lg_guard const *guard;
    lg_guard_info const *info;
    float const *states; /* (TEXTS, states, TOKENS, width) */
    lg_reading const *expected;
    size_t calls;
} worker;

static lg_states text(worker const *const of, size_t const index)
{
    size_t const row = of->info->width, layer = row * TOKENS, whole = layer * of->info->states;
    return (lg_states){.base = of->states + index * whole,
                       .layer_stride = (ptrdiff_t)(layer * sizeof(float)),
                       .row_stride = (ptrdiff_t)(row * sizeof(float)),
                       .layer_count = of->info->states,
                       .rows = TOKENS,
                       .width = row,
                       .dtype = LG_F32};
}

static void score(worker const *const of, size_t const index, void *const workspace,
                  lg_reading *const readings)
{
    lg_score_call const call = {.struct_size = sizeof call,
                                .states = text(of, index),
                                .workspace = workspace,
                                .workspace_size = of->info->workspace,
                                .readings = readings,
                                .reading_size = sizeof *readings};
    lg_verdict verdict = {.struct_size = sizeof verdict};
    lg_decide_call const decide
        = {.struct_size = sizeof decide, .readings = readings, .reading_size = sizeof *readings};
    CHECK(lg_score(of->guard, &call) == LG_OK);
    CHECK(lg_decide(of->guard, &decide, &verdict) == LG_OK);
}

static void *work(void *const argument)
{
    worker const *const of = argument;
    size_t const size = of->info->detectors * sizeof(lg_reading);
    void *const workspace = buffer(of->info->workspace, 1);
    lg_reading *const readings = buffer(size, 1);
    for (size_t i = 0; i < of->calls; i++) {
        memset(readings, 0, size);
        score(of, i % TEXTS, workspace, readings);
        CHECK(memcmp(readings, of->expected + i % TEXTS * of->info->detectors, size) == 0);
    }
    free(readings);
    free(workspace);
    return NULL;
}

int main(int const count, char **const arguments)
{
    CHECK(count == 3);
    lg_guard *guard;
    CHECK(lg_open(arguments[1], NULL, &guard) == LG_OK);
    lg_guard_info info = {.struct_size = sizeof info};
    CHECK(lg_guard_describe(guard, &info) == LG_OK);
    uint64_t seed = 5;
    float *const states = floats(TEXTS * info.states * TOKENS * info.width, &seed);
    lg_reading *const expected = buffer(TEXTS * info.detectors, sizeof *expected);
    memset(expected, 0, TEXTS * info.detectors * sizeof *expected);
    worker of = {guard, &info, states, expected, strtoul(arguments[2], NULL, 10) / THREADS};
    void *const workspace = buffer(info.workspace, 1);
    for (size_t i = 0; i < TEXTS; i++)
        score(&of, i, workspace, expected + i * info.detectors);
    free(workspace);
    pthread_t threads[THREADS];
    for (size_t t = 0; t < THREADS; t++)
        CHECK(pthread_create(&threads[t], NULL, work, &of) == 0);
    for (size_t t = 0; t < THREADS; t++)
        CHECK(pthread_join(threads[t], NULL) == 0);
    printf("%zu calls from %d threads\n", of.calls * THREADS, THREADS);
    free(expected);
    free(states);
    lg_close(guard);
    return 0;
}
