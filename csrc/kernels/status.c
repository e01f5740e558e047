/* The message of every status: what was found and what to do. */
#include "layerguard.h"

char const *lg_strerror(int const status)
{
    switch (status) {
    case LG_OK:
        return "done";
    case LG_ERR_NULL:
        return "a required pointer is null: set every field that layerguard_api.h requires";
    case LG_ERR_SHAPE:
        return "a size is zero, or states and parameters differ in layers or width: give the "
               "states of the model that the parameters were calibrated on";
    case LG_ERR_DTYPE:
        return "the dtype of the states is unknown: use LG_F32, LG_F16 or LG_BF16";
    case LG_ERR_ALIGNMENT:
        return "a row of the states is not aligned to its element size, or a workspace, readings "
               "or "
               "a stream's memory is not aligned to 8: allocate aligned memory, or copy the states";
    case LG_ERR_OVERFLOW:
        return "sizes times strides exceed the address space: check rows, width and strides";
    case LG_ERR_INDEX:
        return "a layer, offset, neuron or role is out of range: fit or import the parameters "
               "again; roles are 0 to 3";
    case LG_ERR_EMPTY:
        return "there is no unmasked token: give at least one";
    case LG_ERR_WORKSPACE:
        return "the memory is too small: get the size of a kernel's workspace from "
               "lg_siren_workspace, that of a guard's or a stream's from lg_guard_describe";
    case LG_ERR_LEVEL_UNKNOWN:
        return "no level has this name: unset LAYERGUARD_LEVEL, or use a name that "
               "layerguard_api.h lists";
    case LG_ERR_LEVEL_UNSUPPORTED:
        return "this processor cannot run the level: unset LAYERGUARD_LEVEL, or name a lower one";
    case LG_ERR_FILE:
        return "the file cannot be opened or read: give the detectors.npz of a bundle";
    case LG_ERR_ARCHIVE:
        return "the file is not a valid zip archive of members <detector>/<name>.npy: copy the "
               "bundle again";
    case LG_ERR_LIMIT:
        return "the archive has too many members, or needs more memory than max_bytes: raise "
               "max_bytes, up to 2 GiB, if you trust the archive";
    case LG_ERR_ARRAY:
        return "a member of the archive is not a plain little-endian array in C order: calibrate "
               "again";
    case LG_ERR_PARAMETERS:
        return "frozen arrays are missing, unknown, not finite or contradict each other: calibrate "
               "again";
    case LG_ERR_MEMORY:
        return "memory ran out: free memory, or lower max_bytes";
    case LG_ERR_STRUCT_SIZE:
        return "this library does not know a struct_size or reading_size: set it to sizeof the "
               "struct, and set every unused field to zero";
    case LG_ERR_POOLING:
        return "a detector needs other states: set final_norm to whether the last state is after "
               "the final norm, or leave the detector out with `chosen`";
    case LG_ERR_DECISION:
        return "a deciding detector was not read, or the archive has no policy: read all deciding "
               "detectors, or calibrate again with this release";
    case LG_ERR_BOUND:
        return "the streams belong to different guards: copy between streams of one guard";
    default:
        return "unknown status: header and library have different versions, use those of one "
               "release";
    }
}
