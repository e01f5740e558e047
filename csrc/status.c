/* The words of every status: what was found, and what to do. */
#include "layerguard.h"

char const *lg_strerror(int const status)
{
    switch (status) {
    case LG_OK:
        return "done";
    case LG_ERR_NULL:
        return "a pointer that the call needs is null: fill every field that the header names";
    case LG_ERR_SHAPE:
        return "a size is zero, or states and parameters differ in layers or width: give the "
               "states of the model that the parameters were calibrated on";
    case LG_ERR_DTYPE:
        return "the dtype of the states is unknown: use LG_F32, LG_F16 or LG_BF16";
    case LG_ERR_ALIGNMENT:
        return "a row of the states does not start at a multiple of its element's size: copy the "
               "states to aligned memory";
    case LG_ERR_OVERFLOW:
        return "sizes times strides exceed the address space: check rows, width and strides";
    case LG_ERR_INDEX:
        return "a layer, offset, neuron or role is out of range: fit or import the parameters "
               "again; roles are 0 to 3";
    case LG_ERR_EMPTY:
        return "the mask keeps no token: give at least one token that counts";
    case LG_ERR_WORKSPACE:
        return "the workspace is too small: size it with lg_siren_workspace";
    case LG_ERR_LEVEL_UNKNOWN:
        return "no level has this name: unset LAYERGUARD_LEVEL, or use one that the header names";
    case LG_ERR_LEVEL_UNSUPPORTED:
        return "this processor cannot run the level: unset LAYERGUARD_LEVEL, or name a lower one";
    default:
        return "unknown status: header and library are of different versions";
    }
}
