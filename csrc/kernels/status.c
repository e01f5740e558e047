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
        return "a row of the states does not start at a multiple of its element's size, or a "
               "workspace, readings or a stream's memory not at a multiple of 8: copy or allocate "
               "what is not aligned";
    case LG_ERR_OVERFLOW:
        return "sizes times strides exceed the address space: check rows, width and strides";
    case LG_ERR_INDEX:
        return "a layer, offset, neuron or role is out of range: fit or import the parameters "
               "again; roles are 0 to 3";
    case LG_ERR_EMPTY:
        return "the mask keeps no token: give at least one token that counts";
    case LG_ERR_WORKSPACE:
        return "the memory given is too small: a kernel's workspace is sized with "
               "lg_siren_workspace, a guard's and a stream's with lg_guard_describe";
    case LG_ERR_LEVEL_UNKNOWN:
        return "no level has this name: unset LAYERGUARD_LEVEL, or use one that the header names";
    case LG_ERR_LEVEL_UNSUPPORTED:
        return "this processor cannot run the level: unset LAYERGUARD_LEVEL, or name a lower one";
    case LG_ERR_FILE:
        return "the file cannot be opened or read: give the detectors.npz of a bundle";
    case LG_ERR_ARCHIVE:
        return "the file is no sound zip archive of members <detector>/<name>.npy: copy the bundle "
               "again";
    case LG_ERR_LIMIT:
        return "the archive has too many members, unpacks to more than the limit, or needs more to "
               "serve: raise max_bytes, up to 2 GiB, if you trust it";
    case LG_ERR_ARRAY:
        return "a member of the archive is no plain little-endian array in C order: calibrate "
               "again";
    case LG_ERR_PARAMETERS:
        return "frozen arrays are missing, unknown, not finite or contradict each other: calibrate "
               "again";
    case LG_ERR_MEMORY:
        return "memory ran out: free some, or lower max_bytes";
    case LG_ERR_STRUCT_SIZE:
        return "a struct_size or reading_size is not one that this library knows: set it to sizeof "
               "of the struct, and every field that you do not use to zero";
    case LG_ERR_POOLING:
        return "a detector reads what these states do not hold: say with final_norm whether the "
               "last "
               "one is after the final norm, or leave the detector out with `chosen`";
    case LG_ERR_DECISION:
        return "a deciding detector was not read, or the archive does not say who decides: read "
               "all that decide; calibrate again with this release";
    case LG_ERR_BOUND:
        return "the streams are of different guards: copy between streams of one";
    default:
        return "unknown status: header and library are of different versions";
    }
}
