/* Familiarity: the distance of a pooled state to the nearest centre of the calibration rows.
 *
 * score = sqrt(min_k (|z_k|^2 - sum_r (directions_r . z_k)^2)),  z_k = (x - centres_k) / scale,
 *
 * the Mahalanobis distance under a covariance of R directions and equal variance beside them.
 * Precision: double from the difference on. */
#include <math.h> /* sqrt */

#include "registry.h"
#include "widen.h"

static lg_parameter const parameters[] = {
    {"layer", LG_TYPE_I32, "", 0},
    {"centres", LG_TYPE_F32, "KD", LG_NOT_EMPTY},
    {"scale", LG_TYPE_F32, "D", LG_POSITIVE},
    {"directions", LG_TYPE_F32, "RD", 0},
};

typedef struct familiarity {
    size_t layer, centre_count, direction_count, width;
    float const *centres;    /* (centre_count, width) */
    float const *scale;      /* (width) */
    float const *directions; /* (direction_count, width) */
} familiarity;

static lg_status bind(lg_binding *const binding, lg_bound *const bound)
{
    familiarity *const model = lg_allocate(binding->memory, 1, sizeof *model);
    if (!model)
        return lg_no_memory(binding);
    int const layer = *(int const *)lg_find(binding, "layer")->data;
    size_t const depth = lg_length(binding, 'L');
    if (layer < 0 || (depth != LG_UNKNOWN && (size_t)layer > depth))
        return lg_unfit(binding, "layer", "is %d; expected the index of a state of the model",
                        layer);
    *model = (familiarity){
        .layer = (size_t)layer,
        .centre_count = lg_length(binding, 'K'),
        .direction_count = lg_length(binding, 'R'),
        .width = lg_length(binding, 'D'),
        .centres = lg_find(binding, "centres")->data,
        .scale = lg_find(binding, "scale")->data,
        .directions = lg_find(binding, "directions")->data,
    };
    *bound = (lg_bound){
        .model = model, .states = model->layer + 1, .width = model->width, .width_known = 1};
    return LG_OK;
}

/* z: double (width); the state: float (width). */
static size_t scratch(lg_bound const *const bound, size_t const rows, int const explained)
{
    (void)rows;
    (void)explained;
    return bound->width * (sizeof(double) + sizeof(float));
}

/* The squared distance to centre k; z is overwritten. */
static double distance(familiarity const *const model, size_t const k, float const *const state,
                       double *const z)
{
    float const *const centre = model->centres + k * model->width;
    double square = 0.0;
    for (size_t i = 0; i < model->width; i++) {
        z[i] = ((double)state[i] - (double)centre[i]) / (double)model->scale[i];
        square += z[i] * z[i];
    }
    for (size_t r = 0; r < model->direction_count; r++) {
        float const *const direction = model->directions + r * model->width;
        double along = 0.0;
        for (size_t i = 0; i < model->width; i++)
            along += (double)direction[i] * z[i];
        square -= along * along;
    }
    return square;
}

/* Index of the nearest centre, and the squared distance to it; NaN if one is NaN. */
static size_t nearest(familiarity const *const model, lg_input const *const input, size_t const row,
                      double *const least)
{
    double *const z = input->scratch;
    float *const state = (float *)(z + model->width);
    void const *const values = lg_row(&input->rows, model->layer, row);
    size_t best = 0;
    if (input->rows.dtype == LG_F32)
        memcpy(state, values, model->width * sizeof *state);
    else
        lg_widen(input->rows.dtype, values, 0, model->width, state);
    *least = distance(model, 0, state, z);
    for (size_t k = 1; k < model->centre_count; k++) {
        double const square = distance(model, k, state, z);
        if (!(square >= *least)) {
            *least = square;
            best = k;
        }
    }
    return best;
}

static void score(lg_bound const *const bound, lg_input const *const input, double *const scores)
{
    for (size_t row = 0; row < input->rows.rows; row++) {
        double square;
        nearest(bound->model, input, row, &square);
        scores[row] = lg_canonical(sqrt(square < 0.0 ? 0.0 : square));
    }
}

/* The nearest centre. */
static size_t explain(lg_bound const *const bound, lg_input const *const input, size_t const row,
                      lg_reading const *const reading, lg_evidence *const evidence,
                      size_t const count)
{
    familiarity const *const model = bound->model;
    double square;
    (void)count;
    evidence[0] = (lg_evidence){.value = reading->score,
                                .layer = (int)model->layer,
                                .place = (int)nearest(model, input, row, &square)};
    return 1;
}

lg_kind const lg_kind_familiarity = {
    .name = "familiarity",
    .view = LG_PROMPT,
    .pooling = LG_MEAN,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof *parameters,
    .bind = bind,
    .scratch = scratch,
    .score = score,
    .explain = explain,
    .explains_cheaply = 1,
    .never_decides = 1,
};
