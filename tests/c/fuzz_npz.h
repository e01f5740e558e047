/* The function that the fuzzer and the replay of its corpus call. */
#ifndef LG_FUZZ_NPZ_H
#define LG_FUZZ_NPZ_H

#include <stdint.h> /* uint8_t */

#include "layerguard.h"

enum { MESSAGE = 256 };

/* Opens the bytes; scores, decides and streams where a guard opens. What opening said. */
lg_status open_and_use(uint8_t const *data, size_t size, char message[MESSAGE]);

int LLVMFuzzerTestOneInput(uint8_t const *data, size_t size);

#endif
