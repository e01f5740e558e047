/* WeightWatch: parameters, score and evidence. The formulas are in layerguard_api.h. */
#include <stdint.h> /* uint8_t */

#include "registry.h"
#include "widen.h"

/* Tolerance of a direction's length around 1: float16 rounds each element within 2^-11. */
static double const UNIT = 1e-3;

_Static_assert(LG_ROLES == 4, "the shapes below contain a 4");

static lg_parameter const parameters[] = {
    {"directions", LG_TYPE_F32, "KD", LG_NOT_EMPTY | LG_OR_HALF},
    {"layers", LG_TYPE_I32, "K", 0},
    {"parts", LG_TYPE_U8, "K", 0},
    {"ranks", LG_TYPE_I32, "K", 0},
    {"singular_values", LG_TYPE_F32, "K", 0},
    {"low", LG_TYPE_F32, "4K", 0},
    {"high", LG_TYPE_F32, "4K", 0},
    {"scale", LG_TYPE_F32, "4K", LG_POSITIVE},
    {"roles_seen", LG_TYPE_BOOL, "4", 0},
};

/* Directions by state, and their ranges. */
typedef struct watched {
    lg_directions directions;
    lg_ranges ranges;
    int const *layers; /* (K) the state of each direction */
} watched;

/* The layer, matrix and rank of each direction. */
typedef struct places {
    int const *layers;    /* (count) */
    uint8_t const *parts; /* (count) the index of a matrix of the block */
    int const *ranks;     /* (count) */
    size_t count;
} places;

/* Whether direction k sorts after the one before it, by layer, part and rank. */
static int in_order(places const *const origins, size_t const k)
{
    if (origins->layers[k] != origins->layers[k - 1])
        return origins->layers[k] > origins->layers[k - 1];
    if (origins->parts[k] != origins->parts[k - 1])
        return origins->parts[k] > origins->parts[k - 1];
    return origins->ranks[k] > origins->ranks[k - 1];
}

static void check_layers(lg_binding const *const binding, places const *const origins)
{
    size_t const depth = lg_length(binding, 'L');
    int least = origins->layers[0], most = least;
    for (size_t k = 1; k < origins->count; k++) {
        least = origins->layers[k] < least ? origins->layers[k] : least;
        most = origins->layers[k] > most ? origins->layers[k] : most;
    }
    if (least < 1 && depth == LG_UNKNOWN)
        lg_unfit(binding, "layers", "is %d to %d; expected states from 1 on", least, most);
    else if (least < 1 || (depth != LG_UNKNOWN && (size_t)most > depth))
        lg_unfit(binding, "layers", "is %d to %d; expected states within 1..%zu", least, most,
                 depth);
}

static void check_places(lg_binding const *const binding, places const *const origins)
{
    uint8_t part = 0;
    int rank = 0, ordered = 1;
    for (size_t k = 0; k < origins->count; k++) {
        part = origins->parts[k] > part ? origins->parts[k] : part;
        rank = origins->ranks[k] < rank ? origins->ranks[k] : rank;
        ordered &= !k || in_order(origins, k);
    }
    check_layers(binding, origins);
    if (part > 1)
        lg_unfit(binding, "parts", "has %d; expected 0 (down_proj) or 1 (o_proj)", part);
    if (rank < 0)
        lg_unfit(binding, "ranks", "has %d; expected 0 or more", rank);
    if (!ordered)
        lg_unfit(binding, "directions",
                 "are not in the order of layers, parts and ranks, each once");
}

static double value_at(lg_directions const *const model, size_t const place)
{
    return model->dtype == LG_F32
               ? (double)((float const *)model->directions)[place]
               : (double)lg_widen_f16(((uint16_t const *)model->directions)[place]);
}

/* The length farthest from 1. Four partial sums, since a single one would be limited by the latency of
 * its additions. */
static double farthest_length(lg_directions const *const model, size_t const count)
{
    double farthest = 1.0;
    for (size_t k = 0; k < count; k++) {
        double lanes[4] = {0.0};
        for (size_t i = 0; i < model->width; i++) {
            double const value = value_at(model, k * model->width + i);
            lanes[i % 4] += value * value;
        }
        double const length = sqrt(lanes[0] + lanes[1] + lanes[2] + lanes[3]);
        if (fabs(length - 1.0) > fabs(farthest - 1.0))
            farthest = length;
    }
    return farthest;
}

static void check_directions(lg_binding const *const binding, lg_directions const *const model,
                             size_t const count)
{
    double const length = farthest_length(model, count);
    if (fabs(length - 1.0) > UNIT)
        lg_unfit(binding, "directions", "has a row of length %.6g; expected 1", length);
}

static void check_ranges(lg_binding const *const binding, lg_ranges const *const ranges)
{
    for (size_t i = 0; i < LG_ROLES * ranges->count; i++)
        if (ranges->low[i] > ranges->high[i]) {
            lg_unfit(binding, "low", "is above high; expected ranges");
            return;
        }
}

/* Sets the states that have directions and the offset of the first direction of each. */
static lg_status group(lg_binding const *const binding, places const *const origins,
                       lg_directions *const model)
{
    int *const layers = lg_allocate(binding->memory, origins->count, sizeof *layers);
    int *const offsets = lg_allocate(binding->memory, origins->count + 1, sizeof *offsets);
    if (!layers || !offsets)
        return lg_no_memory(binding);
    size_t chosen = 0;
    for (size_t k = 0; k < origins->count; k++)
        if (k == 0 || origins->layers[k] != origins->layers[k - 1]) {
            layers[chosen] = origins->layers[k];
            offsets[chosen++] = (int)k;
        }
    offsets[chosen] = (int)origins->count;
    model->layers = layers;
    model->offsets = offsets;
    model->chosen_count = chosen;
    model->states_needed = (size_t)layers[chosen - 1] + 1;
    return lg_directions_check(model) == LG_OK
               ? LG_OK
               : lg_unfit(binding, "directions", "are more than can be read");
}

static lg_status bind(lg_binding *const binding, lg_bound *const bound)
{
    size_t const before = binding->faults->count;
    watched *const model = lg_allocate(binding->memory, 1, sizeof *model);
    if (!model)
        return lg_no_memory(binding);
    lg_array const *const directions = lg_find(binding, "directions");
    size_t const count = lg_length(binding, 'K');
    places const origins = {lg_find(binding, "layers")->data, lg_find(binding, "parts")->data,
                            lg_find(binding, "ranks")->data, count};
    model->layers = origins.layers;
    model->directions.width = lg_length(binding, 'D');
    model->directions.directions = directions->data;
    model->directions.dtype = directions->npy.type == LG_TYPE_F16 ? LG_F16 : LG_F32;
    model->ranges = (lg_ranges){count, lg_find(binding, "low")->data,
                                lg_find(binding, "high")->data, lg_find(binding, "scale")->data};
    check_directions(binding, &model->directions, count);
    check_places(binding, &origins);
    check_ranges(binding, &model->ranges);
    if (binding->faults->count > before)
        return LG_ERR_PARAMETERS;
    lg_status const status = group(binding, &origins, &model->directions);
    *bound = (lg_bound){.model = model,
                        .directions = &model->directions,
                        .states = model->directions.states_needed,
                        .width = model->directions.width,
                        .width_known = 1};
    return status;
}

/* worst: int (rows), role * K + direction. */
static size_t scratch(lg_bound const *const bound, size_t const rows, int const explained)
{
    (void)bound;
    (void)explained;
    return rows * sizeof(int);
}

static void score(lg_bound const *const bound, lg_input const *const input, double *const scores)
{
    watched const *const model = bound->model;
    int *const worst = input->scratch;
    for (size_t row = 0; row < input->rows.rows; row++) {
        lg_excess_call const call = {.ranges = &model->ranges,
                                     .extremes = lg_row(&input->rows, 0, row),
                                     .rows = 1,
                                     .scores = &scores[row],
                                     .worst = &worst[row]};
        input->kernels->excess(&call);
    }
}

/* The excess of a role's cosines to a direction; place: role * K + direction. */
static double excess_at(lg_ranges const *const ranges, float const *const extremes,
                        size_t const place)
{
    size_t const role = place / ranges->count, k = place % ranges->count;
    float const *const least = extremes + 2 * role * ranges->count;
    double const below = (double)ranges->low[place] - (double)least[k];
    double const above = (double)least[ranges->count + k] - (double)ranges->high[place];
    return (above > below ? above : below) / (double)ranges->scale[place];
}

/* The direction with the largest excess; for a flagged text also the next ones. */
static size_t explain(lg_bound const *const bound, lg_input const *const input, size_t const row,
                      lg_reading const *const reading, lg_evidence *const evidence,
                      size_t const count)
{
    watched const *const model = bound->model;
    if (reading->status != LG_READ)
        return 0;
    int const worst = ((int const *)input->scratch)[row];
    size_t const total = model->ranges.count;
    evidence[0] = (lg_evidence){
        .value = reading->score, .layer = model->layers[(size_t)worst % total], .place = worst};
    size_t used = 1;
    if (!reading->flagged || count == 1)
        return used;
    float const *const extremes = lg_row(&input->rows, 0, row);
    for (size_t place = 0; place < LG_ROLES * total; place++) {
        double const excess = excess_at(&model->ranges, extremes, place);
        lg_evidence const entry
            = {.value = excess, .layer = model->layers[place % total], .place = (int)place};
        if ((int)place != worst && excess > 0.0)
            used = 1 + lg_rank_evidence(evidence + 1, used - 1, count - 1, entry);
    }
    return used;
}

lg_kind const lg_kind_weightwatch = {
    .name = "weightwatch",
    .view = LG_CONVERSATION,
    .pooling = LG_EXTREMES,
    .parameters = parameters,
    .parameter_count = sizeof parameters / sizeof *parameters,
    .bind = bind,
    .scratch = scratch,
    .score = score,
    .explain = explain,
    .explains_cheaply = 1,
};
