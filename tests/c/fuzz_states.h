/* The input of the fuzz target of the calls that score: states of any layout out of bytes, and faults
 * with the status that each must give. */
#ifndef LG_FUZZ_STATES_H
#define LG_FUZZ_STATES_H

#include "check.h"

enum { MOST_ROWS = 70 };

/* ---- the bytes ------------------------------------------------------------------------------- */

typedef struct input {
    uint8_t const *data;
    size_t left;
} input;

/* The next byte, below `count`; 0 after the last one. */
static inline size_t pick(input *const from, size_t const count)
{
    if (!from->left)
        return 0;
    from->left--;
    return *from->data++ % count;
}

/* ---- the faults ------------------------------------------------------------------------------ */

typedef enum fault {
    NO_FAULT,
    NULL_CALL,
    NULL_GUARD,
    NULL_STATES,
    NULL_LAYER,
    UNKNOWN_DTYPE,
    NO_LAYER,
    NO_WIDTH,
    FEWER_LAYERS,
    MORE_LAYERS,
    NARROWER,
    WIDER,
    MISALIGNED_STATES,
    ODD_ROW_STRIDE,
    ODD_LAYER_STRIDE,
    HUGE_ROW_STRIDE,
    HUGE_LAYER_STRIDE,
    HUGE_ROWS,
    HUGE_WIDTH,
    NULL_WORKSPACE,
    SMALL_WORKSPACE,
    MISALIGNED_WORKSPACE,
    NULL_READINGS,
    SMALL_READING,
    LARGE_READING,
    ODD_READING,
    MISALIGNED_READINGS,
    SMALL_STRUCT,
    LARGE_STRUCT,
    UNKNOWN_FIELD,
    NO_DETECTOR,
    NULL_EVIDENCE,
    MISALIGNED_EVIDENCE,
    HUGE_EVIDENCE,
    FAULTS
} fault;

/* The statuses that a call may return: bit -status. None: it must return LG_OK. */
typedef struct verdicts {
    uint32_t allowed;
    int has[FAULTS];
} verdicts;

static inline void allow(verdicts *const to, lg_status const status)
{
    to->allowed |= UINT32_C(1) << -status;
}

/* Whether the bytes chose the fault, which then allows the status. */
static inline int has(verdicts *const to, fault const which, lg_status const status)
{
    if (to->has[which])
        allow(to, status);
    return to->has[which];
}

static inline verdicts choose_faults(input *const from)
{
    verdicts found = {0};
    size_t const count = pick(from, 4); /* half of the calls have none */
    for (size_t i = 2; i <= count; i++)
        found.has[pick(from, FAULTS)] = 1;
    return found;
}

/* ---- the states ------------------------------------------------------------------------------ */

/* What a call must be given: sizes, and whether other ones are refused. */
typedef struct wanted {
    size_t states, width;
    int states_known, width_known, float_only;
} wanted;

/* States in memory without slack. */
typedef struct memory {
    lg_states states;
    void *blocks[16];
    void const *layers[16];
    size_t block_count;
} memory;

static inline size_t element_size(int const dtype)
{
    return dtype == LG_F32 ? 4 : 2;
}

static inline void write_element(input *const from, int const dtype, uint64_t *const seed,
                                 void *const to)
{
    static float const special[] = {0.0f,     -0.0f,     1e-45f, -1e-39f, 3e38f,      -3e38f,
                                    INFINITY, -INFINITY, NAN,    1e30f,   16777216.0f};
    static uint16_t const halves[]
        = {0x0000, 0x8000, 0x0001, 0x83ff, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x7f80, 0xff80, 0x7fc1};
    float const plain = (float)number(seed) * 4.0f;
    size_t const odd = from->left ? pick(from, 40) : COUNT(special);
    if (dtype == LG_F32)
        memcpy(to, odd < COUNT(special) ? &special[odd] : &plain, sizeof plain);
    else {
        uint32_t bits;
        memcpy(&bits, &plain, sizeof bits);
        uint16_t const half = odd < COUNT(halves) ? halves[odd] : (uint16_t)(bits >> 16);
        memcpy(to, &half, sizeof half);
    }
}

static inline void fill(input *const from, lg_states const *const states, char *const start)
{
    uint64_t seed = pick(from, 256);
    size_t const size = element_size(states->dtype);
    for (size_t r = 0; r < states->rows; r++)
        for (size_t i = 0; i < states->width; i++)
            write_element(from, states->dtype, &seed,
                          start + (ptrdiff_t)r * states->row_stride + (ptrdiff_t)(i * size));
}

static inline size_t magnitude(ptrdiff_t const stride)
{
    return (size_t)(stride < 0 ? -stride : stride);
}

/* A stride of whole elements: usual, with padding, zero or negative. */
static inline ptrdiff_t choose_stride(input *const from, size_t const usual, size_t const size)
{
    ptrdiff_t const stride = (ptrdiff_t)(usual + size * pick(from, 3));
    size_t const kind = pick(from, 8);
    return kind == 0 ? 0 : kind < 3 ? -stride : stride;
}

/* Zero bytes for the `rows` rows of `layers` layers. Returns where the first row starts. */
static inline char *reserve(memory *const to, size_t const layers)
{
    lg_states const *const s = &to->states;
    size_t const rows = s->rows ? s->rows - 1 : 0, others = layers ? layers - 1 : 0;
    size_t const row_span = rows * magnitude(s->row_stride);
    size_t const layer_span = others * magnitude(s->layer_stride);
    char *const block
        = buffer(row_span + layer_span + s->width * element_size(s->dtype) + !s->rows, 1);
    CHECK(to->block_count < COUNT(to->blocks));
    to->blocks[to->block_count++] = block;
    return block + (s->row_stride < 0 ? row_span : 0) + (s->layer_stride < 0 ? layer_span : 0);
}

static inline void choose_states(input *const from, wanted const *const want, memory *const to)
{
    static size_t const wider[] = {0, 1, 7, 31, 250, 300};
    lg_states *const s = &to->states;
    int const layered = (int)pick(from, 2);
    s->dtype = want->float_only ? LG_F32 : (int)pick(from, 3);
    s->rows = pick(from, 16) < 14 ? 1 + pick(from, 12) : pick(from, MOST_ROWS);
    s->layer_count = want->states + (want->states_known ? 0 : pick(from, 3));
    s->width = want->width + (want->width_known ? 0 : wider[pick(from, COUNT(wider))]);
    CHECK(s->layer_count < COUNT(to->layers));
    size_t const size = element_size(s->dtype);
    s->row_stride = choose_stride(from, s->width * size, size);
    s->layer_stride
        = layered ? 0 : choose_stride(from, s->rows * magnitude(s->row_stride) + size, size);
    if (!layered) {
        char *const start = reserve(to, s->layer_count);
        s->base = start;
        for (size_t l = 0; l < s->layer_count; l++)
            fill(from, s, start + (ptrdiff_t)l * s->layer_stride);
        return;
    }
    for (size_t l = 0; l < s->layer_count; l++) {
        int const shared = l && pick(from, 8) == 7; /* two layers may be the same rows */
        char *const start = shared ? NULL : reserve(to, 1);
        to->layers[l] = shared ? to->layers[l - 1] : start;
        if (!shared)
            fill(from, s, start);
    }
    s->layers = to->layers;
    if (s->rows < 2)
        s->row_stride = PTRDIFF_MAX - (ptrdiff_t)pick(from, 9); /* not read */
}

static inline void spoil_states(verdicts *const found, wanted const *const want, memory *const to)
{
    lg_states *const s = &to->states;
    int const read = s->rows > 0, based = !s->layers;
    if (want->states > 1 && has(found, FEWER_LAYERS, LG_ERR_SHAPE))
        s->layer_count = want->states - 1;
    if (want->states_known && has(found, MORE_LAYERS, LG_ERR_SHAPE)) {
        to->layers[want->states] = to->layers[0];
        s->layer_count = want->states + 1;
    }
    if (want->width > 1 && has(found, NARROWER, LG_ERR_SHAPE))
        s->width = want->width - 1;
    if (want->width_known && has(found, WIDER, LG_ERR_SHAPE))
        s->width = want->width + 1;
    if (has(found, NO_LAYER, LG_ERR_SHAPE))
        s->layer_count = 0;
    if (has(found, NO_WIDTH, LG_ERR_SHAPE))
        s->width = 0;
    if (has(found, HUGE_WIDTH, LG_ERR_OVERFLOW))
        s->width = SIZE_MAX / 2;
    if (s->rows > 1 && has(found, ODD_ROW_STRIDE, LG_ERR_ALIGNMENT))
        s->row_stride++;
    if (based && read && s->layer_count > 1 && has(found, ODD_LAYER_STRIDE, LG_ERR_ALIGNMENT))
        s->layer_stride++;
    if (s->rows > 1 && has(found, HUGE_ROW_STRIDE, LG_ERR_OVERFLOW))
        s->row_stride = PTRDIFF_MIN;
    if (based && s->layer_count > 1 && has(found, HUGE_LAYER_STRIDE, LG_ERR_OVERFLOW))
        s->layer_stride = PTRDIFF_MIN;
    if (s->row_stride && s->rows > 1 && has(found, HUGE_ROWS, LG_ERR_OVERFLOW))
        s->rows = SIZE_MAX - 1;
    if (has(found, UNKNOWN_DTYPE, LG_ERR_DTYPE))
        s->dtype = s->rows % 2 ? 3 : -1;
    if (read && has(found, MISALIGNED_STATES, LG_ERR_ALIGNMENT)) {
        if (based)
            s->base = (char const *)s->base + 1;
        else
            to->layers[0] = (char const *)to->layers[0] + 1;
    }
    if (read && !based && s->layer_count && has(found, NULL_LAYER, LG_ERR_NULL))
        to->layers[s->layer_count - 1] = NULL;
    if (read && has(found, NULL_STATES, LG_ERR_NULL)) {
        s->layers = NULL;
        s->base = NULL;
    }
}

/* The same values as a contiguous block of layers. */
static inline float *contiguous(lg_states const *const from, lg_states *const to)
{
    size_t const row = from->width * element_size(from->dtype);
    char *const block = buffer(from->layer_count * from->rows * row + 1, 1);
    *to = (lg_states){.base = block,
                      .layer_stride = (ptrdiff_t)(row * from->rows),
                      .row_stride = (ptrdiff_t)row,
                      .layer_count = from->layer_count,
                      .rows = from->rows,
                      .width = from->width,
                      .dtype = from->dtype};
    for (size_t l = 0; l < from->layer_count; l++)
        for (size_t r = 0; r < from->rows; r++) {
            char const *const start
                = from->layers ? from->layers[l]
                               : (char const *)from->base + (ptrdiff_t)l * from->layer_stride;
            memcpy(block + (l * from->rows + r) * row,
                   start + (r ? (ptrdiff_t)r * from->row_stride : 0), row);
        }
    return (float *)(void *)block;
}

static inline void release(memory const *const held)
{
    for (size_t i = 0; i < held->block_count; i++)
        free(held->blocks[i]);
}

#endif
