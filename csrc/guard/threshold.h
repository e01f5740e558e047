/* Computes a reading from a score: threshold, conformal p-value, and failing closed. */
#ifndef LG_THRESHOLD_H
#define LG_THRESHOLD_H

#include "parameters.h"

/* A detector's threshold, and the clean scores for its p-values. */
typedef struct lg_threshold {
    double value;
    double const *clean_scores; /* (clean_count) ascending */
    size_t clean_count;
} lg_threshold;

/* The arrays that every detector has in addition to its own parameters. */
enum { LG_CALIBRATED = 4 };
extern lg_parameter const lg_calibrated[LG_CALIBRATED];

/* The threshold of a detector whose arrays were checked. */
lg_threshold lg_threshold_of(lg_binding const *binding);

/* Sets all fields of a reading that follow from its score and this threshold. */
void lg_threshold_apply(lg_threshold const *threshold, lg_reading *reading);

#endif
