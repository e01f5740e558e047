/* Binds the arrays serving/..., which replace the manifest: the view of a text that each detector was
 * calibrated on, its pooling, and the model's size. They have one entry per detector, ordered by
 * name. Archives of older releases, and archives that hold only the parameters of a detector, lack
 * them; each detector then uses the view and the pooling of its kind. */
#include <stdint.h> /* uint8_t */

#include "frozen.h"

static lg_parameter const parameters[] = {
    {"views", LG_TYPE_U8, "C", 0},
    {"poolings", LG_TYPE_U8, "C", 0},
    {"final_norm", LG_TYPE_BOOL, "C", 0},
    {"model", LG_TYPE_I32, "2", 0},
};

/* Whether a kind can read the result of a pooling. */
static int can_read(lg_kind const *const kind, int const pooling)
{
    int const any = kind->pooling <= LG_MLP_MEAN && pooling <= LG_MLP_MEAN; /* states, pooled */
    return any || pooling == kind->pooling;
}

void lg_serving_model(lg_archive const *const archive, size_t *const layers, size_t *const width)
{
    lg_faults nowhere = {.count = 0};
    lg_binding const binding = lg_binding_of(archive, "serving", NULL, &nowhere);
    lg_array const *const model = lg_find(&binding, "model");
    if (!model || model->npy.type != LG_TYPE_I32 || model->count != 2)
        return;
    int const *const sizes = model->data;
    *layers = sizes[0] > 0 ? (size_t)sizes[0] : *layers;
    *width = sizes[1] > 0 ? (size_t)sizes[1] : *width;
}

static lg_status bind_model(lg_guard *const guard, lg_binding const *const binding,
                            int const model[2])
{
    if (model[0] < 1 || model[1] < 1)
        return lg_unfit(binding, "model", "is [%d, %d]; expected layers and width, both at least 1",
                        model[0], model[1]);
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_bound const *const bound = &guard->detectors[d].bound;
        if (bound->states > (size_t)model[0] + 1 || bound->width > (size_t)model[1]
            || (bound->states_known && bound->states != (size_t)model[0] + 1)
            || (bound->width_known && bound->width != (size_t)model[1]))
            return lg_unfit(binding, "model", "has another size than the detectors");
    }
    guard->all = (lg_extent){(size_t)model[0] + 1, (size_t)model[1]};
    guard->states_known = guard->width_known = 1;
    return LG_OK;
}

lg_status lg_serving_bind(lg_guard *const guard, lg_faults *const faults)
{
    lg_binding binding = lg_binding_of(&guard->archive, "serving", &guard->memory, faults);
    size_t const count = sizeof parameters / sizeof *parameters;
    if (!lg_has_group(&guard->archive, binding.group))
        return LG_OK;
    lg_set_length(&binding, 'C', guard->detector_count);
    lg_status const status = lg_check_parameters(&binding, parameters, count);
    if (status != LG_OK)
        return status;
    uint8_t const *const views = lg_find(&binding, "views")->data;
    uint8_t const *const poolings = lg_find(&binding, "poolings")->data;
    uint8_t const *const final_norm = lg_find(&binding, "final_norm")->data;
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_detector *const detector = &guard->detectors[d];
        if (views[d] > LG_TRAJECTORY || !can_read(detector->kind, poolings[d]))
            return lg_unfit(&binding, "poolings",
                            "or views has an entry that the detector cannot read");
        detector->view = views[d];
        detector->pooling = poolings[d];
        detector->final_norm = final_norm[d] != 0;
    }
    return bind_model(guard, &binding, lg_find(&binding, "model")->data);
}
