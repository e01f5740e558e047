/* The arrays of a detectors.npz in memory, by their names. */
#ifndef LG_ARCHIVE_H
#define LG_ARCHIVE_H

#include "memory.h"
#include "npy.h"
#include "zip.h"

typedef struct lg_array {
    char name[LG_MEMBER_NAME]; /* <detector>/<name> */
    lg_npy npy;
    size_t count; /* elements */
    void *data;
    int used; /* somebody asked for it */
} lg_array;

typedef struct lg_archive {
    lg_array *arrays;
    size_t count;
} lg_archive;

/* Reads every array; they live in `memory`. */
lg_status lg_archive_read(lg_archive *archive, lg_source const *source, size_t max_bytes,
                          lg_memory *memory, lg_fault const *fault);

#endif
