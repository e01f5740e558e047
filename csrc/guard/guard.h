/* A guard inside: its detectors, who decides, and where things lie in a call's workspace. */
#ifndef LG_GUARD_H
#define LG_GUARD_H

#include "blocks.h"
#include "detector.h"

/* Thresholds of one kind of traffic, and the whole guard's p-values there. */
typedef struct lg_domain {
    char const *name;
    lg_limit limits[LG_KINDS];
    lg_blocks blocks;
} lg_domain;

typedef struct lg_decision {
    int policy;         /* lg_policy; -1: not frozen */
    lg_blocks blocks;   /* of all traffic */
    lg_domain *domains; /* (domain_count) in the order of names */
    size_t domain_count;
} lg_decision;

/* States that a pooling reads of a text, and how wide; none: 0 and 0. */
typedef struct lg_extent {
    size_t states;
    size_t width;
} lg_extent;

/* Where a call's intermediate values lie, in bytes from the workspace's start. */
typedef struct lg_layout {
    size_t pointers; /* (last.states) of rows */
    size_t mean;     /* float (mean.states, mean.width) */
    size_t totals;   /* double (mean.width) */
    size_t extremes; /* float (LG_ROLES, 2, K) */
    size_t wide;     /* float (lg_extremes_workspace of half precision) */
    size_t z;        /* double (L) */
    size_t network;  /* float (network_count) */
    size_t size;
} lg_layout;

struct lg_guard {
    lg_memory memory;
    lg_archive archive;
    lg_detector detectors[LG_KINDS];
    size_t detector_count;
    lg_decision decision;
    lg_extent all; /* the least that states have to be */
    int states_known, width_known;
    lg_extent last, mean;
    lg_watched const *watched; /* whoever reads extremes, or null */
    size_t extremes_count;     /* floats */
    size_t network_count;      /* floats */
    lg_layout layout;
};

/* Takes what a program without the manifest has to know: views, poolings, sizes. */
lg_status lg_serving_bind(lg_guard *guard, lg_fault const *fault);

/* Takes who decides, and the clean scores that the decision was calibrated on. */
lg_status lg_decision_bind(lg_guard *guard, lg_fault const *fault);

/* Sets what follows from the detectors: extents, and the layout of a workspace. */
lg_status lg_guard_lay_out(lg_guard *guard, lg_fault const *fault);

/* Bytes that a stream needs. */
size_t lg_stream_bytes(lg_guard const *guard);

/* What workspaces and streams are aligned to: no type in them needs more. */
enum { LG_ALIGNMENT = 8 };

_Static_assert(_Alignof(double) <= LG_ALIGNMENT && _Alignof(void *) <= LG_ALIGNMENT
                   && _Alignof(size_t) <= LG_ALIGNMENT,
               "parts of a workspace start at multiples of LG_ALIGNMENT");

/* The next place at or behind `place` at which a part may start. */
static inline size_t lg_aligned(size_t const place)
{
    return (place + LG_ALIGNMENT - 1) / LG_ALIGNMENT * LG_ALIGNMENT;
}

#endif
