/* The internal structure of a guard: detectors, decision and the layout of a call's memory. */
#ifndef LG_GUARD_H
#define LG_GUARD_H

#include "blocks.h"
#include "kind.h"
#include "threshold.h"

/* A detector of an archive. */
typedef struct lg_detector {
    lg_kind const *kind;
    int view;       /* lg_view */
    int pooling;    /* lg_pooling */
    int final_norm; /* its last state is the one after the final norm */
    int shadow;
    lg_threshold threshold;
    lg_bound bound;
    size_t gathered; /* offset of its extremes or windows among those of all detectors, in floats */
} lg_detector;

/* Thresholds of one domain, and the blocks for the whole guard's p-values there. */
typedef struct lg_domain {
    char const *name;
    lg_threshold thresholds[LG_MOST_KINDS];
    lg_blocks blocks;
} lg_domain;

typedef struct lg_decision {
    int policy;         /* lg_policy; -1: not in the archive */
    lg_blocks blocks;   /* of all traffic */
    lg_domain *domains; /* (domain_count) ordered by name */
    size_t domain_count;
} lg_decision;

/* Number and width of the states that a pooling reads; 0 and 0 if none. */
typedef struct lg_extent {
    size_t states;
    size_t width;
} lg_extent;

/* Offsets of a call's intermediate values in its workspace, in bytes. */
typedef struct lg_layout {
    size_t pointers; /* (last.states) of rows */
    size_t mean;     /* float (mean.states, mean.width) */
    size_t totals;   /* double (mean.width) */
    size_t gathered; /* float (gathered_count) */
    size_t wide;     /* float (lg_extremes_workspace of half precision) */
    size_t scratch;  /* used by one detector after the other */
    size_t size;
} lg_layout;

/* Offsets of a stream's parts, in bytes; its workspace has the layout of a call's. */
typedef struct lg_stream_layout {
    size_t last;     /* float (last.states, last.width) */
    size_t sums;     /* double (mean.states, mean.width) */
    size_t gathered; /* float (gathered_count) */
    size_t workspace;
    size_t size;
} lg_stream_layout;

struct lg_guard {
    lg_memory memory;
    lg_archive archive;
    lg_detector detectors[LG_MOST_KINDS];
    size_t detector_count;
    lg_decision decision;
    lg_extent all; /* minimum size of states */
    int states_known, width_known;
    lg_extent last, mean;
    size_t gathered_count; /* floats of extremes and windows, of all detectors that read them */
    lg_layout layout;
    lg_stream_layout stream_layout;
};

struct lg_stream {
    lg_guard const *guard;
    int owned;      /* the stream allocated its memory */
    int final_norm; /* of the tokens so far */
    size_t tokens;
};

/* Floats that a detector gathers from every token, its extremes or windows; 0 if it reads pooled states.
 */
static inline size_t lg_gathered_of(lg_detector const *const detector)
{
    lg_directions const *const directions = detector->bound.directions;
    return directions ? 2 * LG_ROLES * (size_t)directions->offsets[directions->chosen_count]
                      : lg_windows_floats(detector->bound.probe);
}

#endif
