/* Checks of frozen arrays that all detectors share: names, dtypes, shapes, values. */
#ifndef LG_PARAMETERS_H
#define LG_PARAMETERS_H

#include "archive.h"

/* A side of any length. */
#define LG_ANY_SIDE ((size_t)-1)

/* Where a group's arrays are looked for, and where to say what is wrong with them. */
typedef struct lg_binding {
    lg_archive const *archive;
    char const *group; /* a detector, "decision" or "serving" */
    lg_memory *memory;
    lg_fault const *fault;
} lg_binding;

typedef struct lg_expected {
    char const *name;
    lg_type type;
    size_t rank;
    size_t sides[2];
    int positive; /* every value has to be above zero */
} lg_expected;

/* The array <group>/<name>, whatever it is; null where there is none. */
lg_array *lg_find(lg_binding const *binding, char const *name);

/* Whether the archive has an array of the group. */
int lg_has_group(lg_archive const *archive, char const *group);

/* The array as expected: of that dtype and shape, finite, positive where it has to be. */
lg_status lg_need(lg_binding const *binding, lg_expected const *expected, lg_array const **array);

/* The same of `count` arrays, to the first that is not as expected. */
lg_status lg_need_all(lg_binding const *binding, size_t count, lg_expected const *expected,
                      lg_array const **arrays);

/* Refuses the group's parameters for what <name> is. */
lg_status lg_unfit(lg_binding const *binding, char const *name, char const *what);

lg_status lg_no_memory(lg_binding const *binding);

#endif
