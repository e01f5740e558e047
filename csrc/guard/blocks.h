/* One p-value for several scores; see blocks.c. */
#ifndef LG_BLOCKS_H
#define LG_BLOCKS_H

#include "memory.h"

/* For each column the keys of its cuts, ascending, and the number of each cut. */
typedef struct lg_blocks {
    size_t n; /* clean texts; 0: there is no calibrated rate */
    size_t columns;
    int all;          /* small scores were cut off first */
    size_t *lengths;  /* (columns) number of cuts */
    double **keys;    /* (columns) (lengths_c) */
    size_t **numbers; /* (columns) (lengths_c), from 1 */
} lg_blocks;

/* Cuts off all texts; scores: (n, columns), finite. False if memory ran out. */
int lg_blocks_cut(lg_blocks *blocks, double const *scores, size_t n, size_t columns, int all,
                  lg_memory *memory);

/* The p-value of a text with these scores, (columns); the smallest possible, 1 / (n + 1), if a score
 * is not finite. */
double lg_blocks_p_value(lg_blocks const *blocks, double const *scores);

#endif
