/* The p-value of several scores at once; see blocks.c. */
#ifndef LG_BLOCKS_H
#define LG_BLOCKS_H

#include "memory.h"

/* By column, the keys at which clean texts were cut off, ascending, and which cut each was. */
typedef struct lg_blocks {
    size_t n; /* clean texts; 0: nothing is promised */
    size_t columns;
    int all;          /* small scores were cut off first */
    size_t *lengths;  /* (columns) cuts of a column */
    double **keys;    /* (columns) (lengths_c) */
    size_t **numbers; /* (columns) (lengths_c), from 1 */
} lg_blocks;

/* Cuts all texts off; scores (n, columns), finite. False where there is no memory. */
int lg_blocks_cut(lg_blocks *blocks, double const *scores, size_t n, size_t columns, int all,
                  lg_memory *memory);

/* The least share of clean texts at which a text with these scores, (columns), is flagged. */
double lg_blocks_p_value(lg_blocks const *blocks, double const *scores);

#endif
