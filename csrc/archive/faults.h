/* The faults of an archive: one sentence each, written to the caller's memory. */
#ifndef LG_FAULTS_H
#define LG_FAULTS_H

#include "layerguard.h"

typedef struct lg_faults {
    char *message; /* (message_size) the first fault, or null */
    size_t message_size;
    char *list; /* (list_size) all faults, one per line, as many as fit; or null */
    size_t list_size;
    size_t count;     /* faults found */
    size_t needed;    /* bytes of the whole list, with the final zero */
    lg_status status; /* of the first fault; LG_OK if there is none */
} lg_faults;

/* Adds a fault to the list, and returns its status. */
__attribute__((format(printf, 3, 4))) lg_status lg_refuse(lg_faults *faults, lg_status status,
                                                          char const *format, ...);

#endif
