/* The level in use: an atomic pointer to the kernels of a level, the library's only global. */
#include <stdatomic.h> /* _Atomic */
#include <stdlib.h>    /* getenv */
#include <string.h>    /* strcmp */

#include "internal.h"

static int supports_portable(void)
{
    return 1;
}

#ifdef __x86_64__
/* A subset of the level's features: those that every compiler can test. No processor has them without
 * the others. The compiler's test includes whether the system saves the registers. */
static int supports_v3(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
           && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

static int supports_v4(void)
{
    return supports_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
           && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
           && __builtin_cpu_supports("avx512vl");
}
#endif

#define LG_LEVEL_ENTRY(name, supported, level)                                                     \
    {name,                                                                                         \
     supported,                                                                                    \
     lg_lcf_##level,                                                                               \
     lg_pool_mean_##level,                                                                         \
     lg_pool_last_##level,                                                                         \
     lg_sums_##level,                                                                              \
     lg_siren_##level,                                                                             \
     lg_siren_shares_##level,                                                                      \
     lg_extremes_##level,                                                                          \
     lg_excess_##level,                                                                            \
     lg_windows_##level}

static lg_kernels const levels[] = {
#ifdef __x86_64__
    LG_LEVEL_ENTRY("x86-64", supports_portable, x86_64),
    LG_LEVEL_ENTRY("x86-64-v3", supports_v3, x86_64_v3),
    LG_LEVEL_ENTRY("x86-64-v4", supports_v4, x86_64_v4),
#else
    LG_LEVEL_ENTRY("portable", supports_portable, portable),
#endif
};

enum { LEVELS = sizeof levels / sizeof *levels };

static lg_kernels const *_Atomic in_use;

/* The level of this name; without a name, the highest that the processor supports. */
static lg_status find(char const *const name, lg_kernels const **const kernels)
{
    for (size_t i = LEVELS; i-- > 0;) {
        if (name && strcmp(name, levels[i].name) != 0)
            continue;
        if (levels[i].supported()) {
            *kernels = &levels[i];
            return LG_OK;
        }
        if (name)
            return LG_ERR_LEVEL_UNSUPPORTED;
    }
    return LG_ERR_LEVEL_UNKNOWN;
}

lg_status lg_set_level(char const *const name)
{
    char const *const requested = name ? name : getenv("LAYERGUARD_LEVEL");
    lg_kernels const *kernels = 0;
    lg_status const status = find(requested && *requested ? requested : 0, &kernels);
    if (status == LG_OK)
        atomic_store_explicit(&in_use, kernels, memory_order_release);
    return status;
}

lg_kernels const *lg_kernels_in_use(lg_status *const status)
{
    lg_kernels const *const kernels = atomic_load_explicit(&in_use, memory_order_acquire);
    if (kernels) {
        *status = LG_OK;
        return kernels;
    }
    *status = lg_set_level(0);
    return atomic_load_explicit(&in_use, memory_order_acquire);
}

lg_status lg_level(char const **const name)
{
    if (!name)
        return LG_ERR_NULL;
    lg_status status;
    lg_kernels const *const kernels = lg_kernels_in_use(&status);
    if (kernels)
        *name = kernels->name;
    return status;
}
