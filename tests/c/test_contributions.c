/* SIREN's evidence: a layer's contribution is the derivative of the logit difference by a factor on
 * that layer's state, which differences of scores approximate. */
#include "check.h"

enum { STATES = 3, WIDTH = 4, FEATURES = 5, FIRST = 19, SECOND = 3, LAYERS = 2 };

static lg_guard *guard;
static double workspace[512];

static void open_network(uint64_t *const seed)
{
    static size_t const none[] = {1}, two[] = {2}, three[] = {3}, features[] = {FEATURES};
    static size_t const first[] = {FIRST, FEATURES}, second[] = {SECOND, FIRST};
    static size_t const third[] = {2, SECOND};
    static int const layers[] = {0, 2}, offsets[] = {0, 3, 5}, neurons[] = {0, 1, 3, 2, 3};
    static float const alpha[] = {0.5f, 2.0f};
    static double const zero = 0.0, interval[] = {0.0, 1.0}, clean[] = {0.1, 0.2, 0.3};
    float *const weights[]
        = {floats(FIRST * FEATURES, seed), floats(SECOND * FIRST, seed), floats(2 * SECOND, seed)};
    float *const biases = floats(FIRST, seed);
    lg_named_array const arrays[] = {
        {"siren/layers", "int32", 1, two, layers},
        {"siren/neuron_offsets", "int32", 1, three, offsets},
        {"siren/neurons", "int32", 1, features, neurons},
        {"siren/alpha", "float32", 1, two, alpha},
        {"siren/weight_0", "float32", 2, first, weights[0]},
        {"siren/bias_0", "float32", 1, first, biases},
        {"siren/weight_1", "float32", 2, second, weights[1]},
        {"siren/bias_1", "float32", 1, second, biases},
        {"siren/weight_2", "float32", 2, third, weights[2]},
        {"siren/bias_2", "float32", 1, third, biases},
        {"siren/threshold", "float64", 0, none, &zero},
        {"siren/clean_scores", "float64", 1, three, clean},
        {"siren/target_fpr", "float64", 0, none, &clean[0]},
        {"siren/fpr_interval", "float64", 1, two, interval},
    };
    char faults[512];
    lg_open_call call = {.struct_size = sizeof call,
                         .arrays = arrays,
                         .array_count = sizeof arrays / sizeof *arrays,
                         .faults = faults,
                         .faults_size = sizeof faults};
    CHECK(lg_open_checked(&call, &guard) == LG_OK);
    for (size_t i = 0; i < 3; i++)
        free(weights[i]);
    free(biases);
}

/* The difference of the two logits, harmful minus safe. */
static double logit(float const *const values, lg_evidence *const evidence)
{
    lg_reading reading;
    lg_pooled_call const call = {.struct_size = sizeof call,
                                 .rows = {.base = values,
                                          .layer_stride = WIDTH * sizeof(float),
                                          .row_stride = WIDTH * sizeof(float),
                                          .layer_count = STATES,
                                          .rows = 1,
                                          .width = WIDTH,
                                          .dtype = LG_F32},
                                 .workspace = workspace,
                                 .workspace_size = sizeof workspace,
                                 .readings = &reading,
                                 .reading_size = sizeof reading,
                                 .evidence = evidence,
                                 .evidence_count = evidence ? LAYERS : 0};
    CHECK(lg_score_pooled(guard, &call) == LG_OK && reading.flagged);
    return log(reading.score / (1.0 - reading.score));
}

static double derivative(float *const values, int const layer)
{
    double const step = 1.0 / 1024;
    float *const state = values + layer * WIDTH;
    double sum = 0.0;
    float before[WIDTH];
    memcpy(before, state, sizeof before);
    for (int side = -1; side <= 1; side += 2) {
        for (size_t i = 0; i < WIDTH; i++)
            state[i] = (float)((double)before[i] * (1.0 + side * step));
        sum += side * logit(values, NULL);
    }
    memcpy(state, before, sizeof before);
    return sum / (2.0 * step);
}

int main(void)
{
    uint64_t seed = 5;
    double largest = 0.0;
    for (size_t trial = 0; trial < 200; trial++) {
        open_network(&seed);
        float *const values = floats(STATES * WIDTH, &seed);
        lg_evidence evidence[LAYERS];
        logit(values, evidence);
        CHECK(evidence[0].layer + evidence[1].layer == 2); /* 0 and 2 */
        CHECK(fabs(evidence[0].value) >= fabs(evidence[1].value));
        for (size_t e = 0; e < LAYERS; e++) {
            double const expected = derivative(values, evidence[e].layer);
            CHECK(fabs(evidence[e].value - expected) < 0.02 * (1.0 + fabs(expected)));
            largest = fmax(largest, fabs(expected));
        }
        free(values);
        lg_close(guard);
    }
    CHECK(largest > 0.1);
    return 0;
}
