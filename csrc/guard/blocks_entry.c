/* The public calls of thresholds and blocks: they check, then compute. */
#include <stdlib.h> /* calloc, free */

#include "blocks.h"
#include "checks.h"
#include "threshold.h"

struct lg_block_set {
    lg_memory memory;
    lg_blocks blocks;
};

lg_status lg_judge(double const threshold, double const *const clean_scores,
                   size_t const clean_count, lg_reading *const reading)
{
    if (!reading || (!clean_scores && clean_count))
        return LG_ERR_NULL;
    lg_threshold const own = {threshold, clean_scores, clean_count};
    lg_fpenv const saved = lg_fpenv_enter();
    lg_threshold_apply(&own, reading);
    lg_fpenv_leave(saved);
    return LG_OK;
}

lg_status lg_block_set_open(double const *const scores, size_t const texts, size_t const columns,
                            int const policy, lg_block_set **const set)
{
    if (!set)
        return LG_ERR_NULL;
    *set = NULL;
    if (!scores && texts)
        return LG_ERR_NULL;
    if (!columns || policy < LG_ANY || policy > LG_ALL)
        return LG_ERR_SHAPE;
    if (lg_too_large(texts, columns, 4 * sizeof(double)))
        return LG_ERR_OVERFLOW;
    lg_block_set *const made = calloc(1, sizeof *made);
    if (!made)
        return LG_ERR_MEMORY;
    if (!lg_blocks_cut(&made->blocks, scores, texts, columns, policy == LG_ALL, &made->memory)) {
        lg_block_set_close(made);
        return LG_ERR_MEMORY;
    }
    *set = made;
    return LG_OK;
}

lg_status lg_block_set_p_value(lg_block_set const *const set, double const *const scores,
                               double *const p_value)
{
    if (!set || !scores || !p_value)
        return LG_ERR_NULL;
    lg_fpenv const saved = lg_fpenv_enter();
    *p_value = lg_blocks_p_value(&set->blocks, scores);
    lg_fpenv_leave(saved);
    return LG_OK;
}

lg_status lg_block_set_cuts(lg_block_set const *const set, size_t const column,
                            double const **const keys, size_t const **const numbers,
                            size_t *const count)
{
    if (!set || !keys || !numbers || !count)
        return LG_ERR_NULL;
    if (column >= set->blocks.columns)
        return LG_ERR_INDEX;
    *keys = set->blocks.keys[column];
    *numbers = set->blocks.numbers[column];
    *count = set->blocks.lengths[column];
    return LG_OK;
}

void lg_block_set_close(lg_block_set *const set)
{
    if (!set)
        return;
    lg_free_all(&set->memory);
    free(set);
}
