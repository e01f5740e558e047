/* Times lg_score of a guard that has LCF alone against the kernel called by itself, turn by turn.
 *     c_library detectors.npz
 * Prints the medians of both, in microseconds. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <layerguard.h>

enum { ROUNDS = 401, CALLS = 1000 };

static double microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
}

static int compare(void const *const first, void const *const second)
{
    double const a = *(double const *)first, b = *(double const *)second;
    return a < b ? -1 : a > b;
}

static double median(double times[ROUNDS])
{
    qsort(times, ROUNDS, sizeof *times, compare);
    return times[ROUNDS / 2] / CALLS;
}

/* What LCF divides by and adds: any numbers do. */
static void *filled(size_t const count, size_t const size)
{
    void *const values = calloc(count, size);
    for (size_t i = 0; values && i < count; i++)
        if (size == sizeof(float))
            ((float *)values)[i] = (float)(i % 7) + 1.0f;
        else
            ((double *)values)[i] = (double)(i % 7) + 1.0;
    return values;
}

int main(int const count, char **const arguments)
{
    lg_guard *guard;
    lg_guard_info info = {.struct_size = sizeof info};
    if (count != 2 || lg_open(arguments[1], NULL, &guard) != LG_OK
        || lg_guard_describe(guard, &info) != LG_OK || info.detectors != 1)
        return 2;
    size_t const depth = info.states - 1, values = depth * info.width;
    lg_lcf const model = {depth,
                          info.width,
                          filled(values, sizeof(float)),
                          filled(values, sizeof(float)),
                          filled(depth, sizeof(double)),
                          filled(depth, sizeof(double)),
                          filled(depth, sizeof(double)),
                          filled(depth * depth, sizeof(double))};
    double score;
    lg_reading reading;
    lg_lcf_call const kernel = {
        .model = &model,
        .states = {.base = filled(values + info.width, sizeof(float)),
                   .layer_stride = (ptrdiff_t)(info.width * sizeof(float)),
                   .layer_count = info.states,
                   .rows = 1,
                   .width = info.width,
                   .dtype = LG_F32},
        .scores = &score,
        .z = filled(depth, sizeof(double)),
    };
    lg_score_call const whole = {.struct_size = sizeof whole,
                                 .states = kernel.states,
                                 .workspace = malloc(info.workspace),
                                 .workspace_size = info.workspace,
                                 .readings = &reading,
                                 .reading_size = sizeof reading};
    if (lg_lcf_score(&kernel) != LG_OK || lg_score(guard, &whole) != LG_OK)
        return 2;
    static double alone[ROUNDS], guarded[ROUNDS];
    for (size_t r = 0; r < ROUNDS; r++) {
        double const start = microseconds();
        for (size_t i = 0; i < CALLS; i++)
            lg_lcf_score(&kernel);
        double const between = microseconds();
        for (size_t i = 0; i < CALLS; i++)
            lg_score(guard, &whole);
        alone[r] = between - start;
        guarded[r] = microseconds() - between;
    }
    printf("%.4f %.4f\n", median(alone), median(guarded));
    return 0; /* the process ends: nothing is freed */
}
