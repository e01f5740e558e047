/* Memory that lives as long as a guard; see the header. */
#include <stdint.h> /* PTRDIFF_MAX */
#include <stdlib.h> /* calloc, free */

#include "memory.h"

/* The list of what was taken; what is given out lies behind each link. */
typedef struct lg_kept {
    struct lg_kept *next;
    max_align_t memory[];
} lg_kept;

void *lg_keep(lg_memory *const memory, size_t const count, size_t const size)
{
    if (size && count > ((size_t)PTRDIFF_MAX - sizeof(lg_kept)) / size)
        return NULL;
    lg_kept *const kept = calloc(1, sizeof *kept + count * size);
    if (!kept)
        return NULL;
    kept->next = memory->first;
    memory->first = kept;
    return kept->memory;
}

void lg_release(lg_memory *const memory)
{
    while (memory->first) {
        lg_kept *const kept = memory->first;
        memory->first = kept->next;
        free(kept);
    }
}
