/* Every status is returned for its fault, nothing is written, and every status has a message. */
#include "check.h"

enum { DEPTH = 2, WIDTH = 4, ROWS = 2, STATES = DEPTH + 1 };

static float states[STATES * ROWS * WIDTH + 1];
static float const parameters[DEPTH * WIDTH] = {1, 1, 1, 1, 1, 1, 1, 1};
static double const doubles[DEPTH * DEPTH] = {1, 0, 0, 1};
static lg_lcf const lcf
    = {DEPTH, WIDTH, parameters, parameters, doubles, doubles, doubles, doubles};
static lg_states const good = {
    NULL, states, ROWS * WIDTH * sizeof(float), WIDTH * sizeof(float), STATES, ROWS, WIDTH, LG_F32};

/* Fills memory with a nonzero pattern before each call, and checks whether a call changed it. */
enum { PATTERN = 0x5a };
static double kept[24];

static double *fresh(void)
{
    memset(kept, PATTERN, sizeof kept);
    return kept;
}

static int untouched(void)
{
    unsigned char bytes[sizeof kept];
    memset(bytes, PATTERN, sizeof bytes);
    return memcmp(bytes, kept, sizeof kept) == 0;
}

static lg_status score(lg_lcf const *const model, lg_states const s)
{
    double *const memory = fresh();
    lg_status const status = lg_lcf_score(&(lg_lcf_call){model, s, memory, memory + ROWS});
    CHECK(status == LG_OK || untouched());
    return status;
}

static void check_states(void)
{
    void const *layers[STATES] = {states, states, states};
    CHECK(score(&lcf, good) == LG_OK);
    lg_states s = good;
    s.base = NULL;
    CHECK(score(&lcf, s) == LG_ERR_NULL);
    s.layers = layers;
    CHECK(score(&lcf, s) == LG_OK);
    layers[1] = NULL;
    CHECK(score(&lcf, s) == LG_ERR_NULL);
    layers[1] = (char const *)states + 1;
    CHECK(score(&lcf, s) == LG_ERR_ALIGNMENT);
    s = good;
    s.base = (char const *)states + 2;
    CHECK(score(&lcf, s) == LG_ERR_ALIGNMENT);
    s = good;
    s.row_stride += 2;
    CHECK(score(&lcf, s) == LG_ERR_ALIGNMENT);
    s.rows = 1;
    CHECK(score(&lcf, s) == LG_OK); /* not read */
    s = good;
    s.layer_stride += 2;
    CHECK(score(&lcf, s) == LG_ERR_ALIGNMENT);
    int const unknown[] = {-1, 3, 1 << 30};
    for (size_t i = 0; i < COUNT(unknown); i++) {
        s = good;
        s.dtype = unknown[i];
        CHECK(score(&lcf, s) == LG_ERR_DTYPE);
    }
    s = good;
    s.layer_count = 0;
    CHECK(score(&lcf, s) == LG_ERR_SHAPE);
    s = good;
    s.layer_count = STATES - 1;
    CHECK(score(&lcf, s) == LG_ERR_SHAPE);
    s = good;
    s.width = 0;
    CHECK(score(&lcf, s) == LG_ERR_SHAPE);
    s = good;
    s.width = WIDTH - 1;
    CHECK(score(&lcf, s) == LG_ERR_SHAPE);
    s = good;
    s.rows = 0;
    CHECK(score(&lcf, s) == LG_OK && untouched());
}

static void check_overflow(void)
{
    lg_states s = good;
    s.width = SIZE_MAX;
    CHECK(score(&lcf, s) == LG_ERR_OVERFLOW);
    ptrdiff_t const strides[] = {PTRDIFF_MIN, PTRDIFF_MAX - 3, PTRDIFF_MAX / 4 * 4};
    for (size_t i = 0; i < COUNT(strides); i++) {
        s = good;
        s.row_stride = strides[i];
        CHECK(score(&lcf, s) == LG_ERR_OVERFLOW);
        s = good;
        s.layer_stride = strides[i];
        CHECK(score(&lcf, s) == LG_ERR_OVERFLOW);
    }
    s = good;
    s.rows = SIZE_MAX;
    CHECK(score(&lcf, s) == LG_ERR_OVERFLOW);
    s.row_stride = 0; /* then the outputs are too large */
    CHECK(score(&lcf, s) == LG_ERR_OVERFLOW);
    s = good;
    s.layer_count = SIZE_MAX;
    s.layer_stride = 0;
    lg_lcf deep = lcf;
    deep.layer_count = SIZE_MAX - 1;
    CHECK(score(&deep, s) == LG_ERR_OVERFLOW);
    deep.layer_count = (size_t)1 << 31;
    s.layer_count = deep.layer_count + 1;
    CHECK(score(&deep, s) == LG_ERR_OVERFLOW);
    unsigned char const mask[ROWS] = {1, 1};
    float pooled[STATES * WIDTH];
    double workspace[WIDTH];
    s.layer_count = SIZE_MAX;
    CHECK(lg_pool_mean(&(lg_pool_call){s, mask, pooled, workspace}) == LG_ERR_OVERFLOW);
}

static void check_lcf(void)
{
    double scores[ROWS], z[ROWS * DEPTH];
    CHECK(lg_lcf_score(NULL) == LG_ERR_NULL);
    CHECK(lg_lcf_score(&(lg_lcf_call){NULL, good, scores, z}) == LG_ERR_NULL);
    CHECK(lg_lcf_score(&(lg_lcf_call){&lcf, good, NULL, z}) == LG_ERR_NULL);
    CHECK(lg_lcf_score(&(lg_lcf_call){&lcf, good, scores, NULL}) == LG_ERR_NULL);
    lg_lcf const holes[] = {
        {DEPTH, WIDTH, NULL, parameters, doubles, doubles, doubles, doubles},
        {DEPTH, WIDTH, parameters, NULL, doubles, doubles, doubles, doubles},
        {DEPTH, WIDTH, parameters, parameters, NULL, doubles, doubles, doubles},
        {DEPTH, WIDTH, parameters, parameters, doubles, NULL, doubles, doubles},
        {DEPTH, WIDTH, parameters, parameters, doubles, doubles, NULL, doubles},
        {DEPTH, WIDTH, parameters, parameters, doubles, doubles, doubles, NULL},
    };
    for (size_t i = 0; i < COUNT(holes); i++)
        CHECK(score(&holes[i], good) == LG_ERR_NULL);
    lg_lcf other = lcf;
    other.layer_count = 0;
    lg_states one = good;
    one.layer_count = 1;
    CHECK(score(&other, one) == LG_ERR_SHAPE);
}

/* The pooled states and the workspace are in one buffer with a pattern. */
static lg_status pool(lg_status (*const call)(lg_pool_call const *), lg_states const s,
                      unsigned char const *const mask, int const has_workspace)
{
    double *const memory = fresh();
    lg_pool_call const given = {s, mask, (float *)memory, has_workspace ? memory + 12 : NULL};
    lg_status const status = call(&given);
    CHECK(status == LG_OK || untouched());
    return status;
}

static void check_pool(void)
{
    unsigned char const none[ROWS] = {0, 0};
    double workspace[WIDTH];
    CHECK(lg_pool_mean(NULL) == LG_ERR_NULL && lg_pool_last(NULL) == LG_ERR_NULL);
    CHECK(lg_pool_mean(&(lg_pool_call){good, NULL, NULL, workspace}) == LG_ERR_NULL);
    CHECK(pool(lg_pool_mean, good, NULL, 0) == LG_ERR_NULL);
    CHECK(pool(lg_pool_last, good, NULL, 0) == LG_OK && !untouched());
    CHECK(pool(lg_pool_mean, good, none, 1) == LG_ERR_EMPTY);
    CHECK(pool(lg_pool_last, good, none, 0) == LG_ERR_EMPTY);
    lg_states s = good;
    s.rows = 0;
    CHECK(pool(lg_pool_last, s, NULL, 0) == LG_ERR_EMPTY);
    s.dtype = 9;
    CHECK(pool(lg_pool_last, s, NULL, 0) == LG_ERR_DTYPE);
    CHECK(pool(lg_pool_mean, s, NULL, 1) == LG_ERR_DTYPE);
}

static void check_siren(void)
{
    int layers[] = {0, 2}, offsets[] = {0, 1, 3}, neurons[] = {3, 0, 2};
    float const alpha[] = {1, 1}, weight[6] = {0}, bias[2] = {0};
    size_t widths[] = {3, 2};
    float const *weights[] = {weight}, *biases[] = {bias};
    lg_siren model
        = {STATES, WIDTH, 2, layers, offsets, neurons, alpha, 1, widths, weights, biases};
    double scores[ROWS];
    float workspace[ROWS * 3 * 2];
    lg_siren_call call = {&model, good, scores, workspace, COUNT(workspace)};
    CHECK(lg_siren_check(&model) == LG_OK && lg_siren_score(&call) == LG_OK);
    CHECK(scores[0] == 0.5);

    /* The model: every index and size. */
    int *const indices[]
        = {&layers[0], &layers[1], &offsets[0], &offsets[1], &neurons[0], &neurons[2]};
    int const wrong[] = {-1, STATES, 1, 4, -1, WIDTH};
    for (size_t i = 0; i < COUNT(indices); i++) {
        int const kept = *indices[i];
        *indices[i] = wrong[i];
        CHECK(lg_siren_check(&model) == LG_ERR_INDEX);
        *indices[i] = kept;
    }
    offsets[2] = 1000; /* no neuron beyond the three may be read */
    CHECK(lg_siren_check(&model) == LG_ERR_SHAPE);
    offsets[2] = 3;
    size_t *const sizes[] = {&model.chosen_count, &model.linear_count, &widths[0], &widths[1]};
    size_t const wrong_sizes[] = {0, 0, 2, 3};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t const kept = *sizes[i];
        *sizes[i] = wrong_sizes[i];
        CHECK(lg_siren_check(&model) == LG_ERR_SHAPE);
        *sizes[i] = kept;
    }
    CHECK(lg_siren_check(NULL) == LG_ERR_NULL && lg_siren_workspace(NULL, 1) == 0);
    void const **const pointers[]
        = {(void const **)&model.layers,  (void const **)&model.neuron_offsets,
           (void const **)&model.neurons, (void const **)&model.alpha,
           (void const **)&model.widths,  (void const **)&model.weights,
           (void const **)&model.biases,  (void const **)&weights[0],
           (void const **)&biases[0]};
    for (size_t i = 0; i < COUNT(pointers); i++) {
        void const *const kept = *pointers[i];
        *pointers[i] = NULL;
        CHECK(lg_siren_check(&model) == LG_ERR_NULL);
        *pointers[i] = kept;
    }
    size_t const hidden[] = {3, SIZE_MAX / 2, 2}, empty[] = {3, 0, 2};
    float const *const two[] = {weight, weight};
    lg_siren deep = model;
    deep.linear_count = 2;
    deep.weights = two;
    deep.biases = two;
    deep.widths = hidden;
    CHECK(lg_siren_check(&deep) == LG_ERR_OVERFLOW);
    deep.widths = empty;
    CHECK(lg_siren_check(&deep) == LG_ERR_SHAPE);

    /* The call: a refused call writes neither scores nor workspace. */
    call.scores = fresh();
    call.workspace = (float *)(kept + ROWS);
    CHECK(lg_siren_score(NULL) == LG_ERR_NULL);
    lg_siren_call wrong_calls[] = {call, call, call, call, call, call, call, call};
    lg_status const statuses[] = {LG_ERR_NULL,  LG_ERR_NULL,  LG_ERR_NULL,  LG_ERR_WORKSPACE,
                                  LG_ERR_SHAPE, LG_ERR_SHAPE, LG_ERR_DTYPE, LG_ERR_OVERFLOW};
    wrong_calls[0].model = NULL;
    wrong_calls[1].scores = NULL;
    wrong_calls[2].workspace = NULL;
    wrong_calls[3].workspace_count--;
    wrong_calls[4].states.layer_count = STATES - 1;
    wrong_calls[5].states.width = WIDTH - 1;
    wrong_calls[6].states.dtype = 5;
    wrong_calls[7].states.rows = SIZE_MAX;
    wrong_calls[7].states.row_stride = 0;
    for (size_t i = 0; i < COUNT(wrong_calls); i++)
        CHECK(lg_siren_score(&wrong_calls[i]) == statuses[i] && untouched());
    call.states.rows = 0;
    CHECK(lg_siren_score(&call) == LG_OK && untouched());
    call.states = good;
    CHECK(lg_siren_score(&call) == LG_OK && kept[0] == 0.5 && kept[1] == 0.5);
}

static void check_words(void)
{
    for (int a = LG_ERR_BOUND; a <= LG_OK; a++)
        for (int b = LG_ERR_BOUND - 1; b < a; b++)
            CHECK(strcmp(lg_strerror(a), lg_strerror(b)) != 0);
    CHECK(strlen(lg_strerror(1)) > 0 && strlen(lg_strerror(-1000)) > 0);
}

int main(void)
{
    check_states();
    check_overflow();
    check_lcf();
    check_pool();
    check_siren();
    check_words();
    return 0;
}
