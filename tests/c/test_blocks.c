/* lg_judge and lg_block_set_*: values computed by hand, and each fault. */
#include "check.h"

static void check_judge(void)
{
    double const clean[] = {1.0, 2.0, 2.0, 3.0};
    lg_reading reading = {.score = 2.0};
    CHECK(lg_judge(2.0, clean, 4, &reading) == LG_OK);
    CHECK(reading.status == LG_READ && !reading.flagged && reading.p_value == 4.0 / 5.0);
    reading.score = nextafter(2.0, 3.0);
    CHECK(lg_judge(2.0, clean, 4, &reading) == LG_OK);
    CHECK(reading.flagged && reading.p_value == 2.0 / 5.0 && reading.threshold == 2.0);
    reading.score = NAN;
    CHECK(lg_judge(2.0, clean, 4, &reading) == LG_OK);
    CHECK(reading.status == LG_INVALID && reading.flagged && reading.p_value == 1.0 / 5.0);
    reading.score = 0.0;
    CHECK(lg_judge(2.0, NULL, 0, &reading) == LG_OK && reading.p_value == 1.0);
    CHECK(lg_judge(2.0, NULL, 1, &reading) == LG_ERR_NULL);
    CHECK(lg_judge(2.0, clean, 4, NULL) == LG_ERR_NULL);
}

/* Three texts, two columns. ANY cuts the largest of the first column (5), then of the second (8; the 9
 * belongs to the first text), then the remaining text (1). */
static void check_blocks(void)
{
    double const scores[] = {5.0, 9.0, 1.0, 7.0, 3.0, 8.0};
    double const calm[] = {0.0, 0.0}, high[] = {6.0, 0.0}, second[] = {0.0, 8.5};
    double const *keys;
    size_t const *numbers;
    size_t count;
    double p;
    lg_block_set *set;
    CHECK(lg_block_set_open(scores, 3, 2, LG_ANY, &set) == LG_OK);
    CHECK(lg_block_set_cuts(set, 0, &keys, &numbers, &count) == LG_OK);
    CHECK(count == 2 && keys[0] == -5.0 && numbers[0] == 1 && keys[1] == -1.0 && numbers[1] == 3);
    CHECK(lg_block_set_cuts(set, 1, &keys, &numbers, &count) == LG_OK);
    CHECK(count == 1 && keys[0] == -8.0 && numbers[0] == 2);
    CHECK(lg_block_set_p_value(set, calm, &p) == LG_OK && p == 1.0);
    CHECK(lg_block_set_p_value(set, high, &p) == LG_OK && p == 1.0 / 4.0);
    CHECK(lg_block_set_p_value(set, second, &p) == LG_OK && p == 2.0 / 4.0);
    double const strange[] = {0.0, INFINITY};
    CHECK(lg_block_set_p_value(set, strange, &p) == LG_OK && p == 1.0 / 4.0);
    CHECK(lg_block_set_cuts(set, 2, &keys, &numbers, &count) == LG_ERR_INDEX);
    CHECK(lg_block_set_cuts(NULL, 0, &keys, &numbers, &count) == LG_ERR_NULL);
    CHECK(lg_block_set_cuts(set, 0, NULL, &numbers, &count) == LG_ERR_NULL);
    CHECK(lg_block_set_p_value(NULL, calm, &p) == LG_ERR_NULL);
    CHECK(lg_block_set_p_value(set, NULL, &p) == LG_ERR_NULL);
    CHECK(lg_block_set_p_value(set, calm, NULL) == LG_ERR_NULL);
    lg_block_set_close(set);
    CHECK(lg_block_set_open(scores, 3, 2, LG_ALL, &set) == LG_OK);
    CHECK(lg_block_set_cuts(set, 0, &keys, &numbers, &count) == LG_OK && keys[0] == 1.0);
    lg_block_set_close(set);
}

static void check_faults(void)
{
    double const scores[] = {1.0};
    lg_block_set *set = (lg_block_set *)(void *)&set;
    CHECK(lg_block_set_open(scores, 1, 1, LG_ANY, NULL) == LG_ERR_NULL);
    CHECK(lg_block_set_open(NULL, 1, 1, LG_ANY, &set) == LG_ERR_NULL && !set);
    CHECK(lg_block_set_open(scores, 1, 0, LG_ANY, &set) == LG_ERR_SHAPE);
    CHECK(lg_block_set_open(scores, 1, 1, 2, &set) == LG_ERR_SHAPE);
    CHECK(lg_block_set_open(scores, (size_t)-1, 2, LG_ANY, &set) == LG_ERR_OVERFLOW);
    CHECK(lg_block_set_open(NULL, 0, 1, LG_ANY, &set) == LG_OK);
    double p;
    CHECK(lg_block_set_p_value(set, scores, &p) == LG_OK && p == 1.0);
    lg_block_set_close(set);
    lg_block_set_close(NULL);
}

int main(void)
{
    check_judge();
    check_blocks();
    check_faults();
    return 0;
}
