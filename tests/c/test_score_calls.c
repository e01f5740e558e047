/* Calls of lg_score and lg_score_pooled with structs that random bytes fill, through the function that
 * `make fuzz` calls: half of them are valid, and every status that the header promises is returned.
 *     test_score_calls COUNT */
#include "check.h"
#include "fuzz_score.h"

static lg_status const promised[]
    = {LG_OK,           LG_ERR_NULL,  LG_ERR_SHAPE, LG_ERR_DTYPE,     LG_ERR_ALIGNMENT,
       LG_ERR_OVERFLOW, LG_ERR_INDEX, LG_ERR_EMPTY, LG_ERR_WORKSPACE, LG_ERR_STRUCT_SIZE,
       LG_ERR_POOLING};

int main(int const count, char **const arguments)
{
    CHECK(count == 2);
    long const calls = strtol(arguments[1], NULL, 10);
    size_t seen[32] = {0};
    uint64_t seed = 11;
    for (long call = 0; call < calls; call++) {
        size_t const size = (size_t)((number(&seed) + 1.0) * 300.0);
        uint8_t *const data = buffer(size + !size, 1);
        for (size_t i = 0; i < size; i++)
            data[i] = (uint8_t)((number(&seed) + 1.0) * 128.0);
        seen[call_and_check(data, size)]++;
        free(data);
    }
    for (size_t i = 0; i < COUNT(promised); i++) {
        printf("%8zu  %s\n", seen[-promised[i]], lg_strerror(promised[i]));
        CHECK(seen[-promised[i]] > 0);
    }
    CHECK(seen[0] * 4 > (size_t)calls); /* most are valid, so that the kernels run */
    return 0;
}
