/* Long float32 sums: in lanes that are added as a halving tree. Element i goes to lane i % LG_LANES. */
#ifndef LG_LANES_H
#define LG_LANES_H

#include <stddef.h> /* size_t */

enum { LG_LANES = 32 }; /* two registers of AVX-512, four of AVX2, eight of SSE2 */

/* If inlined into the loop over rows, the lanes would be in memory instead of registers, and the trees
 * of several sums would be mixed by shuffles: 10 to 33 % slower. */
#define LG_NOINLINE __attribute__((noinline))

/* Unrolls a short loop over sums in registers; without it gcc keeps them in memory. Not used with
 * sanitizers, whose checks would make compilation take minutes. */
#if defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define LG_UNROLL _Pragma("GCC unroll 8")
#else
#define LG_UNROLL
#endif

/* The sum of all lanes; overwrites them. */
LG_NOINLINE static float lg_sum_lanes(float lanes[LG_LANES])
{
    for (size_t k = 0; k < 16; k++)
        lanes[k] += lanes[k + 16];
    for (size_t k = 0; k < 8; k++)
        lanes[k] += lanes[k + 8];
    for (size_t k = 0; k < 4; k++)
        lanes[k] += lanes[k + 4];
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

#endif
