/* SIREN and Agent-SIREN: parameters, score and evidence. The formulas are in layerguard_api.h. */
#include <limits.h> /* INT_MAX */

#include "registry.h"

_Static_assert(sizeof(int) == 4, "frozen int32 indices are read as int");

static lg_parameter const parameters[] = {
    {"layers", LG_TYPE_I32, "*", 0},    {"neuron_offsets", LG_TYPE_I32, "*", 0},
    {"neurons", LG_TYPE_I32, "*", 0},   {"alpha", LG_TYPE_F32, "*", 0},
    {"weight_#", LG_TYPE_F32, "**", 0}, {"bias_#", LG_TYPE_F32, "*", 0},
};

/* One more than the largest index; 0 if there are none; LG_UNKNOWN if an index is negative. */
static size_t needed(lg_array const *const indices)
{
    size_t most = 0;
    for (size_t i = 0; i < indices->count; i++) {
        int const index = ((int const *)indices->data)[i];
        if (index < 0 || index == INT_MAX)
            return LG_UNKNOWN;
        most = (size_t)index >= most ? (size_t)index + 1 : most;
    }
    return most;
}

/* Whether indices whose `needed` is given are valid for `count` elements; LG_UNKNOWN: any number. */
static int within(size_t const needed_count, size_t const count)
{
    return needed_count != LG_UNKNOWN && (count == LG_UNKNOWN || needed_count <= count);
}

static void check_layers(lg_binding const *const binding, lg_array const *const layers)
{
    char text[LG_SHOWN];
    size_t const depth = lg_length(binding, 'L');
    size_t const states = needed(layers);
    if (states && within(states, depth == LG_UNKNOWN ? depth : depth + 1))
        return;
    lg_show_integers(text, layers->data, layers->count);
    if (depth == LG_UNKNOWN)
        lg_unfit(binding, "layers", "is %s; expected states from 0 on", text);
    else
        lg_unfit(binding, "layers", "is %s; expected states within 0..%zu", text, depth);
}

static void check_offsets(lg_binding const *const binding, size_t const chosen)
{
    lg_array const *const array = lg_find(binding, "neuron_offsets");
    size_t const alpha = lg_find(binding, "alpha")->count;
    size_t const neurons = lg_find(binding, "neurons")->count;
    if (array->count != chosen + 1 || alpha != chosen) {
        lg_unfit(binding, "neuron_offsets",
                 "and alpha have %zu and %zu entries; expected %zu and %zu for %zu layers",
                 array->count, alpha, chosen + 1, chosen, chosen);
        return;
    }
    int const *const offsets = array->data;
    int good = offsets[0] == 0 && offsets[chosen] >= 0 && (size_t)offsets[chosen] == neurons;
    for (size_t i = 0; i < chosen; i++)
        good &= offsets[i] <= offsets[i + 1];
    if (good)
        return;
    char text[LG_SHOWN];
    lg_unfit(binding, "neuron_offsets",
             "is %s; expected an ascending list from 0 to the number of neurons, %zu",
             lg_show_integers(text, offsets, array->count), neurons);
}

static void check_neurons(lg_binding const *const binding, lg_array const *const neurons)
{
    size_t const width = lg_length(binding, 'D');
    size_t const least_width = needed(neurons);
    if (!neurons->count)
        lg_unfit(binding, "neurons", "is empty; expected at least one neuron");
    else if (!within(least_width, width) && width == LG_UNKNOWN)
        lg_unfit(binding, "neurons", "has indices below 0");
    else if (!within(least_width, width))
        lg_unfit(binding, "neurons", "has indices outside 0..%zu", width - 1);
}

/* Checks that each linear map has as many inputs as the one before has outputs, and the last 2. */
static void check_chain(lg_binding const *const binding, size_t const count)
{
    size_t width = lg_find(binding, "neurons")->count;
    for (size_t m = 0; m < count; m++) {
        size_t const *const sides = lg_find_numbered(binding, "weight_#", m)->npy.sides;
        size_t const outputs = lg_find_numbered(binding, "bias_#", m)->count;
        if (sides[0] != outputs || sides[1] != width)
            lg_refuse(binding->faults, LG_ERR_PARAMETERS,
                      "%s/weight_%zu is [%zu, %zu]; expected [%zu, %zu]; calibrate again",
                      binding->group, m, sides[0], sides[1], outputs, width);
        if (!outputs)
            lg_refuse(binding->faults, LG_ERR_PARAMETERS,
                      "%s/bias_%zu is empty; expected at least one output; calibrate again",
                      binding->group, m);
        width = outputs;
    }
    if (width != 2)
        lg_refuse(binding->faults, LG_ERR_PARAMETERS,
                  "%s's last layer has %zu outputs; expected 2, safe and harmful; calibrate again",
                  binding->group, width);
}

/* Fills in the linear maps. */
static int bind_network(lg_binding const *const binding, lg_siren *const model)
{
    size_t const count = lg_numbered(binding, "weight_#");
    size_t *const widths = lg_allocate(binding->memory, count + 1, sizeof *widths);
    float const **const weights = lg_allocate(binding->memory, count, sizeof *weights);
    float const **const biases = lg_allocate(binding->memory, count, sizeof *biases);
    if (!widths || !weights || !biases)
        return 0;
    widths[0] = (size_t)model->neuron_offsets[model->chosen_count];
    for (size_t m = 0; m < count; m++) {
        lg_array const *const bias = lg_find_numbered(binding, "bias_#", m);
        widths[m + 1] = bias->count;
        weights[m] = lg_find_numbered(binding, "weight_#", m)->data;
        biases[m] = bias->data;
    }
    model->linear_count = count;
    model->widths = widths;
    model->weights = weights;
    model->biases = biases;
    return 1;
}

static lg_status check(lg_binding const *const binding, lg_array const *const layers,
                       lg_array const *const neurons)
{
    size_t const before = binding->faults->count;
    check_layers(binding, layers);
    check_offsets(binding, layers->count);
    check_neurons(binding, neurons);
    check_chain(binding, lg_numbered(binding, "weight_#"));
    return binding->faults->count == before ? LG_OK : LG_ERR_PARAMETERS;
}

static lg_status bind(lg_binding *const binding, lg_bound *const bound)
{
    lg_array const *const layers = lg_find(binding, "layers");
    lg_array const *const neurons = lg_find(binding, "neurons");
    lg_status const status = check(binding, layers, neurons);
    if (status != LG_OK)
        return status;
    lg_siren *const model = lg_allocate(binding->memory, 1, sizeof *model);
    if (!model)
        return lg_no_memory(binding);
    *model = (lg_siren){
        .states_needed = needed(layers),
        .width_needed = needed(neurons),
        .chosen_count = layers->count,
        .layers = layers->data,
        .neuron_offsets = lg_find(binding, "neuron_offsets")->data,
        .neurons = neurons->data,
        .alpha = lg_find(binding, "alpha")->data,
    };
    if (!bind_network(binding, model))
        return lg_no_memory(binding);
    if (lg_siren_check(model) != LG_OK)
        return lg_unfit(binding, "weight_0", "and the following ones exceed the address space");
    *bound
        = (lg_bound){.model = model, .states = model->states_needed, .width = model->width_needed};
    return LG_OK;
}

/* Bytes of the network's values, the first part of the scratch memory: a multiple of 8. */
static size_t network_bytes(lg_siren const *const model, size_t const rows)
{
    return (lg_siren_workspace(model, rows) * sizeof(float) + 7) / 8 * 8;
}

/* The network's values; then, to explain: double (K), float (lg_shares_workspace). */
static size_t scratch(lg_bound const *const bound, size_t const rows, int const explained)
{
    lg_siren const *const model = bound->model;
    size_t const shares = model->chosen_count * sizeof(double);
    return network_bytes(model, rows)
           + (explained ? shares + lg_shares_workspace(model) * sizeof(float) : 0);
}

static void score(lg_bound const *const bound, lg_input const *const input, double *const scores)
{
    lg_siren const *const model = bound->model;
    lg_siren_call const call = {.model = model,
                                .states = input->rows,
                                .scores = scores,
                                .workspace = input->scratch,
                                .workspace_count = lg_siren_workspace(model, input->rows.rows)};
    input->kernels->siren(&call);
}

/* For a flagged text, the layers with the largest contributions to the logit difference, harmful
 * minus safe: input times gradient. A ReLU network is piecewise linear, so the contributions are
 * exact locally. They cost more than the score itself. */
static size_t explain(lg_bound const *const bound, lg_input const *const input, size_t const row,
                      lg_reading const *const reading, lg_evidence *const evidence,
                      size_t const count)
{
    if (!reading->flagged || reading->status != LG_READ)
        return 0;
    lg_siren const *const model = bound->model;
    char *const behind = (char *)input->scratch + network_bytes(model, input->rows.rows);
    double *const shares = (double *)(void *)behind;
    lg_shares_call const call = {.model = model,
                                 .states = &input->rows,
                                 .row = row,
                                 .shares = shares,
                                 .workspace = (float *)(void *)(shares + model->chosen_count)};
    input->kernels->siren_shares(&call);
    size_t used = 0;
    for (size_t c = 0; c < model->chosen_count; c++) {
        lg_evidence const entry = {.value = shares[c], .layer = model->layers[c], .place = (int)c};
        used = lg_rank_evidence(evidence, used, count, entry);
    }
    return used;
}

#define LG_SIREN_KIND(own_name, own_view, own_pooling)                                             \
    {                                                                                              \
        .name = own_name,                                                                          \
        .view = own_view,                                                                          \
        .pooling = own_pooling,                                                                    \
        .parameters = parameters,                                                                  \
        .parameter_count = sizeof parameters / sizeof *parameters,                                 \
        .bind = bind,                                                                              \
        .scratch = scratch,                                                                        \
        .score = score,                                                                            \
        .explain = explain,                                                                        \
        .explains_cheaply = 0,                                                                     \
    }

lg_kind const lg_kind_siren = LG_SIREN_KIND("siren", LG_CONTENT, LG_MEAN);

/* The same network under another name, so that a bundle can hold both. */
lg_kind const lg_kind_agent_siren = LG_SIREN_KIND("agent_siren", LG_TRAJECTORY, LG_LAST);
