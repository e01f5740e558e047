/* LCF against the textbook formula in double, at every level, width, dtype and layout; NaN and
 * infinity are never lost. */
#include "check.h"

enum { DEPTH = 3, ROWS = 3 };

typedef struct {
    lg_lcf model;
    float *mu, *inverse_sigma;
    double *mean, *scale, *centre, *precision;
} fixture;

static fixture make(size_t const width, uint64_t *const seed)
{
    fixture f = {.mu = floats(DEPTH * width, seed),
                 .inverse_sigma = floats(DEPTH * width, seed),
                 .mean = buffer(DEPTH, sizeof(double)),
                 .scale = buffer(DEPTH, sizeof(double)),
                 .centre = buffer(DEPTH, sizeof(double)),
                 .precision = buffer(DEPTH * DEPTH, sizeof(double))};
    for (size_t i = 0; i < DEPTH * width; i++)
        f.inverse_sigma[i] = 1.5f + f.inverse_sigma[i];
    for (size_t l = 0; l < DEPTH; l++) {
        f.mean[l] = number(seed);
        f.scale[l] = 1.5 + number(seed);
        f.centre[l] = number(seed);
        for (size_t k = 0; k < DEPTH; k++)
            f.precision[l * DEPTH + k] = l == k ? 2.0 : 0.25;
    }
    f.model = (lg_lcf){DEPTH, width, f.mu, f.inverse_sigma, f.mean, f.scale, f.centre, f.precision};
    return f;
}

static void destroy(fixture const *const f)
{
    free(f->mu);
    free(f->inverse_sigma);
    free(f->mean);
    free(f->scale);
    free(f->centre);
    free(f->precision);
}

/* states: (DEPTH + 1, ROWS, width) of float32. */
static double textbook(fixture const *const f, float const *const states, size_t const row)
{
    size_t const width = f->model.width;
    double z[DEPTH], form = 0.0;
    for (size_t l = 0; l < DEPTH; l++) {
        double sum = 0.0;
        for (size_t i = 0; i < width; i++) {
            double const before = states[(l * ROWS + row) * width + i];
            double const after = states[((l + 1) * ROWS + row) * width + i];
            double const x
                = (after - before - f->mu[l * width + i]) * f->inverse_sigma[l * width + i];
            sum += x * x;
        }
        z[l] = (sqrt(sum) - f->mean[l]) / f->scale[l] - f->centre[l];
    }
    for (size_t l = 0; l < DEPTH; l++)
        for (size_t k = 0; k < DEPTH; k++)
            form += z[l] * f->precision[l * DEPTH + k] * z[k];
    return sqrt(form);
}

/* Every layout of the same states gives the same bits as the first, at every level. */
static void check_width(size_t const width, uint64_t *const seed)
{
    fixture const f = make(width, seed);
    float *const states = floats((DEPTH + 1) * ROWS * width, seed);
    ptrdiff_t const row = (ptrdiff_t)(width * sizeof(float)), layer = ROWS * row;
    double first[ROWS], first_z[ROWS * DEPTH];
    int seen = 0;
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        void const *layers[DEPTH + 1];
        for (size_t l = 0; l <= DEPTH; l++)
            layers[l] = states + l * ROWS * width;
        lg_states const layouts[] = {
            {layers, NULL, 0, row, DEPTH + 1, ROWS, width, LG_F32},
            {NULL, states, layer, row, DEPTH + 1, ROWS, width, LG_F32},
        };
        for (size_t s = 0; s < COUNT(layouts); s++) {
            double *const scores = buffer(ROWS, sizeof *scores);
            double *const z = buffer(ROWS * DEPTH, sizeof *z);
            CHECK(lg_lcf_score(&(lg_lcf_call){&f.model, layouts[s], scores, z}) == LG_OK);
            if (!seen++) {
                memcpy(first, scores, sizeof first);
                memcpy(first_z, z, sizeof first_z);
                for (size_t r = 0; r < ROWS; r++) {
                    double const expected = textbook(&f, states, r);
                    CHECK(fabs(scores[r] - expected) <= 1e-5 * (1.0 + expected));
                }
            }
            CHECK(memcmp(first, scores, sizeof first) == 0);
            CHECK(memcmp(first_z, z, sizeof first_z) == 0);
            free(scores);
            free(z);
        }
        /* The rows backwards, one at a time, and one row three times. */
        double one, one_z[DEPTH], three[ROWS], three_z[ROWS * DEPTH];
        lg_states backwards
            = {NULL, states + (ROWS - 1) * width, layer, -row, DEPTH + 1, ROWS, width, LG_F32};
        CHECK(lg_lcf_score(&(lg_lcf_call){&f.model, backwards, three, three_z}) == LG_OK);
        for (size_t r = 0; r < ROWS; r++) {
            CHECK(memcmp(&three[r], &first[ROWS - 1 - r], sizeof one) == 0);
            lg_states const single
                = {NULL, states + r * width, layer, 0, DEPTH + 1, 1, width, LG_F32};
            CHECK(lg_lcf_score(&(lg_lcf_call){&f.model, single, &one, one_z}) == LG_OK);
            CHECK(memcmp(&one, &first[r], sizeof one) == 0);
        }
        backwards.base = states;
        backwards.row_stride = 0;
        CHECK(lg_lcf_score(&(lg_lcf_call){&f.model, backwards, three, three_z}) == LG_OK);
        CHECK(memcmp(&three[2], &first[0], sizeof one) == 0);
    }
    CHECK(seen > 0);
    free(states);
    destroy(&f);
}

/* Half-precision states give the same bits as their float32 values. */
static void check_halves(size_t const width, int const dtype, uint64_t *const seed)
{
    fixture const f = make(width, seed);
    size_t const count = (DEPTH + 1) * width;
    float *const wide = floats(count, seed);
    uint16_t *const halves = bfloats(count, wide);
    for (size_t i = 0; i < count; i++)
        wide[i] = dtype == LG_BF16 ? bfloat_value(halves[i]) : half_value(halves[i] &= 0xbfff);
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        double a, b, z_a[DEPTH], z_b[DEPTH];
        lg_states const single
            = {NULL, wide, (ptrdiff_t)(width * sizeof(float)), 0, DEPTH + 1, 1, width, LG_F32};
        lg_states const half
            = {NULL, halves, (ptrdiff_t)(width * sizeof(uint16_t)), 0, DEPTH + 1, 1, width, dtype};
        CHECK(lg_lcf_score(&(lg_lcf_call){&f.model, single, &a, z_a}) == LG_OK);
        CHECK(lg_lcf_score(&(lg_lcf_call){&f.model, half, &b, z_b}) == LG_OK);
        CHECK(isfinite(a) && memcmp(&a, &b, sizeof a) == 0);
    }
    free(wide);
    free(halves);
    destroy(&f);
}

static void check_not_finite(size_t const width, uint64_t *const seed)
{
    float const bad[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f};
    fixture const f = make(width, seed);
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        for (size_t b = 0; b < COUNT(bad); b++)
            for (size_t at = 0; at < (DEPTH + 1) * width; at += width / 3 + 1) {
                float *const states = floats((DEPTH + 1) * width, seed);
                double score = 0.0, z[DEPTH];
                states[at] = bad[b];
                lg_states const s
                    = {NULL,  states, (ptrdiff_t)(width * sizeof(float)), 0, DEPTH + 1, 1,
                       width, LG_F32};
                CHECK(lg_lcf_score(&(lg_lcf_call){&f.model, s, &score, z}) == LG_OK);
                CHECK(!isfinite(score));
                CHECK(!isnan(score) || memcmp(&score, &(double){NAN}, sizeof score) == 0);
                free(states);
            }
    }
    destroy(&f);
}

/* Two rows by hand: steps of (3, 4) and (6, 8) in units of sigma, and steps that are just mu.
 *   row 0: z = ((5 - 1) / 2, (10 - 2) / 4) = (2, 2), offsets (1, 3), form 2 + 2 * 3 + 27 = 35
 *   row 1: z = (-1 / 2, -2 / 4), offsets (-1.5, 0.5), form 4.5 - 1.5 + 0.75 = 3.75
 * Nothing is written beyond the outputs. */
static void check_values(void)
{
    float const mu[] = {0, 0, 1, 0}, inverse_sigma[] = {1, 1, 2, 0.5f};
    double const mean[] = {1, 2}, scale[] = {2, 4}, centre[] = {1, -1}, precision[] = {2, 1, 1, 3};
    float const states[3][2][2]
        = {{{0, 0}, {1, 1}}, {{3, 4}, {1, 1}}, {{7, 20}, {2, 1}}}; /* [state][row][neuron] */
    lg_lcf const model = {2, 2, mu, inverse_sigma, mean, scale, centre, precision};
    lg_states const s
        = {NULL, states, sizeof *states, sizeof **states, COUNT(states), 2, 2, LG_F32};
    double scores[] = {7, 7, 7}, z[] = {7, 7, 7, 7, 7};
    CHECK(lg_lcf_score(&(lg_lcf_call){&model, s, scores, z}) == LG_OK);
    CHECK(z[0] == 2.0 && z[1] == 2.0 && z[2] == -0.5 && z[3] == -0.5 && z[4] == 7.0);
    CHECK(scores[0] == sqrt(35.0) && scores[1] == sqrt(3.75) && scores[2] == 7.0);
}

/* More layers than columns that are summed at a time. One neuron grows by 1 in each layer, so every z
 * is 1; the form is the diagonal's plus 2 * 5 * 1 * 2 of the one pair of coupled layers. */
static void check_deep(void)
{
    enum { DEEP = 70, LOW = 1, HIGH = 68 };
    float mu[DEEP] = {0}, ones[DEEP], states[DEEP + 1];
    double mean[DEEP] = {0}, scale[DEEP], centre[DEEP], precision[DEEP * DEEP] = {0}, z[DEEP];
    double expected = 2 * 5.0 * (LOW % 3) * (HIGH % 3), score;
    for (size_t l = 0; l < DEEP; l++) {
        ones[l] = 1.0f;
        scale[l] = 1.0;
        centre[l] = 1.0 - (double)(l % 3);
        precision[l * DEEP + l] = (double)(l + 1);
        expected += (double)((l + 1) * (l % 3) * (l % 3));
    }
    for (size_t l = 0; l <= DEEP; l++)
        states[l] = (float)l;
    precision[LOW * DEEP + HIGH] = precision[HIGH * DEEP + LOW] = 5.0;
    lg_lcf const model = {DEEP, 1, mu, ones, mean, scale, centre, precision};
    lg_states const s = {NULL, states, sizeof *states, 0, DEEP + 1, 1, 1, LG_F32};
    CHECK(lg_lcf_score(&(lg_lcf_call){&model, s, &score, z}) == LG_OK);
    CHECK(z[0] == 1.0 && z[DEEP - 1] == 1.0 && score == sqrt(expected));
}

int main(void)
{
    uint64_t seed = 1;
    check_values();
    check_deep();
    for (size_t w = 0; w < COUNT(WIDTHS); w++) {
        check_width(WIDTHS[w], &seed);
        check_halves(WIDTHS[w], LG_BF16, &seed);
        check_halves(WIDTHS[w], LG_F16, &seed);
        check_not_finite(WIDTHS[w], &seed);
    }
    return 0;
}
