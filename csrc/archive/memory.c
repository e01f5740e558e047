/* Memory that lives as long as a guard; see the header. */
#include <stdint.h> /* PTRDIFF_MAX, uintptr_t */
#include <stdlib.h> /* calloc, free */

#include "memory.h"

/* Where memory starts: at a cache line, so that no load of a wide register touches two. */
enum { LINE = 64 };

/* The list of what was taken; what is given out lies behind each link. */
typedef struct lg_kept {
    struct lg_kept *next;
} lg_kept;

void *lg_keep(lg_memory *const memory, size_t const count, size_t const size)
{
    if (size && count > ((size_t)PTRDIFF_MAX - sizeof(lg_kept) - LINE) / size)
        return NULL;
    lg_kept *const kept = calloc(1, sizeof *kept + LINE + count * size);
    if (!kept)
        return NULL;
    kept->next = memory->first;
    memory->first = kept;
    size_t const behind = (uintptr_t)(kept + 1) % LINE;
    return (char *)(kept + 1) + (LINE - behind) % LINE;
}

void lg_release(lg_memory *const memory)
{
    while (memory->first) {
        lg_kept *const kept = memory->first;
        memory->first = kept->next;
        free(kept);
    }
}
