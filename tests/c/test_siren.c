/* SIREN against the textbook formula in double, at every level. */
#include "check.h"

enum { STATES = 3, CHOSEN = 2, ROWS = 3, LINEAR = 2 };

typedef struct {
    lg_siren model;
    int layers[CHOSEN], offsets[CHOSEN + 1], *neurons;
    float alpha[CHOSEN], *weights[LINEAR], *biases[LINEAR];
    float const *weight_list[LINEAR], *bias_list[LINEAR];
    size_t widths[LINEAR + 1];
} fixture;

/* Reads every neuron of state 1, backwards, and the first of state 2. */
static void make(fixture *const f, size_t const width, size_t const hidden, uint64_t *const seed)
{
    size_t const features = width + 1;
    f->layers[0] = 1;
    f->layers[1] = 2;
    f->offsets[0] = 0;
    f->offsets[1] = (int)width;
    f->offsets[2] = (int)features;
    f->neurons = buffer(features, sizeof *f->neurons);
    for (size_t i = 0; i < width; i++)
        f->neurons[i] = (int)(width - 1 - i);
    f->neurons[width] = 0;
    f->alpha[0] = 0.5f;
    f->alpha[1] = 1.0f;
    f->widths[0] = features;
    f->widths[1] = hidden;
    f->widths[2] = 2;
    for (size_t m = 0; m < LINEAR; m++) {
        f->weights[m] = floats(f->widths[m] * f->widths[m + 1], seed);
        f->biases[m] = floats(f->widths[m + 1], seed);
        f->weight_list[m] = f->weights[m];
        f->bias_list[m] = f->biases[m];
    }
    f->model = (lg_siren){STATES,   width,  CHOSEN,    f->layers,      f->offsets,  f->neurons,
                          f->alpha, LINEAR, f->widths, f->weight_list, f->bias_list};
    CHECK(lg_siren_check(&f->model) == LG_OK);
}

static void destroy(fixture const *const f)
{
    free(f->neurons);
    for (size_t m = 0; m < LINEAR; m++) {
        free(f->weights[m]);
        free(f->biases[m]);
    }
}

/* states: (STATES, ROWS, width) of float32. */
static double textbook(fixture const *const f, float const *const states, size_t const row)
{
    size_t const width = f->model.width_needed, hidden = f->widths[1];
    double logits[2] = {f->biases[1][0], f->biases[1][1]};
    for (size_t o = 0; o < hidden; o++) {
        double sum = f->biases[0][o];
        for (size_t i = 0; i <= width; i++) {
            size_t const state = i < width ? 1 : 2;
            size_t const at = (state * ROWS + row) * width + (size_t)f->neurons[i];
            sum += (double)states[at] * f->alpha[state - 1] * f->weights[0][o * (width + 1) + i];
        }
        for (size_t k = 0; k < 2 && sum > 0.0; k++)
            logits[k] += sum * f->weights[1][k * hidden + o];
    }
    return 1.0 / (1.0 + exp(logits[0] - logits[1]));
}

static void check_width(size_t const width, size_t const hidden, uint64_t *const seed)
{
    fixture f;
    make(&f, width, hidden, seed);
    float *const states = floats(STATES * ROWS * width, seed);
    ptrdiff_t const row = (ptrdiff_t)(width * sizeof(float));
    lg_states s = {NULL, states, ROWS * row, row, STATES, ROWS, width, LG_F32};
    size_t const count = lg_siren_workspace(&f.model, ROWS);
    float *const workspace = buffer(count, sizeof *workspace);
    double scores[ROWS], first[ROWS];
    int seen = 0;
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        lg_siren_call call = {&f.model, s, scores, workspace, count};
        CHECK(lg_siren_score(&call) == LG_OK);
        if (!seen++)
            memcpy(first, scores, sizeof first);
        CHECK(memcmp(first, scores, sizeof first) == 0);
        for (size_t r = 0; r < ROWS; r++) {
            CHECK(fabs(scores[r] - textbook(&f, states, r)) <= 1e-4);
            call.states.base = states + r * width;
            call.states.rows = 1;
            CHECK(lg_siren_score(&call) == LG_OK);
            CHECK(memcmp(&first[r], &scores[0], sizeof first[r]) == 0);
            memcpy(scores, first, sizeof first);
        }
    }
    CHECK(seen > 0);
    /* A non-finite value that is read is never lost, with any weights. */
    float const bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t b = 0; b < COUNT(bad); b++)
        for (size_t state = 1; state < STATES; state++) {
            float const kept = states[state * ROWS * width];
            states[state * ROWS * width] = bad[b];
            CHECK(lg_siren_score(&(lg_siren_call){&f.model, s, scores, workspace, count}) == LG_OK);
            CHECK(!isfinite(scores[0]) && isfinite(scores[1]));
            states[state * ROWS * width] = kept;
        }
    free(states);
    free(workspace);
    destroy(&f);
}

/* More rows than the workspace holds at once: one row repeated 130 times scores as it does alone. */
static void check_many_rows(size_t const width, uint64_t *const seed)
{
    enum { MANY = 130 };
    fixture f;
    make(&f, width, 5, seed);
    float *const states = floats(STATES * width, seed);
    lg_states s
        = {NULL, states, (ptrdiff_t)(width * sizeof(float)), 0, STATES, MANY, width, LG_F32};
    size_t const count = lg_siren_workspace(&f.model, MANY);
    float *const workspace = buffer(count, sizeof *workspace);
    double *const scores = buffer(MANY, sizeof *scores), one;
    CHECK(lg_siren_workspace(&f.model, SIZE_MAX) == count);
    CHECK(lg_siren_score(&(lg_siren_call){&f.model, s, scores, workspace, count}) == LG_OK);
    s.rows = 1;
    CHECK(lg_siren_score(&(lg_siren_call){&f.model, s, &one, workspace, count}) == LG_OK);
    for (size_t r = 0; r < MANY; r++)
        CHECK(memcmp(&scores[r], &one, sizeof one) == 0);
    free(states);
    free(workspace);
    free(scores);
    destroy(&f);
}

/* bfloat16 and float16 states give the scores of their float32 values. */
static void check_halves(size_t const width, int const dtype, uint64_t *const seed)
{
    fixture f;
    make(&f, width, 5, seed);
    float *const wide = floats(STATES * width, seed);
    uint16_t *const halves = bfloats(STATES * width, wide);
    for (size_t i = 0; i < STATES * width; i++)
        wide[i] = dtype == LG_BF16 ? bfloat_value(halves[i]) : half_value(halves[i] &= 0xbfff);
    size_t const count = lg_siren_workspace(&f.model, 1);
    float *const workspace = buffer(count, sizeof *workspace);
    for (size_t v = 0; v < COUNT(LEVEL_NAMES); v++) {
        if (lg_set_level(LEVEL_NAMES[v]) != LG_OK)
            continue;
        double a, b;
        lg_states const single
            = {NULL, wide, (ptrdiff_t)(width * sizeof(float)), 0, STATES, 1, width, LG_F32};
        lg_states const half
            = {NULL, halves, (ptrdiff_t)(width * sizeof(uint16_t)), 0, STATES, 1, width, dtype};
        CHECK(lg_siren_score(&(lg_siren_call){&f.model, single, &a, workspace, count}) == LG_OK);
        CHECK(lg_siren_score(&(lg_siren_call){&f.model, half, &b, workspace, count}) == LG_OK);
        CHECK(isfinite(a) && memcmp(&a, &b, sizeof a) == 0);
    }
    free(wide);
    free(halves);
    free(workspace);
    destroy(&f);
}

/* Two rows by hand; the score is the second class's probability. Nothing is written beyond it.
 *   row 0: features 2 * (3, 1), hidden (6 - 2 - 1, -6 + 2 + 1) = (3, 0), logits (1.75, -1.75)
 *   row 1: features (0, 0), hidden (0, 1), logits (7.25, 8.75) */
static void check_values(void)
{
    int const layers[] = {1}, offsets[] = {0, 2}, neurons[] = {2, 0};
    float const alpha[] = {2}, first[] = {1, -1, -1, 1}, first_bias[] = {-1, 1};
    float const last[] = {0.5f, 7, -0.5f, 9}, last_bias[] = {0.25f, -0.25f};
    float const *const weights[] = {first, last}, *const biases[] = {first_bias, last_bias};
    size_t const widths[] = {2, 2, 2};
    lg_siren const model
        = {2, 3, 1, layers, offsets, neurons, alpha, LINEAR, widths, weights, biases};
    float const states[2][2][3] = {{{9, 9, 9}, {9, 9, 9}}, {{1, 8, 3}, {0, 8, 0}}};
    float workspace[8];
    double scores[] = {7, 7, 7};
    lg_states const s = {NULL, states, sizeof *states, sizeof **states, 2, 2, 3, LG_F32};
    CHECK(lg_siren_check(&model) == LG_OK && lg_siren_workspace(&model, 2) == COUNT(workspace));
    lg_siren_call const call = {&model, s, scores, workspace, COUNT(workspace)};
    CHECK(lg_siren_score(&call) == LG_OK);
    CHECK(fabs(scores[0] - 1.0 / (1.0 + exp(3.5))) < 1e-7);
    CHECK(fabs(scores[1] - 1.0 / (1.0 + exp(-1.5))) < 1e-7 && scores[2] == 7.0);
}

int main(void)
{
    uint64_t seed = 3;
    check_values();
    size_t const hidden[] = {1, 3, 4, 5, 33};
    for (size_t w = 0; w < COUNT(WIDTHS); w++) {
        for (size_t h = 0; h < COUNT(hidden); h++)
            check_width(WIDTHS[w], hidden[h], &seed);
        check_many_rows(WIDTHS[w], &seed);
        check_halves(WIDTHS[w], LG_BF16, &seed);
        check_halves(WIDTHS[w], LG_F16, &seed);
    }
    return 0;
}
