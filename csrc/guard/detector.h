/* A detector bound to its frozen parameters: what it reads, and how it scores that. */
#ifndef LG_DETECTOR_H
#define LG_DETECTOR_H

#include "internal.h"
#include "limit.h"

/* WeightWatch: directions by state, their ranges, and the state of each direction. */
typedef struct lg_watched {
    lg_directions directions;
    lg_ranges ranges;
    int const *layers; /* (K) */
} lg_watched;

typedef struct lg_kind lg_kind;

typedef struct lg_detector {
    lg_kind const *kind;
    int view;       /* lg_view */
    int pooling;    /* lg_pooling */
    int final_norm; /* its last state is the one after the final norm */
    int shadow;
    lg_limit limit;
    size_t states; /* that it needs */
    size_t width;
    int states_known; /* the model has just so many, not more */
    int width_known;
    union {
        lg_lcf lcf;
        lg_siren siren;
        lg_watched watched;
    } model;
} lg_detector;

/* What a detector scores, checked, and memory to do it in; `row` or `extremes`, by its pooling. */
typedef struct lg_seen {
    lg_kernels const *kernels;
    lg_states row;         /* one row a layer: the last token, or the mean */
    float const *extremes; /* (LG_ROLES, 2, K) */
    double *z;             /* (L) */
    float *network;        /* (network_count) */
    size_t network_count;
} lg_seen;

/* A kind of detector; the same names as in Python's registry. */
struct lg_kind {
    char const *name;
    int view;
    int pooling;
    lg_status (*bind)(lg_binding const *binding, lg_detector *detector);
    /* sets score, layer and evidence */
    void (*score)(lg_detector const *detector, lg_seen const *seen, lg_reading *reading);
};

enum { LG_KINDS = 4 };

/* In the order of their names. */
extern lg_kind const *const lg_kinds[LG_KINDS];

extern lg_kind const lg_kind_agent_siren, lg_kind_lcf, lg_kind_siren, lg_kind_weightwatch;

#endif
