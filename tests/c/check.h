/* Shared by the C tests: a check that stops the program, seeded random numbers, and buffers without
 * slack, so that the address sanitizer detects any read beyond the data. */
#ifndef LG_CHECK_H
#define LG_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layerguard.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Widths around multiples of 32 lanes and of the 256-element blocks of half precision. */
static size_t const WIDTHS[] = {1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 97, 255, 256, 257, 384, 1024};

static char const *const LEVEL_NAMES[] = {"x86-64", "x86-64-v3", "x86-64-v4", "portable"};

static inline void *buffer(size_t const count, size_t const size)
{
    void *const memory = malloc(count * size);
    CHECK(memory != NULL);
    return memory;
}

/* Uniform in [-1, 1), by a linear congruential generator (Knuth's MMIX constants). */
static inline double number(uint64_t *const seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(*seed >> 11) / 4503599627370496.0 - 1.0;
}

static inline float *floats(size_t const count, uint64_t *const seed)
{
    float *const values = buffer(count, sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)number(seed);
    return values;
}

/* The upper half of each float32: a bfloat16 of nearly the same value. */
static inline uint16_t *bfloats(size_t const count, float const *const values)
{
    uint16_t *const halves = buffer(count, sizeof *halves);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        halves[i] = (uint16_t)(bits >> 16);
    }
    return halves;
}

static inline float bfloat_value(uint16_t const half)
{
    uint32_t const bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE binary16 by its definition. */
static inline float half_value(uint16_t const half)
{
    int const exponent = (half >> 10) & 31;
    double const fraction = (double)(half & 1023) / 1024.0;
    double const sign = half & 0x8000 ? -1.0 : 1.0;
    if (exponent == 31)
        return fraction > 0.0 ? NAN : (float)(sign * INFINITY);
    return (float)(sign * (exponent ? ldexp(1.0 + fraction, exponent - 15) : ldexp(fraction, -14)));
}

#endif
