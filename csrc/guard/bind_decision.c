/* Who decides, from the frozen arrays: policy, domains with thresholds of their own, and the clean
 * scores that p-values count.
 *
 * An archive without decision/ and serving/policy flags where any detector does, and promises
 * nothing. One that has decision/ alone was frozen before the policy was: it scores, and cannot
 * decide.
 */
#include <stdint.h> /* uint8_t */
#include <stdlib.h> /* calloc, free, qsort */
#include <string.h> /* memchr, memcpy */

#include "guard.h"

/* Of domains with thresholds of their own, and of their number times that of the texts: opening goes
 * over all texts once for each. */
enum { MOST_DOMAINS = 1024, MOST_ROWS_READ = 1 << 30 };

/* The frozen arrays of a decision over n texts, d detectors and m domains. */
typedef struct frozen {
    double const *scores; /* (n, d) */
    int const *domains;   /* (n) index of a domain, or -1 */
    size_t texts;         /* n */
    int promised;
    size_t domain_count;      /* m */
    char const *names;        /* of all domains, one behind the other, in UTF-8 */
    int const *ends;          /* (m) where each ends */
    uint8_t const *own;       /* (m) has thresholds of its own */
    double const *thresholds; /* (m, d) */
} frozen;

static lg_status bind_scores(lg_guard *const guard, frozen *const of, lg_fault const *const fault)
{
    lg_binding const binding = {&guard->archive, "decision", &guard->memory, fault};
    lg_array const *const domains = lg_find(&binding, "domains");
    of->texts = domains ? domains->count : 0;
    lg_expected const expected[] = {
        {.name = "scores",
         .type = LG_TYPE_F64,
         .rank = 2,
         .sides = {of->texts, guard->detector_count}},
        {.name = "domains", .type = LG_TYPE_I32, .rank = 1, .sides = {of->texts}},
        {.name = "texts", .type = LG_TYPE_I64, .rank = 1, .sides = {of->texts}},
        {.name = "seen", .type = LG_TYPE_I64, .rank = 1, .sides = {LG_ANY_SIDE}},
    };
    lg_array const *found[4];
    lg_status const status = lg_need_all(&binding, 4, expected, found);
    if (status != LG_OK)
        return status;
    of->scores = found[0]->data;
    of->domains = found[1]->data;
    for (size_t i = 0; i < of->texts; i++)
        if (of->domains[i] < -1 || of->domains[i] >= (int)of->domain_count)
            return lg_unfit(&binding, "domains", "has an index of no domain");
    return LG_OK;
}

/* Whether the names fill their letters, one behind the other, and hold no zero. */
static int names_fit(frozen const *const of, size_t const length)
{
    int from = 0;
    for (size_t m = 0; m < of->domain_count; m++) {
        if (of->ends[m] < from || (size_t)of->ends[m] > length)
            return 0;
        from = of->ends[m];
    }
    return (size_t)from == length && (!length || !memchr(of->names, 0, length));
}

static lg_status bind_policy(lg_guard *const guard, lg_binding const *const binding,
                             frozen *const of)
{
    size_t const count = guard->detector_count;
    lg_array const *const ends = lg_find(binding, "domain_ends");
    of->domain_count = ends ? ends->count : 0;
    lg_expected const expected[] = {
        {.name = "policy", .type = LG_TYPE_U8, .rank = 0},
        {.name = "promised", .type = LG_TYPE_BOOL, .rank = 0},
        {.name = "shadow", .type = LG_TYPE_BOOL, .rank = 1, .sides = {count}},
        {.name = "domain_names", .type = LG_TYPE_U8, .rank = 1, .sides = {LG_ANY_SIDE}},
        {.name = "domain_ends", .type = LG_TYPE_I32, .rank = 1, .sides = {of->domain_count}},
        {.name = "domain_own", .type = LG_TYPE_BOOL, .rank = 1, .sides = {of->domain_count}},
        {.name = "domain_thresholds",
         .type = LG_TYPE_F64,
         .rank = 2,
         .sides = {of->domain_count, count}},
    };
    lg_array const *found[7];
    lg_status const status = lg_need_all(binding, 7, expected, found);
    if (status != LG_OK)
        return status;
    if (of->domain_count > MOST_DOMAINS)
        return lg_unfit(binding, "domain_ends", "has more than 1024 domains");
    guard->decision.policy = *(uint8_t const *)found[0]->data;
    of->promised = *(uint8_t const *)found[1]->data != 0;
    of->names = found[3]->data;
    of->ends = found[4]->data;
    of->own = found[5]->data;
    of->thresholds = found[6]->data;
    size_t deciding = 0;
    for (size_t d = 0; d < count; d++) {
        guard->detectors[d].shadow = ((uint8_t const *)found[2]->data)[d] != 0;
        deciding += !guard->detectors[d].shadow;
    }
    if (guard->decision.policy > LG_ALL || !deciding)
        return lg_unfit(binding, "policy", "is unknown, or no detector decides");
    return names_fit(of, found[3]->count)
               ? LG_OK
               : lg_unfit(binding, "domain_names", "and domain_ends do not fit together");
}

static int compare(void const *const first, void const *const second)
{
    double const a = *(double const *)first, b = *(double const *)second;
    return a < b ? -1 : a > b;
}

/* The texts of one domain, or all of them: rows that are kept, (kept, d), and how many. */
static size_t keep_rows(frozen const *const of, size_t const d, int const domain,
                        double *const rows)
{
    size_t kept = 0;
    for (size_t i = 0; i < of->texts; i++)
        if (domain < 0 || of->domains[i] == domain)
            memcpy(rows + kept++ * d, of->scores + i * d, d * sizeof *rows);
    return kept;
}

/* Leaves the columns of those that decide. */
static size_t keep_deciding(lg_guard const *const guard, size_t const texts,
                            double const *const rows, double *const columns)
{
    size_t count = 0;
    for (size_t d = 0; d < guard->detector_count; d++)
        count += !guard->detectors[d].shadow;
    for (size_t i = 0; i < texts; i++)
        for (size_t d = 0, c = 0; d < guard->detector_count; d++)
            if (!guard->detectors[d].shadow)
                columns[i * count + c++] = rows[i * guard->detector_count + d];
    return count;
}

/* A domain's limits: its thresholds, and its own clean scores for p-values. */
static int bind_limits(lg_guard *const guard, double const *const rows, size_t const texts,
                       double const *const thresholds, lg_limit *const limits)
{
    for (size_t d = 0; d < guard->detector_count; d++) {
        double *const sorted = lg_keep(&guard->memory, texts, sizeof *sorted);
        if (!sorted)
            return 0;
        for (size_t i = 0; i < texts; i++)
            sorted[i] = rows[i * guard->detector_count + d];
        qsort(sorted, texts, sizeof *sorted, compare);
        limits[d] = (lg_limit){thresholds[d], sorted, texts};
    }
    return 1;
}

static int bind_domain(lg_guard *const guard, frozen const *const of, size_t const m,
                       double *const rows, double *const columns)
{
    lg_domain *const domain = &guard->decision.domains[guard->decision.domain_count];
    size_t const from = m ? (size_t)of->ends[m - 1] : 0, length = (size_t)of->ends[m] - from;
    char *const name = lg_keep(&guard->memory, length + 1, 1);
    if (!name)
        return 0;
    memcpy(name, of->names + from, length);
    domain->name = name;
    size_t const texts = keep_rows(of, guard->detector_count, (int)m, rows);
    size_t const deciding = keep_deciding(guard, texts, rows, columns);
    guard->decision.domain_count++;
    return bind_limits(guard, rows, texts, of->thresholds + m * guard->detector_count,
                       domain->limits)
           && lg_blocks_cut(&domain->blocks, columns, texts, deciding,
                            guard->decision.policy == LG_ALL, &guard->memory);
}

static int bind_promise(lg_guard *const guard, frozen const *const of, double *const rows,
                        double *const columns)
{
    lg_decision *const decision = &guard->decision;
    size_t const texts = keep_rows(of, guard->detector_count, -1, rows);
    size_t const deciding = keep_deciding(guard, texts, rows, columns);
    decision->domains = lg_keep(&guard->memory, of->domain_count, sizeof *decision->domains);
    int bound = decision->domains
                && lg_blocks_cut(&decision->blocks, columns, texts, deciding,
                                 decision->policy == LG_ALL, &guard->memory);
    for (size_t m = 0; bound && m < of->domain_count; m++)
        if (of->own[m])
            bound = bind_domain(guard, of, m, rows, columns);
    return bound;
}

lg_status lg_decision_bind(lg_guard *const guard, lg_fault const *const fault)
{
    lg_binding const serving = {&guard->archive, "serving", &guard->memory, fault};
    int const calibrated = lg_has_group(&guard->archive, "decision");
    int const settled = lg_find(&serving, "policy") != NULL;
    guard->decision.policy = calibrated && !settled ? -1 : LG_ANY;
    frozen of = {.texts = 0};
    lg_status status = settled ? bind_policy(guard, &serving, &of) : LG_OK;
    if (status != LG_OK || !calibrated)
        return status == LG_OK && of.promised
                   ? lg_unfit(&serving, "promised", "is true without decision/scores")
                   : status;
    of.domain_count = settled ? of.domain_count : INT32_MAX;
    status = bind_scores(guard, &of, fault);
    if (status != LG_OK || !of.promised)
        return status;
    if (of.domain_count && of.texts > (size_t)MOST_ROWS_READ / of.domain_count)
        return lg_unfit(&serving, "domain_ends", "has too many domains for so many texts");
    size_t const values = of.texts * guard->detector_count;
    double *const rows = calloc(values + 1, sizeof *rows);
    double *const columns = calloc(values + 1, sizeof *columns);
    int const bound = rows && columns && bind_promise(guard, &of, rows, columns);
    free(rows);
    free(columns);
    return bound ? LG_OK : lg_no_memory(&serving);
}
