/* Structs that grow: what a caller built with another version of the header gives and gets. */
#ifndef LG_SIZED_H
#define LG_SIZED_H

#include <string.h> /* memcpy */

#include "layerguard.h"

/* Larger ones are no struct of ours, in whatever version. */
enum { LG_LARGEST_STRUCT = 4096 };

/* Copies the caller's struct into ours of `size` bytes. Both start with their size. What we do not have
 * must be zero. No struct has grown yet: one that is smaller than ours is none of any release. */
static inline lg_status lg_take(void *const ours, size_t const size, void const *const theirs)
{
    size_t given;
    if (!theirs)
        return LG_ERR_NULL;
    memcpy(&given, theirs, sizeof given);
    if (given < size || given > LG_LARGEST_STRUCT)
        return LG_ERR_STRUCT_SIZE;
    for (size_t i = size; i < given; i++)
        if (((unsigned char const *)theirs)[i])
            return LG_ERR_STRUCT_SIZE;
    memcpy(ours, theirs, size);
    return LG_OK;
}

/* Copies our struct into the caller's, whose size stays as it is. */
static inline lg_status lg_give(void *const theirs, void const *const ours, size_t const size)
{
    size_t given;
    if (!theirs)
        return LG_ERR_NULL;
    memcpy(&given, theirs, sizeof given);
    if (given < size || given > LG_LARGEST_STRUCT)
        return LG_ERR_STRUCT_SIZE;
    memcpy((char *)theirs + sizeof given, (char const *)ours + sizeof given, size - sizeof given);
    return LG_OK;
}

/* Whether readings of this size are of a version that we know of. */
static inline int lg_reading_fits(size_t const size)
{
    return size >= sizeof(lg_reading) && size <= LG_LARGEST_STRUCT
           && size % _Alignof(lg_reading) == 0;
}

static inline lg_reading *lg_reading_at(lg_reading *const readings, size_t const size,
                                        size_t const index)
{
    return (lg_reading *)(void *)((char *)readings + index * size);
}

#endif
