/* WeightWatch from its frozen arrays, and the reading of one text. */
#include <math.h>   /* fabs, isfinite, sqrt */
#include <stdint.h> /* uint8_t */

#include "detector.h"
#include "widen.h"

/* How far a direction's length may be from 1: float16 rounds each element within 2^-11. */
static double const UNIT = 1e-3;

/* What a direction is of. */
typedef struct places {
    int const *layers;    /* (count) */
    uint8_t const *parts; /* (count) the index of a matrix of the block */
    int const *ranks;     /* (count) */
    size_t count;
} places;

/* Directions stand in the order of layers, parts and ranks, each once. */
static int in_order(places const *const of, size_t const k)
{
    if (of->layers[k] != of->layers[k - 1])
        return of->layers[k] > of->layers[k - 1];
    if (of->parts[k] != of->parts[k - 1])
        return of->parts[k] > of->parts[k - 1];
    return of->ranks[k] > of->ranks[k - 1];
}

static lg_status check_places(lg_binding const *const binding, places const *const of)
{
    for (size_t k = 0; k < of->count; k++) {
        if (of->layers[k] < 1)
            return lg_unfit(binding, "layers", "has a state below 1");
        if (of->parts[k] > 1 || of->ranks[k] < 0)
            return lg_unfit(binding, "parts", "or ranks has a value that is none");
        if (k && !in_order(of, k))
            return lg_unfit(binding, "directions",
                            "are not in the order of layers, parts and ranks, each once");
    }
    return LG_OK;
}

static double value_at(lg_directions const *const model, size_t const place)
{
    return model->dtype == LG_F32
               ? (double)((float const *)model->directions)[place]
               : (double)lg_widen_f16(((uint16_t const *)model->directions)[place]);
}

/* Whether every direction has length 1. Sums in four lanes: one alone waits for its own additions. */
static int unit_rows(lg_directions const *const model, size_t const count)
{
    for (size_t k = 0; k < count; k++) {
        double lanes[4] = {0.0};
        for (size_t i = 0; i < model->width; i++) {
            double const value = value_at(model, k * model->width + i);
            lanes[i % 4] += value * value;
        }
        if (!(fabs(sqrt(lanes[0] + lanes[1] + lanes[2] + lanes[3]) - 1.0) <= UNIT))
            return 0;
    }
    return 1;
}

/* The states that have directions, and where the directions of each begin. */
static lg_status group(lg_binding const *const binding, places const *const of,
                       lg_directions *const model)
{
    int *const layers = lg_keep(binding->memory, of->count, sizeof *layers);
    int *const offsets = lg_keep(binding->memory, of->count + 1, sizeof *offsets);
    if (!layers || !offsets)
        return lg_no_memory(binding);
    size_t chosen = 0;
    for (size_t k = 0; k < of->count; k++)
        if (k == 0 || of->layers[k] != of->layers[k - 1]) {
            layers[chosen] = of->layers[k];
            offsets[chosen++] = (int)k;
        }
    offsets[chosen] = (int)of->count;
    model->layers = layers;
    model->offsets = offsets;
    model->chosen_count = chosen;
    model->states_needed = (size_t)layers[chosen - 1] + 1;
    return LG_OK;
}

static lg_status bind_directions(lg_binding const *const binding, places *const of,
                                 lg_directions *const model)
{
    lg_array const *directions = lg_find(binding, "directions");
    int const half = directions && directions->npy.type == LG_TYPE_F16;
    lg_expected const first = {.name = "directions",
                               .type = half ? LG_TYPE_F16 : LG_TYPE_F32,
                               .rank = 2,
                               .sides = {LG_ANY_SIDE, LG_ANY_SIDE}};
    lg_status status = lg_need(binding, &first, &directions);
    if (status != LG_OK)
        return status;
    of->count = directions->npy.sides[0];
    if (!directions->count)
        return lg_unfit(binding, "directions", "is empty; expected at least one direction");
    lg_expected const others[] = {
        {.name = "layers", .type = LG_TYPE_I32, .rank = 1, .sides = {of->count}},
        {.name = "parts", .type = LG_TYPE_U8, .rank = 1, .sides = {of->count}},
        {.name = "ranks", .type = LG_TYPE_I32, .rank = 1, .sides = {of->count}},
        {.name = "singular_values", .type = LG_TYPE_F32, .rank = 1, .sides = {of->count}},
        {.name = "roles_seen", .type = LG_TYPE_BOOL, .rank = 1, .sides = {LG_ROLES}},
    };
    enum { COUNT = sizeof others / sizeof *others };
    lg_array const *found[COUNT];
    status = lg_need_all(binding, COUNT, others, found);
    if (status != LG_OK)
        return status;
    of->layers = found[0]->data;
    of->parts = found[1]->data;
    of->ranks = found[2]->data;
    model->width = directions->npy.sides[1];
    model->directions = directions->data;
    model->dtype = half ? LG_F16 : LG_F32;
    status = check_places(binding, of);
    if (status == LG_OK && !unit_rows(model, of->count))
        status = lg_unfit(binding, "directions", "has a row whose length is not 1");
    return status == LG_OK ? group(binding, of, model) : status;
}

static lg_status bind_ranges(lg_binding const *const binding, size_t const count,
                             lg_ranges *const ranges)
{
    lg_expected const expected[] = {
        {.name = "low", .type = LG_TYPE_F32, .rank = 2, .sides = {LG_ROLES, count}},
        {.name = "high", .type = LG_TYPE_F32, .rank = 2, .sides = {LG_ROLES, count}},
        {.name = "scale",
         .type = LG_TYPE_F32,
         .rank = 2,
         .sides = {LG_ROLES, count},
         .positive = 1},
    };
    lg_array const *found[3];
    lg_status const status = lg_need_all(binding, 3, expected, found);
    if (status != LG_OK)
        return status;
    *ranges = (lg_ranges){count, found[0]->data, found[1]->data, found[2]->data};
    for (size_t i = 0; i < LG_ROLES * count; i++)
        if (ranges->low[i] > ranges->high[i])
            return lg_unfit(binding, "low", "is above high; expected ranges");
    return LG_OK;
}

static lg_status bind(lg_binding const *const binding, lg_detector *const detector)
{
    lg_watched *const model = &detector->model.watched;
    places of;
    lg_status status = bind_directions(binding, &of, &model->directions);
    if (status == LG_OK)
        status = bind_ranges(binding, of.count, &model->ranges);
    if (status == LG_OK && lg_directions_check(&model->directions) != LG_OK)
        status = lg_unfit(binding, "directions", "are more than can be read");
    if (status != LG_OK)
        return status;
    model->layers = of.layers;
    detector->states = model->directions.states_needed;
    detector->width = model->directions.width;
    detector->width_known = 1;
    return LG_OK;
}

static void score(lg_detector const *const detector, lg_seen const *const seen,
                  lg_reading *const reading)
{
    lg_watched const *const model = &detector->model.watched;
    int worst;
    lg_excess_call const call = {.ranges = &model->ranges,
                                 .extremes = seen->extremes,
                                 .rows = 1,
                                 .scores = &reading->score,
                                 .worst = &worst};
    seen->kernels->excess(&call);
    if (!isfinite(reading->score))
        return;
    reading->layer = model->layers[(size_t)worst % model->ranges.count];
    reading->evidence = reading->score;
}

lg_kind const lg_kind_weightwatch = {"weightwatch", LG_CONVERSATION, LG_EXTREMES, bind, score};
