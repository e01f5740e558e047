/* Memory that lives as long as a guard: taken while it is opened, freed all at once. */
#ifndef LG_MEMORY_H
#define LG_MEMORY_H

#include <stddef.h> /* size_t */

typedef struct lg_memory {
    struct lg_kept *first;
} lg_memory;

/* Room for `count` elements of `size` bytes, zeroed and at the start of a cache line; null where there is
 * none. Also where no element is asked for it is an address. */
void *lg_keep(lg_memory *memory, size_t count, size_t size);

void lg_release(lg_memory *memory);

#endif
