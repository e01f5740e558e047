/* Validates states; every kernel call checks them first. */
#include "checks.h"

/* Whether count - 1 strides exceed `room` bytes; subtracts them from it if not. */
static int exceeds(size_t const count, ptrdiff_t const stride, size_t *const room)
{
    size_t const bytes = stride < 0 ? (size_t)0 - (size_t)stride : (size_t)stride;
    if (count < 2 || bytes == 0)
        return 0;
    if (count - 1 > *room / bytes)
        return 1;
    *room -= (count - 1) * bytes;
    return 0;
}

lg_status lg_check_states(lg_states const *const states)
{
    size_t const size = lg_element_size(states->dtype);
    if (!states->layers && !states->base && states->rows)
        return LG_ERR_NULL;
    if (!size)
        return LG_ERR_DTYPE;
    if (!states->layer_count || !states->width)
        return LG_ERR_SHAPE;
    size_t room = PTRDIFF_MAX;
    if (states->width > room / size)
        return LG_ERR_OVERFLOW;
    room -= states->width * size;
    if (exceeds(states->rows, states->row_stride, &room)
        || (!states->layers && exceeds(states->layer_count, states->layer_stride, &room)))
        return LG_ERR_OVERFLOW;
    if (states->rows > 1 && states->row_stride % (ptrdiff_t)size != 0)
        return LG_ERR_ALIGNMENT;
    if (!states->rows)
        return LG_OK; /* nothing is read */
    if (!states->layers)
        return lg_misaligned(states->base, size) || states->layer_stride % (ptrdiff_t)size != 0
                   ? LG_ERR_ALIGNMENT
                   : LG_OK;
    for (size_t l = 0; l < states->layer_count; l++) {
        if (!states->layers[l])
            return LG_ERR_NULL;
        if (lg_misaligned(states->layers[l], size))
            return LG_ERR_ALIGNMENT;
    }
    return LG_OK;
}
