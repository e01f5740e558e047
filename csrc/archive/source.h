/* The bytes of an archive, wherever they lie. */
#ifndef LG_SOURCE_H
#define LG_SOURCE_H

#include "fault.h"

typedef struct lg_source {
    unsigned char const *bytes; /* (size), or null: they are read from the file */
    int file;
    size_t size;
} lg_source;

/* Opens a plain file: a pipe or a device would never end. */
lg_status lg_source_open(lg_source *source, char const *path, lg_fault const *fault);

void lg_source_close(lg_source const *source);

/* Copies `count` bytes from `offset` on; whether all of them are there. */
int lg_source_read(lg_source const *source, size_t offset, void *out, size_t count);

#endif
