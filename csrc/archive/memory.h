/* Memory that lives as long as a guard: allocated when it is opened, freed all at once. */
#ifndef LG_MEMORY_H
#define LG_MEMORY_H

#include <stddef.h> /* size_t */

typedef struct lg_memory {
    struct lg_allocation *first;
} lg_memory;

/* Allocates `count` elements of `size` bytes, zeroed and aligned to a cache line. Null if memory ran
 * out; never null for zero elements otherwise. */
void *lg_allocate(lg_memory *memory, size_t count, size_t size);

void lg_free_all(lg_memory *memory);

#endif
