/* Statistically equivalent blocks: one p-value for the scores of several detectors.
 *
 * Clean texts are cut off one at a time. Each cut uses the column with the fewest cuts so far and
 * removes the most extreme remaining text. A new text falls into each of the n + 1 blocks with the
 * same probability, so the number of the first cut that would remove it gives a conformal p-value.
 * Sources: Tukey 1947, Fraser 1951, Kemperman 1956, as in runtime/decision/blocks.py.
 */
#include <math.h>   /* isfinite */
#include <stdlib.h> /* free, malloc, qsort */

#include "blocks.h"

/* A text's score in one column; negated if large scores are cut off first. */
typedef struct ranked {
    double key;
    size_t text;
} ranked;

static int compare(void const *const first, void const *const second)
{
    ranked const *const a = first, *const b = second;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return a->text < b->text ? -1 : a->text > b->text; /* equal keys: by index */
}

/* The column with the smallest depth; the first one of several. */
static size_t least_deep(size_t const *const depth, size_t const columns)
{
    size_t least = 0;
    for (size_t c = 1; c < columns; c++)
        if (depth[c] < depth[least])
            least = c;
    return least;
}

/* orders: (columns, n); depth: (columns), zeros; gone: (n), zeros. */
static void cut(lg_blocks *const blocks, ranked const *const orders, size_t *const depth,
                unsigned char *const gone)
{
    for (size_t number = 1; number <= blocks->n; number++) {
        size_t const c = least_deep(depth, blocks->columns);
        ranked const *const order = orders + c * blocks->n;
        size_t place = depth[c];
        while (gone[order[place].text])
            place++;
        gone[order[place].text] = 1;
        depth[c] = place + 1;
        blocks->keys[c][blocks->lengths[c]] = order[place].key;
        blocks->numbers[c][blocks->lengths[c]++] = number;
    }
}

static int take_memory(lg_blocks *const blocks, lg_memory *const memory)
{
    blocks->lengths = lg_allocate(memory, blocks->columns, sizeof *blocks->lengths);
    blocks->keys = lg_allocate(memory, blocks->columns, sizeof *blocks->keys);
    blocks->numbers = lg_allocate(memory, blocks->columns, sizeof *blocks->numbers);
    int taken = blocks->lengths && blocks->keys && blocks->numbers;
    for (size_t c = 0; taken && c < blocks->columns; c++) {
        blocks->keys[c] = lg_allocate(memory, blocks->n, sizeof **blocks->keys);
        blocks->numbers[c] = lg_allocate(memory, blocks->n, sizeof **blocks->numbers);
        taken = blocks->keys[c] && blocks->numbers[c];
    }
    return taken;
}

int lg_blocks_cut(lg_blocks *const blocks, double const *const scores, size_t const n,
                  size_t const columns, int const all, lg_memory *const memory)
{
    *blocks = (lg_blocks){.n = n, .columns = columns, .all = all};
    ranked *const orders = calloc(n * columns + 1, sizeof *orders);
    size_t *const depth = calloc(columns + 1, sizeof *depth);
    unsigned char *const gone = calloc(n + 1, 1);
    int const ready = orders && depth && gone && take_memory(blocks, memory);
    for (size_t c = 0; ready && c < columns; c++) {
        for (size_t text = 0; text < n; text++) {
            double const score = scores[text * columns + c];
            orders[c * n + text] = (ranked){all ? score : -score, text};
        }
        qsort(orders + c * n, n, sizeof *orders, compare);
    }
    if (ready)
        cut(blocks, orders, depth, gone);
    free(orders);
    free(depth);
    free(gone);
    return ready;
}

/* Number of keys below `key`, or, if `equal`, at most `key`. */
static size_t place_of(double const *const keys, size_t const count, double const key,
                       int const equal)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t const middle = low + (high - low) / 2;
        if (keys[middle] < key || (equal && keys[middle] == key))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

double lg_blocks_p_value(lg_blocks const *const blocks, double const *const scores)
{
    size_t const last = blocks->n + 1;
    size_t cuts = last;
    for (size_t c = 0; c < blocks->columns; c++)
        if (!isfinite(scores[c]))
            return 1.0 / (double)last;
    for (size_t c = 0; c < blocks->columns; c++) {
        double const key = blocks->all ? scores[c] : -scores[c];
        size_t const place = place_of(blocks->keys[c], blocks->lengths[c], key, !blocks->all);
        if (place < blocks->lengths[c] && blocks->numbers[c][place] < cuts)
            cuts = blocks->numbers[c][place];
    }
    return (double)(blocks->all ? last + 1 - cuts : cuts) / (double)last;
}
