/* Memory that lives as long as a guard; see the header. */
#include <stdint.h> /* PTRDIFF_MAX, uintptr_t */
#include <stdlib.h> /* calloc, free */

#include "memory.h"

/* Memory is aligned to a cache line, so that no load of a wide register touches two lines. */
enum { LINE = 64 };

/* A linked list of allocations; the memory of each follows its link. */
typedef struct lg_allocation {
    struct lg_allocation *next;
} lg_allocation;

void *lg_allocate(lg_memory *const memory, size_t const count, size_t const size)
{
    if (size && count > ((size_t)PTRDIFF_MAX - sizeof(lg_allocation) - LINE) / size)
        return NULL;
    lg_allocation *const link = calloc(1, sizeof *link + LINE + count * size);
    if (!link)
        return NULL;
    link->next = memory->first;
    memory->first = link;
    size_t const offset = (uintptr_t)(link + 1) % LINE;
    return (char *)(link + 1) + (LINE - offset) % LINE;
}

void lg_free_all(lg_memory *const memory)
{
    while (memory->first) {
        lg_allocation *const link = memory->first;
        memory->first = link->next;
        free(link);
    }
}
