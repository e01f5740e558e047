/* From a score to a reading: threshold, conformal p-value, and failing closed. */
#ifndef LG_LIMIT_H
#define LG_LIMIT_H

#include "parameters.h"

/* A detector's threshold, and the scores of clean texts that its p-values count. */
typedef struct lg_limit {
    double threshold;
    double const *clean_scores; /* (clean_count) ascending */
    size_t clean_count;
} lg_limit;

/* Takes the limit that every calibrated detector has among its arrays. */
lg_status lg_limit_bind(lg_binding const *binding, lg_limit *limit);

/* Sets what a reading says of its score at this limit. */
void lg_limit_apply(lg_limit const *limit, lg_reading *reading);

#endif
