/* LayerGuard's C core: what C and C++ programs include. */
#ifndef LAYERGUARD_H
#define LAYERGUARD_H

#include <stddef.h> /* size_t, ptrdiff_t */

#ifdef __cplusplus
extern "C" {
#endif

#include "layerguard_api.h"

#ifdef __cplusplus
}
#endif

#endif
