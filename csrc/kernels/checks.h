/* Checks that the public calls share, and how a call whose arguments are sound gets its kernels. */
#ifndef LG_CHECKS_H
#define LG_CHECKS_H

#include <stdint.h> /* uintptr_t, PTRDIFF_MAX */

#include "fpenv.h"
#include "internal.h"

/* Whether the states can be read: pointers, dtype, sizes, alignment, room in the address space. */
lg_status lg_check_states(lg_states const *states);

/* Of sizes that are powers of two, as those of all elements are: without a division. */
static inline int lg_misaligned(void const *const address, size_t const size)
{
    return ((uintptr_t)address & (size - 1)) != 0;
}

/* Whether rows * columns elements of `size` bytes cannot lie in memory. */
static inline int lg_too_large(size_t const rows, size_t const columns, size_t const size)
{
    return columns && rows > (size_t)PTRDIFF_MAX / size / columns;
}

/* The kernels in use, and the caller's floating-point environment, put aside until lg_leave. */
typedef struct lg_run {
    lg_kernels const *kernels;
    lg_fpenv saved;
} lg_run;

static inline lg_status lg_enter(lg_run *const run)
{
    lg_status status;
    run->kernels = lg_kernels_in_use(&status);
    if (status == LG_OK)
        run->saved = lg_fpenv_enter();
    return status;
}

static inline void lg_leave(lg_run const *const run)
{
    lg_fpenv_leave(run->saved);
}

#endif
