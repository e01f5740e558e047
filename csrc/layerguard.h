/* LayerGuard's C library: what C and C++ programs include. */
#ifndef LAYERGUARD_H
#define LAYERGUARD_H

#include <stddef.h> /* size_t, ptrdiff_t */

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* the shared library exports only these declarations */

#include "layerguard_api.h"

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
