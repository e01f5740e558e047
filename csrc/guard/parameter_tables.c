/* The names of the detectors and the tables of their parameters. */
#include <string.h> /* strcmp */

#include "kind.h"
#include "structs.h"
#include "threshold.h"

char const *lg_detector_name(size_t const index)
{
    return index < lg_kind_count ? lg_kinds[index]->name : NULL;
}

lg_status lg_parameter_describe(char const *const detector, size_t const index,
                                lg_parameter_info *const info)
{
    if (!detector)
        return LG_ERR_NULL;
    for (size_t k = 0; k < lg_kind_count; k++) {
        lg_kind const *const kind = lg_kinds[k];
        if (strcmp(kind->name, detector) != 0)
            continue;
        if (index >= kind->parameter_count + LG_CALIBRATED)
            return LG_ERR_INDEX;
        lg_parameter const *const parameter = index < kind->parameter_count
                                                  ? &kind->parameters[index]
                                                  : &lg_calibrated[index - kind->parameter_count];
        lg_parameter_info const fields = {
            .name = parameter->name,
            .dtype = lg_type_name(parameter->type),
            .other_dtype = parameter->constraints & LG_OR_HALF ? lg_type_name(LG_TYPE_F16) : NULL,
            .sides = parameter->sides,
            .positive = (parameter->constraints & LG_POSITIVE) != 0,
            .ascending = (parameter->constraints & LG_ASCENDING) != 0,
        };
        return lg_copy_out(info, &fields, sizeof fields);
    }
    return LG_ERR_INDEX;
}
