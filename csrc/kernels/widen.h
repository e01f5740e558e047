/* Converts float16 and bfloat16 to float32: exact, without branches, with integer operations that
 * every level vectorises and without subnormal operands, which need a microcode assist. Levels that
 * have the F16C instruction use it; only the payload of a NaN may differ.
 */
#ifndef LG_WIDEN_H
#define LG_WIDEN_H

#include <stdint.h> /* uint16_t, uint32_t */
#include <string.h> /* memcpy */

#ifdef __F16C__
#include <immintrin.h> /* _mm256_cvtph_ps */
#endif

#include "internal.h"

enum { LG_BLOCK = 256 }; /* elements widened at a time: two blocks fit in L1 */

static inline float lg_float_of_bits(uint32_t const bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float lg_widen_bf16(uint16_t const half)
{
    return lg_float_of_bits((uint32_t)half << 16);
}

/* Shifts exponent and fraction into place and re-biases the exponent by 127 - 15 = 112, twice for
 * infinity and NaN. A subnormal gets exponent 113, which adds 2^-14: subtracting that normalises.
 */
static inline float lg_widen_f16(uint16_t const half)
{
    uint32_t const sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t const magnitude = (uint32_t)(half & 0x7fffu) << 13;
    uint32_t const rebias = magnitude < (0x7c00u << 13) ? 112u << 23 : 224u << 23;
    float const subnormal
        = lg_float_of_bits(magnitude + (113u << 23)) - lg_float_of_bits(113u << 23);
    uint32_t subnormal_bits;
    memcpy(&subnormal_bits, &subnormal, sizeof subnormal_bits);
    return lg_float_of_bits(sign
                            | (magnitude < (0x0400u << 13) ? subnormal_bits : magnitude + rebias));
}

/* `count` elements of half precision, from element `first` of `row` on, as float32. */
static inline void lg_widen(int const dtype, void const *const row, size_t const first,
                            size_t const count, float *restrict const out)
{
    uint16_t const *restrict const halves = (uint16_t const *)row + first;
    size_t i = 0;
    if (dtype == LG_BF16) {
        for (; i < count; i++)
            out[i] = lg_widen_bf16(halves[i]);
        return;
    }
#ifdef __F16C__ /* LCF on float16 states takes a third to a half of the time (tests/bench/bench_levels.py) */
#ifdef __AVX512F__
    for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps(out + i,
                         _mm512_cvtph_ps(_mm256_loadu_si256((__m256i const *)(halves + i))));
#endif
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((__m128i const *)(halves + i))));
#endif
    for (; i < count; i++)
        out[i] = lg_widen_f16(halves[i]);
}

/* Elements of the block that starts at `first` in a row of `width`. */
static inline size_t lg_block(size_t const first, size_t const width)
{
    return width - first < LG_BLOCK ? width - first : (size_t)LG_BLOCK;
}

#endif
