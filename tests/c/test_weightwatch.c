/* WeightWatch: cosines against the textbook in double, at every level, in parts, for every dtype. */
#include "check.h"
#include "fused.h"

enum { STATES = 4, CHOSEN = 2, TOKENS = 15, FIRST = 5, SECOND = 53, COUNT_K = FIRST + SECOND };
enum { EXTREMES = LG_ROLES * 2 * COUNT_K };

static int const layers[CHOSEN] = {1, 3}, offsets[CHOSEN + 1] = {0, FIRST, COUNT_K};

static lg_directions directions_of(void const *const values, size_t const width, int const dtype)
{
    lg_directions const model = {STATES, width, CHOSEN, layers, offsets, values, dtype};
    CHECK(lg_directions_check(&model) == LG_OK);
    return model;
}

static lg_states states_of(void const *const values, size_t const tokens, size_t const width,
                           int const dtype)
{
    size_t const size = dtype == LG_F32 ? 4 : 2;
    ptrdiff_t const row = (ptrdiff_t)(width * size);
    return (lg_states){NULL, values, TOKENS * row, row, STATES, tokens, width, dtype};
}

static void start(float extremes[EXTREMES])
{
    for (size_t i = 0; i < EXTREMES; i++)
        extremes[i] = i / COUNT_K % 2 ? -INFINITY : INFINITY;
}

/* states: (STATES, TOKENS, width) of float32. */
static double textbook(float const *const states, float const *const directions, size_t const width,
                       size_t const k, size_t const token)
{
    size_t const state = (size_t)layers[k < FIRST ? 0 : 1];
    double dot = 0.0, squared = 0.0;
    for (size_t i = 0; i < width; i++) {
        double const h = states[(state * TOKENS + token) * width + i];
        dot += h * directions[k * width + i];
        squared += h * h;
    }
    return dot / sqrt(squared);
}

static void check_width(size_t const width, uint64_t *const seed)
{
    float *const states = floats(STATES * TOKENS * width, seed);
    float *const directions = floats(COUNT_K * width, seed);
    lg_directions const model = directions_of(directions, width, LG_F32);
    unsigned char roles[TOKENS], mask[TOKENS];
    for (size_t t = 0; t < TOKENS; t++) {
        roles[t] = (unsigned char)(t % 3);
        mask[t] = t % 5 != 4;
    }
    float whole[EXTREMES], first[EXTREMES], parts[EXTREMES];
    int seen = 0;
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        lg_extremes_call call
            = {&model, states_of(states, TOKENS, width, LG_F32), mask, roles, whole, NULL};
        start(whole);
        CHECK(lg_extremes(&call) == LG_OK);
        if (!seen++)
            memcpy(first, whole, sizeof first);
        CHECK(memcmp(first, whole, sizeof first) == 0);
        /* one token at a time, then two: a cosine does not depend on the other tokens */
        for (size_t step = 1; step < 3; step++) {
            start(parts);
            call.extremes = parts;
            for (size_t t = 0; t < TOKENS; t += step) {
                call.states.base = states + t * width;
                call.states.rows = TOKENS - t < step ? TOKENS - t : step;
                call.mask = mask + t;
                call.roles = roles + t;
                CHECK(lg_extremes(&call) == LG_OK);
            }
            CHECK(memcmp(first, parts, sizeof first) == 0);
        }
    }
    CHECK(seen > 0);
    for (size_t role = 0; role < LG_ROLES; role++)
        for (size_t k = 0; k < COUNT_K; k++) {
            double least = INFINITY, largest = -INFINITY;
            for (size_t t = 0; t < TOKENS; t++)
                if (mask[t] && roles[t] == role) {
                    double const cosine = textbook(states, directions, width, k, t);
                    least = cosine < least ? cosine : least;
                    largest = cosine > largest ? cosine : largest;
                }
            float const *const found = first + 2 * role * COUNT_K + k;
            CHECK(role < 3 ? fabs(found[0] - least) <= 1e-4 : found[0] == INFINITY);
            CHECK(role < 3 ? fabs(found[COUNT_K] - largest) <= 1e-4 : found[COUNT_K] == -INFINITY);
        }
    free(states);
    free(directions);
}

/* States and directions of half precision give the results of their float32 values. */
static void check_halves(size_t const width, int const dtype, uint64_t *const seed)
{
    size_t const counts[] = {STATES * TOKENS * width, COUNT_K * width};
    float *wide[2];
    uint16_t *halves[2];
    for (size_t n = 0; n < 2; n++) {
        wide[n] = floats(counts[n], seed);
        halves[n] = bfloats(counts[n], wide[n]);
        for (size_t i = 0; i < counts[n]; i++)
            wide[n][i] = dtype == LG_BF16 ? bfloat_value(halves[n][i])
                                          : half_value(halves[n][i] &= 0xbfff);
    }
    lg_directions const models[]
        = {directions_of(wide[1], width, LG_F32), directions_of(halves[1], width, dtype)};
    size_t const needed = lg_extremes_workspace(&models[0], dtype);
    CHECK(lg_extremes_workspace(&models[0], LG_F32) == 0 && needed > 0);
    float *const workspace = buffer(needed, sizeof *workspace);
    float expected[EXTREMES], found[EXTREMES];
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        start(expected);
        lg_states const single = states_of(wide[0], TOKENS, width, LG_F32);
        lg_states const half = states_of(halves[0], TOKENS, width, dtype);
        CHECK(lg_extremes(&(lg_extremes_call){&models[0], single, NULL, NULL, expected, NULL})
              == LG_OK);
        for (size_t m = 0; m < 2; m++) {
            start(found);
            CHECK(lg_extremes(&(lg_extremes_call){&models[m], half, NULL, NULL, found, workspace})
                  == LG_OK);
            CHECK(memcmp(expected, found, sizeof found) == 0);
        }
    }
    for (size_t n = 0; n < 2; n++) {
        free(wide[n]);
        free(halves[n]);
    }
    free(workspace);
}

/* A state of length zero gives NaN, which stays, and an excess of NaN; no token gives no excess. */
static void check_not_finite(uint64_t *const seed)
{
    enum { WIDTH = 40 };
    float *const states = floats(STATES * TOKENS * WIDTH, seed);
    float *const directions = floats(COUNT_K * WIDTH, seed);
    lg_directions const model = directions_of(directions, WIDTH, LG_F32);
    float const bad[] = {NAN, INFINITY, -INFINITY, 1e30f};
    float low[LG_ROLES * COUNT_K], high[LG_ROLES * COUNT_K], scale[LG_ROLES * COUNT_K];
    for (size_t i = 0; i < COUNT(low); i++) {
        low[i] = -2.0f;
        high[i] = 0.25f;
        scale[i] = i == COUNT_K + 7 ? 0.125f : 1.0f;
    }
    lg_ranges const ranges = {COUNT_K, low, high, scale};
    float extremes[EXTREMES];
    double score;
    int worst;
    lg_excess_call const excess = {&ranges, extremes, 1, &score, &worst};
    lg_extremes_call const call
        = {&model, states_of(states, TOKENS, WIDTH, LG_F32), NULL, NULL, extremes, NULL};
    start(extremes);
    CHECK(lg_excess(&excess) == LG_OK && isnan(score) && worst == -1);
    CHECK(lg_extremes(&call) == LG_OK && lg_excess(&excess) == LG_OK && isfinite(score));
    extremes[3 * COUNT_K + 7] = 0.75f; /* the largest of the user's direction 7 */
    CHECK(lg_excess(&excess) == LG_OK && score == 4.0 && worst == COUNT_K + 7);
    for (size_t b = 0; b < COUNT(bad); b++) {
        float *const spoilt = states + (3 * TOKENS + 8) * WIDTH + 11;
        float const kept = *spoilt;
        *spoilt = bad[b];
        start(extremes);
        CHECK(lg_extremes(&call) == LG_OK);
        CHECK(isnan(extremes[2 * COUNT_K + FIRST]) && isfinite(extremes[2 * COUNT_K]));
        *spoilt = kept;
        CHECK(lg_extremes(&call) == LG_OK && isnan(extremes[2 * COUNT_K + FIRST]));
        CHECK(lg_excess(&excess) == LG_OK && isnan(score));
    }
    memset(states + TOKENS * WIDTH, 0, WIDTH * sizeof *states);
    start(extremes);
    CHECK(lg_extremes(&call) == LG_OK && isnan(extremes[2 * COUNT_K]));
    free(states);
    free(directions);
}

/* A user's token (3, 4) and an assistant's (-4, 3) by hand, along the two axes: cosines 0.6 and 0.8,
 * -0.8 and 0.6. The largest excess of the first row is the user's second direction, from above:
 * (0.8 - 0.5) / 0.25; of the second row, whose user has no token, the assistant's first, from below:
 * (-0.25 + 0.8) / 0.5. Nothing is written beyond the outputs. */
static void check_values(void)
{
    enum { K = 2, USER = LG_USER, ASSISTANT = LG_ASSISTANT };
    static int const one_layer[] = {0}, two_directions[] = {0, K};
    float const axes[] = {1, 0, 0, 1}, states[2][2] = {{3, 4}, {-4, 3}};
    unsigned char const roles[] = {USER, ASSISTANT};
    lg_directions const model = {1, 2, 1, one_layer, two_directions, axes, LG_F32};
    lg_states s = {NULL, states, 0, sizeof *states, 1, 2, 2, LG_F32};
    float extremes[2][LG_ROLES][2][K], low[LG_ROLES][K], high[LG_ROLES][K], scale[LG_ROLES][K];
    for (size_t role = 0; role < LG_ROLES; role++)
        for (size_t k = 0; k < K; k++) {
            for (size_t row = 0; row < 2; row++) {
                extremes[row][role][0][k] = INFINITY;
                extremes[row][role][1][k] = -INFINITY;
            }
            low[role][k] = role == ASSISTANT ? -0.25f : -0.5f;
            high[role][k] = role == ASSISTANT ? 0.75f : 0.5f;
            scale[role][k] = role == ASSISTANT ? 0.5f : k ? 0.25f : 0.125f;
        }
    lg_extremes_call call = {&model, s, NULL, roles, &extremes[0][0][0][0], NULL};
    CHECK(lg_extremes(&call) == LG_OK);
    call.states.base = states[1];
    call.states.rows = 1;
    call.roles = roles + 1;
    call.extremes = &extremes[1][0][0][0];
    CHECK(lg_extremes(&call) == LG_OK);
    float const cosines[2][K] = {{0.6f, 0.8f}, {-0.8f, 0.6f}};
    for (size_t row = 0; row < 2; row++)
        for (size_t role = 0; role < LG_ROLES; role++)
            for (size_t k = 0; k < K; k++) {
                int const read = role == ASSISTANT || (role == USER && !row);
                float const *const cosine = cosines[role == ASSISTANT];
                CHECK(extremes[row][role][0][k] == (read ? cosine[k] : INFINITY));
                CHECK(extremes[row][role][1][k] == (read ? cosine[k] : -INFINITY));
            }
    lg_ranges const ranges = {K, &low[0][0], &high[0][0], &scale[0][0]};
    double scores[] = {7, 7, 7};
    int worst[] = {7, 7, 7};
    lg_excess_call const excess = {&ranges, &extremes[0][0][0][0], 2, scores, worst};
    CHECK(lg_excess(&excess) == LG_OK);
    CHECK(scores[0] == (0.8f - 0.5) / 0.25 && worst[0] == USER * K + 1);
    CHECK(scores[1] == (0.8f - 0.25) / 0.5 && worst[1] == ASSISTANT * K);
    CHECK(scores[2] == 7.0 && worst[2] == 7);
}

/* Every status is returned for its fault. */
static void check_refusals(void)
{
    enum { WIDTH = 4 };
    static float states[STATES * TOKENS * WIDTH], directions[COUNT_K * WIDTH], extremes[EXTREMES];
    lg_directions const good = directions_of(directions, WIDTH, LG_F32);
    lg_extremes_call call
        = {&good, states_of(states, TOKENS, WIDTH, LG_F32), NULL, NULL, extremes, NULL};
    CHECK(lg_directions_check(NULL) == LG_ERR_NULL && lg_extremes(NULL) == LG_ERR_NULL);
    CHECK(lg_excess(NULL) == LG_ERR_NULL && lg_extremes_workspace(NULL, LG_F16) == 0);
    int wrong_layers[] = {1, STATES}, wrong_offsets[] = {0, FIRST, FIRST - 1}, late[] = {1, 2, 3};
    lg_directions const wrong[] = {
        {STATES, WIDTH, CHOSEN, NULL, offsets, directions, LG_F32},
        {STATES, WIDTH, CHOSEN, layers, NULL, directions, LG_F32},
        {STATES, WIDTH, CHOSEN, layers, offsets, NULL, LG_F32},
        {STATES, WIDTH, CHOSEN, layers, offsets, directions, 7},
        {STATES, 0, CHOSEN, layers, offsets, directions, LG_F32},
        {STATES, WIDTH, 0, layers, offsets, directions, LG_F32},
        {STATES, WIDTH, CHOSEN, wrong_layers, offsets, directions, LG_F32},
        {STATES, WIDTH, CHOSEN, layers, wrong_offsets, directions, LG_F32},
        {STATES, WIDTH, CHOSEN, layers, late, directions, LG_F32},
        {STATES, SIZE_MAX / 8, CHOSEN, layers, offsets, directions, LG_F32},
        {STATES, WIDTH, CHOSEN, layers, offsets, (char *)directions + 2, LG_F32},
    };
    lg_status const statuses[] = {
        LG_ERR_NULL,  LG_ERR_NULL,  LG_ERR_NULL,  LG_ERR_DTYPE,    LG_ERR_SHAPE,     LG_ERR_SHAPE,
        LG_ERR_INDEX, LG_ERR_INDEX, LG_ERR_INDEX, LG_ERR_OVERFLOW, LG_ERR_ALIGNMENT,
    };
    for (size_t i = 0; i < COUNT(wrong); i++)
        CHECK(lg_directions_check(&wrong[i]) == statuses[i]);
    CHECK(lg_extremes(&call) == LG_OK);
    call.states.width = WIDTH - 1;
    CHECK(lg_extremes(&call) == LG_ERR_SHAPE);
    call.states = states_of(states, TOKENS, WIDTH, LG_F32);
    call.states.layer_count = STATES - 1;
    CHECK(lg_extremes(&call) == LG_ERR_SHAPE);
    call.states = states_of(states, TOKENS, WIDTH, LG_BF16);
    CHECK(lg_extremes(&call) == LG_ERR_NULL); /* no workspace */
    call.states = states_of(states, TOKENS, WIDTH, LG_F32);
    call.extremes = NULL;
    CHECK(lg_extremes(&call) == LG_ERR_NULL);
    call.extremes = extremes;
    unsigned char roles[TOKENS] = {0};
    call.roles = roles;
    CHECK(lg_extremes(&call) == LG_OK);
    roles[TOKENS - 1] = LG_ROLES;
    CHECK(lg_extremes(&call) == LG_ERR_INDEX);
    call.states.rows = 0;
    CHECK(lg_extremes(&call) == LG_OK);

    float const limits[LG_ROLES * COUNT_K] = {0};
    double score = 7.0;
    int worst;
    lg_ranges ranges = {0, limits, limits, limits};
    lg_excess_call excess = {&ranges, extremes, 1, &score, &worst};
    CHECK(lg_excess(&excess) == LG_ERR_SHAPE && score == 7.0);
    ranges.count = SIZE_MAX / 2;
    CHECK(lg_excess(&excess) == LG_ERR_OVERFLOW);
    ranges.count = COUNT_K;
    ranges.scale = NULL;
    CHECK(lg_excess(&excess) == LG_ERR_NULL);
    ranges.scale = limits;
    excess.rows = SIZE_MAX;
    CHECK(lg_excess(&excess) == LG_ERR_OVERFLOW);
    excess.rows = 0;
    CHECK(lg_excess(&excess) == LG_OK && score == 7.0);
}

/* The tests are built for the lowest level, so this tests the emulated FMA, over all exponents, near
 * cancellation and between float32's subnormals, against the C library's. */
static void check_fused(uint64_t *const seed)
{
    for (size_t n = 0; n < 2000000; n++) {
        float x[3];
        for (size_t i = 0; i < 3; i++) {
            *seed = *seed * 6364136223846793005u + 1442695040888963407u;
            uint32_t bits = (uint32_t)(*seed >> 32);
            if (n % 2) /* similar sizes and few bits: ties and cancellation */
                bits = (bits & 0x8007f000u) | (0x3f000000u + (bits & 3u) * 0x00800000u);
            memcpy(&x[i], &bits, sizeof bits);
        }
        if (n % 4 == 1)
            x[2] *= 0x1p-24f;
        float const found = lg_fused(x[0], x[1], x[2]), expected = fmaf(x[0], x[1], x[2]);
        CHECK(expected == expected ? memcmp(&found, &expected, sizeof found) == 0 : found != found);
    }
}

int main(void)
{
    uint64_t seed = 4;
    for (size_t w = 0; w < COUNT(WIDTHS); w++) {
        check_width(WIDTHS[w], &seed);
        check_halves(WIDTHS[w], LG_BF16, &seed);
        check_halves(WIDTHS[w], LG_F16, &seed);
    }
    check_width(2100, &seed); /* more than the elements taken at a time */
    check_halves(1025, LG_F16, &seed);
    check_not_finite(&seed);
    check_values();
    check_refusals();
    check_fused(&seed);
    return 0;
}
