/* The function that the fuzzer and test_corpus.c call. */
#ifndef LG_FUZZ_NPZ_H
#define LG_FUZZ_NPZ_H

#include <stdint.h> /* uint8_t */

#include "layerguard.h"

enum { MESSAGE = 256 };

/* Opens the bytes; if a guard opens, scores, decides and streams. Returns the status of opening. */
lg_status open_and_use(uint8_t const *data, size_t size, char message[MESSAGE]);

int LLVMFuzzerTestOneInput(uint8_t const *data, size_t size);

#endif
