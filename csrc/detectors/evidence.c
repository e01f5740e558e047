/* Ranks entries of evidence by size. */
#include <math.h> /* fabs, INFINITY */

#include "kind.h"

static double size_of(lg_evidence const entry)
{
    return entry.value == entry.value ? fabs(entry.value) : (double)INFINITY;
}

size_t lg_rank_evidence(lg_evidence *const evidence, size_t const used, size_t const count,
                        lg_evidence const entry)
{
    size_t place = used;
    while (place && size_of(evidence[place - 1]) < size_of(entry))
        place--;
    if (place == count)
        return used;
    size_t const last = used < count ? used : count - 1;
    for (size_t i = last; i > place; i--)
        evidence[i] = evidence[i - 1];
    evidence[place] = entry;
    return last + 1;
}
