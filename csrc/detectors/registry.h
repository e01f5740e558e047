/* The kinds that registry.c lists. */
#ifndef LG_REGISTRY_H
#define LG_REGISTRY_H

#include "kind.h"

extern lg_kind const lg_kind_agent_siren, lg_kind_delta, lg_kind_familiarity, lg_kind_lcf,
    lg_kind_siren, lg_kind_span, lg_kind_weightwatch;

#endif
