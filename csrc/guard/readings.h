/* Computes readings from pooled states, for lg_score and lg_stream_read. */
#ifndef LG_READINGS_H
#define LG_READINGS_H

#include "layout.h"

/* The pooled states of a text, and memory to score them. */
typedef struct lg_pooled {
    lg_kernels const *kernels;
    lg_states last;
    lg_states mean;
    float const *gathered; /* extremes and windows, of all detectors that read them */
    char *workspace;       /* with the guard's layout */
} lg_pooled;

/* Checks that the guard can read these states and roles. */
lg_status lg_check_text(lg_guard const *guard, lg_states const *states, unsigned char const *roles);

static inline int lg_is_chosen(unsigned char const *const chosen, size_t const index)
{
    return !chosen || chosen[index];
}

/* Whether a chosen detector uses this pooling. */
int lg_pools(lg_guard const *guard, unsigned char const *chosen, int pooling);

/* Checks that all chosen detectors can read states with this `final_norm`. */
lg_status lg_check_chosen(lg_guard const *guard, unsigned char const *chosen, int final_norm);

/* Checks the memory of the readings, and sets the chosen ones to LG_UNREAD. */
lg_status lg_check_readings(lg_guard const *guard, unsigned char const *chosen,
                            lg_reading *readings, size_t reading_size);

/* Tokens of one text, which a detector of extremes or windows reads one by one. */
typedef struct lg_tokens {
    lg_states states;
    unsigned char const *mask;  /* (rows) or null */
    unsigned char const *roles; /* (rows) or null */
} lg_tokens;

/* Sets extremes and windows to their values before the first token. */
void lg_clear_gathered(lg_guard const *guard, float *gathered);

/* Updates the extremes and windows of the chosen detectors with the unmasked tokens. */
void lg_gather(lg_guard const *guard, lg_kernels const *kernels, unsigned char const *chosen,
               lg_tokens const *tokens, float *gathered, char *workspace);

/* Writes the readings of the chosen detectors. */
void lg_read_all(lg_guard const *guard, lg_pooled const *pooled, unsigned char const *chosen,
                 lg_reading *readings, size_t reading_size);

#endif
