/* Checks shared by the public calls, and the setup of a call whose arguments are valid. */
#ifndef LG_CHECKS_H
#define LG_CHECKS_H

#include <stdint.h> /* uintptr_t, PTRDIFF_MAX */

#include "fpenv.h"
#include "internal.h"

/* Validates states: pointers, dtype, sizes, alignment, address space. */
lg_status lg_check_states(lg_states const *states);

/* Whether a pointer is misaligned; `size` must be a power of two. */
static inline int lg_misaligned(void const *const address, size_t const size)
{
    return ((uintptr_t)address & (size - 1)) != 0;
}

/* Whether rows * columns elements of `size` bytes exceed the address space. */
static inline int lg_too_large(size_t const rows, size_t const columns, size_t const size)
{
    return columns && rows > (size_t)PTRDIFF_MAX / size / columns;
}

/* The kernels in use, and the caller's floating-point environment, saved until lg_leave. */
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
