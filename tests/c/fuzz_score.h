/* The function that the fuzzer and test_score_calls.c call. */
#ifndef LG_FUZZ_SCORE_H
#define LG_FUZZ_SCORE_H

#include <stddef.h> /* size_t */
#include <stdint.h> /* uint8_t */

/* Makes one call of lg_score or lg_score_pooled out of the bytes and checks its result.
 * Returns the status, negated. */
int call_and_check(uint8_t const *data, size_t size);

int LLVMFuzzerTestOneInput(uint8_t const *data, size_t size);

#endif
