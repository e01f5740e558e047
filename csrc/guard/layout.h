/* Size and layout of the memory of a call and of a stream. */
#ifndef LG_LAYOUT_H
#define LG_LAYOUT_H

#include "guard.h"

/* Sets the extents and the layouts of a workspace and a stream. */
lg_status lg_lay_out(lg_guard *guard, lg_faults *faults);

/* Alignment of workspaces and streams; no type in them needs a larger one. */
enum { LG_ALIGNMENT = 8 };

_Static_assert(_Alignof(double) <= LG_ALIGNMENT && _Alignof(void *) <= LG_ALIGNMENT
                   && _Alignof(size_t) <= LG_ALIGNMENT,
               "parts of a workspace start at multiples of LG_ALIGNMENT");

/* The next aligned offset at or after `place`. */
static inline size_t lg_aligned(size_t const place)
{
    return (place + LG_ALIGNMENT - 1) / LG_ALIGNMENT * LG_ALIGNMENT;
}

#endif
