/* Versioned structs: copies between the caller's version of a struct and the library's. */
#ifndef LG_STRUCTS_H
#define LG_STRUCTS_H

#include <string.h> /* memcpy */

#include "layerguard.h"

/* No struct of any version is larger. */
enum { LG_LARGEST_STRUCT = 4096 };

/* Copies the caller's struct into ours of `size` bytes. Both start with their size. Fields that ours
 * lacks must be zero. No struct has been extended yet, so a smaller one is an error. */
static inline lg_status lg_copy_in(void *const ours, size_t const size, void const *const theirs)
{
    size_t stated;
    if (!theirs)
        return LG_ERR_NULL;
    memcpy(&stated, theirs, sizeof stated);
    if (stated < size || stated > LG_LARGEST_STRUCT)
        return LG_ERR_STRUCT_SIZE;
    for (size_t i = size; i < stated; i++)
        if (((unsigned char const *)theirs)[i])
            return LG_ERR_STRUCT_SIZE;
    memcpy(ours, theirs, size);
    return LG_OK;
}

/* Copies our struct into the caller's, whose struct_size stays unchanged. */
static inline lg_status lg_copy_out(void *const theirs, void const *const ours, size_t const size)
{
    size_t stated;
    if (!theirs)
        return LG_ERR_NULL;
    memcpy(&stated, theirs, sizeof stated);
    if (stated < size || stated > LG_LARGEST_STRUCT)
        return LG_ERR_STRUCT_SIZE;
    memcpy((char *)theirs + sizeof stated, (char const *)ours + sizeof stated,
           size - sizeof stated);
    return LG_OK;
}

/* Whether this is the size of a reading of a known version. */
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
