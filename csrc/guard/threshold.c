/* Computes a reading from a score.
 *
 * A text is flagged unless its score is finite and at most the threshold. The p-value is the
 * conformal one, (1 + #{clean >= score}) / (n + 1) (Vovk et al., "Algorithmic Learning in a Random
 * World", section 2.2), and 1 / (n + 1), the smallest possible, for a score that is not finite.
 */
#include <math.h> /* isfinite */

#include "threshold.h"

lg_parameter const lg_calibrated[LG_CALIBRATED] = {
    {"threshold", LG_TYPE_F64, "", 0},
    {"clean_scores", LG_TYPE_F64, "*", LG_ASCENDING},
    {"target_fpr", LG_TYPE_F64, "", 0},
    {"fpr_interval", LG_TYPE_F64, "2", 0},
};

lg_threshold lg_threshold_of(lg_binding const *const binding)
{
    lg_array const *const clean = lg_find(binding, "clean_scores");
    return (lg_threshold){*(double const *)lg_find(binding, "threshold")->data, clean->data,
                          clean->count};
}

/* Number of clean scores below the score. */
static size_t below(lg_threshold const *const threshold, double const score)
{
    size_t low = 0, high = threshold->clean_count;
    while (low < high) {
        size_t const middle = low + (high - low) / 2;
        if (threshold->clean_scores[middle] < score)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void lg_threshold_apply(lg_threshold const *const threshold, lg_reading *const reading)
{
    int const valid = isfinite(reading->score) != 0;
    size_t const n = threshold->clean_count,
                 at_least = valid ? n - below(threshold, reading->score) : 0;
    reading->status = valid ? LG_READ : LG_INVALID;
    reading->threshold = threshold->value;
    reading->flagged = !(valid && reading->score <= threshold->value);
    reading->p_value = (double)(1 + at_least) / (double)(n + 1);
}
