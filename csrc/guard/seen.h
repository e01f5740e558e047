/* From pooled states to readings: what scoring a text and reading a stream share. */
#ifndef LG_SEEN_H
#define LG_SEEN_H

#include "guard.h"

/* What a text was pooled to, and memory to score it in. */
typedef struct lg_pooled {
    lg_kernels const *kernels;
    lg_states last;
    lg_states mean;
    float const *extremes;
    char *workspace; /* laid out as the guard says */
} lg_pooled;

/* Whether states and roles are of a text that the guard can read. */
lg_status lg_check_text(lg_guard const *guard, lg_states const *states, unsigned char const *roles);

static inline int lg_is_chosen(unsigned char const *const chosen, size_t const index)
{
    return !chosen || chosen[index];
}

/* Whether one of the chosen detectors pools so. */
int lg_pools(lg_guard const *guard, unsigned char const *chosen, int pooling);

/* Whether all chosen detectors read such states. */
lg_status lg_check_chosen(lg_guard const *guard, unsigned char const *chosen, int final_norm);

/* Whether there is room for readings; if so, the chosen ones are unread until they are written. */
lg_status lg_check_readings(lg_guard const *guard, unsigned char const *chosen,
                            lg_reading *readings, size_t reading_size);

/* Extremes before the first token. */
void lg_clear_extremes(float *extremes, size_t count);

/* Widens the extremes by tokens that count. */
void lg_add_extremes(lg_guard const *guard, lg_kernels const *kernels, lg_extremes_call call,
                     char *workspace);

/* Writes the readings of the chosen detectors. */
void lg_read_all(lg_guard const *guard, lg_pooled const *pooled, unsigned char const *chosen,
                 lg_reading *readings, size_t reading_size);

#endif
