/* A detector kind: its parameters, its input and its scoring functions. */
#ifndef LG_KIND_H
#define LG_KIND_H

#include "internal.h"
#include "parameters.h"

typedef struct lg_kind lg_kind;

/* A kind bound to frozen parameters. */
typedef struct lg_bound {
    void const *model;               /* the kernel's parameters, built by `bind` */
    lg_directions const *directions; /* if the kind pools extremes; else null */
    lg_probe const *probe;           /* if the kind pools windows; else null */
    size_t row;                      /* values of a row that only the graph computes; else 0 */
    size_t states;                   /* one more than the index of the last state it reads */
    size_t width;                    /* elements of a state that it reads */
    int states_known;                /* the model has exactly `states` states */
    int width_known;                 /* the model's width is exactly `width` */
} lg_bound;

/* Validated detector input and scratch memory. A row is one text: its pooled states, or one layer,
 * float32: its extremes (LG_ROLES, 2, K), its windows (lg_window_part), or its added lengths (K). */
typedef struct lg_input {
    lg_kernels const *kernels;
    lg_states rows;
    void *scratch; /* as many bytes as lg_kind.scratch returned, aligned to 8 */
} lg_input;

/* An entry of the registry. */
struct lg_kind {
    char const *name; /* as in Python's registry */
    int view;         /* lg_view; used if the archive has no serving/ */
    int pooling;      /* lg_pooling; likewise */
    lg_parameter const *parameters;
    size_t parameter_count;
    /* Binds arrays that match the table, and adds a fault for every invalid value. */
    lg_status (*bind)(lg_binding *binding, lg_bound *bound);
    /* Bytes of scratch memory to score `rows` rows and, if `explained`, to explain one of them. */
    size_t (*scratch)(lg_bound const *bound, size_t rows, int explained);
    /* Writes a score for each row. */
    void (*score)(lg_bound const *bound, lg_input const *input, double *scores);
    /* Writes the largest contributions to the score of a row, largest first, at most `count` >= 1;
     * returns their number. `input` and its scratch memory must be as `score` left them. */
    size_t (*explain)(lg_bound const *bound, lg_input const *input, size_t row,
                      lg_reading const *reading, lg_evidence *evidence, size_t count);
    int explains_cheaply; /* lg_score and lg_stream_read also call `explain` */
    int never_decides;    /* it gives readings and is always in shadow */
};

/* All kinds, ordered by name. */
enum { LG_MOST_KINDS = 16 };
extern lg_kind const *const lg_kinds[];
extern size_t const lg_kind_count;

/* Inserts an entry into `used` of at most `count` sorted entries: largest absolute value first, NaN
 * before all others. Returns the new number of entries. */
size_t lg_rank_evidence(lg_evidence *evidence, size_t used, size_t count, lg_evidence entry);

#endif
