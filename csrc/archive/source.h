/* The bytes of an archive, in memory or in a file. */
#ifndef LG_SOURCE_H
#define LG_SOURCE_H

#include "faults.h"

typedef struct lg_source {
    unsigned char const *bytes; /* (size), or null: read from `file` */
    int file;
    size_t size;
} lg_source;

/* Opens a regular file. Pipes and devices are refused: reading them might not end. */
lg_status lg_source_open(lg_source *source, char const *path, lg_faults *faults);

void lg_source_close(lg_source const *source);

/* Copies `count` bytes from `offset` on; false if they could not all be read. */
int lg_source_read(lg_source const *source, size_t offset, void *out, size_t count);

#endif
