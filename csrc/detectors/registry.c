/* The detectors of this library, ordered by name. */
#include "registry.h"

lg_kind const *const lg_kinds[] = {
    &lg_kind_agent_siren, &lg_kind_delta, &lg_kind_familiarity, &lg_kind_lcf,
    &lg_kind_siren,       &lg_kind_span,  &lg_kind_weightwatch,
};

size_t const lg_kind_count = sizeof lg_kinds / sizeof *lg_kinds;

_Static_assert(sizeof lg_kinds / sizeof *lg_kinds <= LG_MOST_KINDS, "raise LG_MOST_KINDS");
