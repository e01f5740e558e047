/* SIREN and Agent-SIREN from their frozen arrays, and the reading of one text. */
#include <limits.h> /* INT_MAX */
#include <stdio.h>  /* snprintf */

#include "detector.h"

_Static_assert(sizeof(int) == 4, "frozen indices are read where they lie");

/* Frozen arrays of the chosen neurons. */
typedef struct chosen {
    lg_array const *layers, *offsets, *neurons, *alpha;
} chosen;

static lg_status find_chosen(lg_binding const *const binding, chosen *const found)
{
    lg_expected const expected[] = {
        {.name = "layers", .type = LG_TYPE_I32, .rank = 1, .sides = {LG_ANY_SIDE}},
        {.name = "neuron_offsets", .type = LG_TYPE_I32, .rank = 1, .sides = {LG_ANY_SIDE}},
        {.name = "neurons", .type = LG_TYPE_I32, .rank = 1, .sides = {LG_ANY_SIDE}},
        {.name = "alpha", .type = LG_TYPE_F32, .rank = 1, .sides = {LG_ANY_SIDE}},
    };
    lg_array const *arrays[4];
    lg_status const status = lg_need_all(binding, 4, expected, arrays);
    if (status != LG_OK)
        return status;
    *found = (chosen){arrays[0], arrays[1], arrays[2], arrays[3]};
    size_t const count = found->layers->count;
    if (!count || found->offsets->count != count + 1 || found->alpha->count != count)
        return lg_unfit(binding, "layers",
                        "is empty, or neuron_offsets and alpha do not have one more and as many "
                        "entries");
    int const *const offsets = found->offsets->data;
    for (size_t i = 0; i < count; i++)
        if (offsets[i + 1] < offsets[i])
            return lg_unfit(binding, "neuron_offsets", "descends; expected an ascending list");
    if (offsets[0] != 0 || (size_t)offsets[count] != found->neurons->count)
        return lg_unfit(binding, "neuron_offsets", "does not lead from 0 to the number of neurons");
    return LG_OK;
}

/* One more than the largest of the indices; 0 where one is negative. */
static size_t needed(lg_array const *const indices)
{
    size_t most = 0;
    for (size_t i = 0; i < indices->count; i++) {
        int const index = ((int const *)indices->data)[i];
        if (index < 0 || index == INT_MAX)
            return 0;
        most = (size_t)index >= most ? (size_t)index + 1 : most;
    }
    return most;
}

static size_t linear_count(lg_binding const *const binding)
{
    char name[32];
    size_t count = 0;
    while (snprintf(name, sizeof name, "weight_%zu", count) > 0 && lg_find(binding, name))
        count++;
    return count ? count : 1; /* the first is then found to be missing */
}

/* Fills in the linear maps, each of as many inputs as the one before has outputs. */
static lg_status bind_network(lg_binding const *const binding, lg_siren *const model)
{
    size_t const count = linear_count(binding);
    size_t *const widths = lg_keep(binding->memory, count + 1, sizeof *widths);
    float const **const weights = lg_keep(binding->memory, count, sizeof *weights);
    float const **const biases = lg_keep(binding->memory, count, sizeof *biases);
    if (!widths || !weights || !biases)
        return lg_no_memory(binding);
    widths[0] = (size_t)model->neuron_offsets[model->chosen_count];
    for (size_t m = 0; m < count; m++) {
        char weight_name[32], bias_name[32];
        snprintf(weight_name, sizeof weight_name, "weight_%zu", m);
        snprintf(bias_name, sizeof bias_name, "bias_%zu", m);
        lg_array const *weight, *bias;
        lg_expected expected
            = {.name = bias_name, .type = LG_TYPE_F32, .rank = 1, .sides = {LG_ANY_SIDE}};
        lg_status status = lg_need(binding, &expected, &bias);
        if (status != LG_OK)
            return status;
        widths[m + 1] = bias->count;
        expected = (lg_expected){.name = weight_name,
                                 .type = LG_TYPE_F32,
                                 .rank = 2,
                                 .sides = {widths[m + 1], widths[m]}};
        status = lg_need(binding, &expected, &weight);
        if (status != LG_OK)
            return status;
        weights[m] = weight->data;
        biases[m] = bias->data;
    }
    model->linear_count = count;
    model->widths = widths;
    model->weights = weights;
    model->biases = biases;
    return LG_OK;
}

static lg_status bind(lg_binding const *const binding, lg_detector *const detector)
{
    chosen found;
    lg_status status = find_chosen(binding, &found);
    if (status != LG_OK)
        return status;
    lg_siren *const model = &detector->model.siren;
    *model = (lg_siren){
        .states_needed = needed(found.layers),
        .width_needed = needed(found.neurons),
        .chosen_count = found.layers->count,
        .layers = found.layers->data,
        .neuron_offsets = found.offsets->data,
        .neurons = found.neurons->data,
        .alpha = found.alpha->data,
    };
    if (!model->states_needed)
        return lg_unfit(binding, "layers", "has an index below 0");
    if (!model->width_needed)
        return lg_unfit(binding, "neurons", "is empty or has an index below 0");
    status = bind_network(binding, model);
    if (status != LG_OK)
        return status;
    if (lg_siren_check(model) != LG_OK)
        return lg_unfit(binding, "weight_0",
                        "and those behind it do not lead to 2 outputs, safe and harmful");
    detector->states = model->states_needed;
    detector->width = model->width_needed;
    return LG_OK;
}

static void score(lg_detector const *const detector, lg_seen const *const seen,
                  lg_reading *const reading)
{
    lg_siren_call const call = {.model = &detector->model.siren,
                                .states = seen->row,
                                .scores = &reading->score,
                                .workspace = seen->network,
                                .workspace_count = seen->network_count};
    seen->kernels->siren(&call);
}

lg_kind const lg_kind_siren = {"siren", LG_CONTENT, LG_MEAN, bind, score};
lg_kind const lg_kind_agent_siren = {"agent_siren", LG_TRAJECTORY, LG_LAST, bind, score};
