/* The arrays of a detectors.npz in memory, by name. */
#ifndef LG_ARCHIVE_H
#define LG_ARCHIVE_H

#include "memory.h"
#include "npy.h"
#include "zip.h"

typedef struct lg_array {
    char name[LG_MEMBER_NAME]; /* <detector>/<name> */
    lg_npy npy;
    char const *dtype; /* numpy's name of it */
    size_t count;      /* elements */
    void *data;
    int used; /* lg_find returned it */
} lg_array;

typedef struct lg_archive {
    lg_array *arrays;
    size_t count;
} lg_archive;

/* Reads all arrays into `memory`. */
lg_status lg_archive_read(lg_archive *archive, lg_source const *source, size_t max_bytes,
                          lg_memory *memory, lg_faults *faults);

/* Copies arrays into `memory`. If no archive can hold the dtype or rank of an array, its data stays
 * null. */
lg_status lg_archive_copy(lg_archive *archive, lg_named_array const *arrays, size_t count,
                          lg_memory *memory, lg_faults *faults);

#endif
