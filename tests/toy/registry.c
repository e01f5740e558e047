/* The registry with a toy detector; see csrc/detectors/registry.c. */
#include "registry.h"

extern lg_kind const lg_kind_toy;

lg_kind const *const lg_kinds[] = {
    &lg_kind_agent_siren, &lg_kind_delta, &lg_kind_familiarity, &lg_kind_lcf,
    &lg_kind_siren,       &lg_kind_span,  &lg_kind_toy,         &lg_kind_weightwatch,
};

size_t const lg_kind_count = sizeof lg_kinds / sizeof *lg_kinds;
