/* Internal declarations of the C core: the kernel table of a level, row addresses.
 *
 * Precision policy of every kernel. States widen to float32 exactly. Long float32 sums run in
 * LG_LANES lanes that are added as a halving tree. Multiplication and addition are separate
 * operations (-ffp-contract=off) unless the source uses an FMA (fused.h). The source thus fixes the
 * order of every rounding, and a wider vector unit only processes more lanes at once: all levels give
 * the same bits, tails included. The steps after a long sum (square root, standardisation, quadratic
 * form, softmax) use double.
 */
#ifndef LG_INTERNAL_H
#define LG_INTERNAL_H

#include <math.h> /* NAN */

#include "layerguard.h"

/* Rows that SIREN's network processes together: each weight is read once for all of them. More rows
 * would only need a larger workspace. */
enum { LG_SIREN_ROWS = 64 };

/* Most tokens whose cosines are computed together: each direction is read once for all of them. */
enum { LG_TOKENS_AT_ONCE = 6 };

/* The contribution of each chosen layer of a row to the logit difference: input times gradient. */
typedef struct lg_shares_call {
    lg_siren const *model;
    lg_states const *states;
    size_t row;
    double *shares;   /* (K), written */
    float *workspace; /* (lg_shares_workspace), written */
} lg_shares_call;

/* Floats of workspace for a row's shares. */
size_t lg_shares_workspace(lg_siren const *model);

/* One level: all kernels compiled for one instruction set. The caller has checked the arguments. */
typedef struct lg_kernels {
    char const *name;
    int (*supported)(void);
    void (*lcf)(lg_lcf_call const *call);
    void (*pool_mean)(lg_pool_call const *call);
    void (*pool_last)(lg_pool_call const *call);
    void (*sums)(lg_sums_call const *call);
    void (*siren)(lg_siren_call const *call);
    void (*siren_shares)(lg_shares_call const *call);
    void (*extremes)(lg_extremes_call const *call);
    void (*excess)(lg_excess_call const *call);
    void (*windows)(lg_windows_call const *call);
} lg_kernels;

/* The levels of this build, lowest first. */
#ifdef __x86_64__
#define LG_FOR_EACH_LEVEL(X) X(x86_64) X(x86_64_v3) X(x86_64_v4)
#else
#define LG_FOR_EACH_LEVEL(X) X(portable)
#endif

#define LG_DECLARE(level)                                                                          \
    void lg_lcf_##level(lg_lcf_call const *call);                                                  \
    void lg_pool_mean_##level(lg_pool_call const *call);                                           \
    void lg_pool_last_##level(lg_pool_call const *call);                                           \
    void lg_sums_##level(lg_sums_call const *call);                                                \
    void lg_siren_##level(lg_siren_call const *call);                                              \
    void lg_siren_shares_##level(lg_shares_call const *call);                                      \
    void lg_extremes_##level(lg_extremes_call const *call);                                        \
    void lg_excess_##level(lg_excess_call const *call);                                            \
    void lg_windows_##level(lg_windows_call const *call);
LG_FOR_EACH_LEVEL(LG_DECLARE)
#undef LG_DECLARE

/* The build compiles each family once for each level, with LG_LEVEL set to its symbol. */
#define LG_JOIN_(name, level) name##_##level
#define LG_JOIN(name, level) LG_JOIN_(name, level)
#define LG_AT_LEVEL(name) LG_JOIN(name, LG_LEVEL)

/* The level in use, or null with *status set. */
lg_kernels const *lg_kernels_in_use(lg_status *status);

/* softmax((safe, harm))[1]; compiled once, so that all levels use the same exponential. */
double lg_softmax_second(double safe, double harm);

/* Bytes of one element, 0 for an unknown dtype. */
static inline size_t lg_element_size(int const dtype)
{
    return dtype == LG_F32 ? 4 : dtype == LG_F16 || dtype == LG_BF16 ? 2 : 0;
}

static inline void const *lg_row(lg_states const *const states, size_t const layer,
                                 size_t const row)
{
    char const *const start
        = states->layers ? (char const *)states->layers[layer]
                         : (char const *)states->base + (ptrdiff_t)layer * states->layer_stride;
    return start + (row ? (ptrdiff_t)row * states->row_stride : 0);
}

/* NaN with a fixed bit pattern: instruction sets differ in which NaN an operation returns. */
static inline double lg_canonical(double const x)
{
    return x == x ? x : (double)NAN;
}

#endif
