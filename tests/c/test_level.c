/* Selection of a level: by environment, by name, by processor, and by many threads at once.
 * Includes the source file, to simulate a processor without wide vectors. */
#define _POSIX_C_SOURCE 200112L /* setenv */

static int processor_is_new = 1;
#define __builtin_cpu_init() ((void)0)
#define __builtin_cpu_supports(feature) processor_is_new
#include "level.c"

#include <pthread.h>

#include "check.h"

static char const *level(void)
{
    char const *name = NULL;
    CHECK(lg_level(&name) == LG_OK);
    return name;
}

static void *first_use(void *const names)
{
    CHECK(lg_level(names) == LG_OK);
    return NULL;
}

static void check_threads(void)
{
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    char const *names[THREADS];
    for (size_t t = 0; t < THREADS; t++)
        CHECK(pthread_create(&threads[t], NULL, first_use, &names[t]) == 0);
    for (size_t t = 0; t < THREADS; t++)
        CHECK(pthread_join(threads[t], NULL) == 0 && strcmp(names[t], level()) == 0);
}

static void check_names(void)
{
    CHECK(lg_level(NULL) == LG_ERR_NULL);
    CHECK(lg_set_level("x86-64-v9") == LG_ERR_LEVEL_UNKNOWN);
    CHECK(lg_set_level("") == LG_OK);
    for (size_t i = 0; i < LEVELS; i++) {
        CHECK(lg_set_level(levels[i].name) == LG_OK && strcmp(level(), levels[i].name) == 0);
        CHECK(lg_set_level("avx") == LG_ERR_LEVEL_UNKNOWN); /* the level does not change */
        CHECK(strcmp(level(), levels[i].name) == 0);
    }
}

static void check_environment(void)
{
    atomic_store(&in_use, NULL);
    CHECK(setenv("LAYERGUARD_LEVEL", "fast", 1) == 0);
    char const *name = "untouched";
    CHECK(lg_level(&name) == LG_ERR_LEVEL_UNKNOWN && strcmp(name, "untouched") == 0);
    double score, z, one = 1.0;
    float const value = 0.0f, unit = 1.0f;
    lg_lcf const model = {1, 1, &value, &unit, &z, &one, &one, &one};
    lg_states const states = {NULL, &value, 0, 0, 2, 1, 1, LG_F32};
    CHECK(lg_lcf_score(&(lg_lcf_call){&model, states, &score, &z}) == LG_ERR_LEVEL_UNKNOWN);
    CHECK(setenv("LAYERGUARD_LEVEL", levels[0].name, 1) == 0);
    CHECK(strcmp(level(), levels[0].name) == 0);
    CHECK(setenv("LAYERGUARD_LEVEL", "", 1) == 0 && lg_set_level(NULL) == LG_OK);
    CHECK(strcmp(level(), levels[LEVELS - 1].name) == 0);
}

static void check_old_processor(void)
{
    processor_is_new = 0;
    CHECK(lg_set_level(NULL) == LG_OK && strcmp(level(), levels[0].name) == 0);
    for (size_t i = 1; i < LEVELS; i++)
        CHECK(lg_set_level(levels[i].name) == LG_ERR_LEVEL_UNSUPPORTED);
}

int main(void)
{
    check_threads();
    check_names();
    check_environment();
    check_old_processor();
    return 0;
}
