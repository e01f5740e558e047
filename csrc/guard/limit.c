/* From a score to a reading.
 *
 * A text is flagged unless its score is finite and at most the threshold. The p-value is the
 * conformal one, (1 + #{clean >= score}) / (n + 1) (Vovk et al., "Algorithmic Learning in a Random
 * World", section 2.2), and 1 / (n + 1), the smallest possible, for a score that is not finite.
 */
#include <math.h> /* isfinite */

#include "limit.h"

lg_status lg_limit_bind(lg_binding const *const binding, lg_limit *const limit)
{
    static lg_expected const expected[] = {
        {.name = "threshold", .type = LG_TYPE_F64, .rank = 0},
        {.name = "clean_scores", .type = LG_TYPE_F64, .rank = 1, .sides = {LG_ANY_SIDE}},
        {.name = "target_fpr", .type = LG_TYPE_F64, .rank = 0},
        {.name = "fpr_interval", .type = LG_TYPE_F64, .rank = 1, .sides = {2}},
    };
    enum { COUNT = sizeof expected / sizeof *expected };
    lg_array const *found[COUNT];
    lg_status const status = lg_need_all(binding, COUNT, expected, found);
    if (status != LG_OK)
        return status;
    *limit = (lg_limit){*(double const *)found[0]->data, found[1]->data, found[1]->count};
    for (size_t i = 1; i < limit->clean_count; i++)
        if (limit->clean_scores[i] < limit->clean_scores[i - 1])
            return lg_unfit(binding, "clean_scores", "is not sorted; expected ascending scores");
    return LG_OK;
}

/* Clean scores that are below the score. */
static size_t below(lg_limit const *const limit, double const score)
{
    size_t low = 0, high = limit->clean_count;
    while (low < high) {
        size_t const middle = low + (high - low) / 2;
        if (limit->clean_scores[middle] < score)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void lg_limit_apply(lg_limit const *const limit, lg_reading *const reading)
{
    int const valid = isfinite(reading->score) != 0;
    size_t const n = limit->clean_count, at_least = valid ? n - below(limit, reading->score) : 0;
    reading->status = valid ? LG_READ : LG_INVALID;
    reading->threshold = limit->threshold;
    reading->flagged = !(valid && reading->score <= limit->threshold);
    reading->p_value = (double)(1 + at_least) / (double)(n + 1);
}
