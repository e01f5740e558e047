/* What is wrong with an archive, said in a sentence in the caller's memory. */
#ifndef LG_FAULT_H
#define LG_FAULT_H

#include "layerguard.h"

typedef struct lg_fault {
    char *message; /* (size) or null */
    size_t size;
} lg_fault;

/* Writes the sentence, and gives the status on. */
__attribute__((format(printf, 3, 4))) lg_status lg_refuse(lg_fault const *fault, lg_status status,
                                                          char const *format, ...);

#endif
