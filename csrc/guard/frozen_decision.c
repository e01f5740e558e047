/* Binds the decision: the policy, domains with their own thresholds, and the clean scores for
 * p-values.
 *
 * An archive without decision/ and serving/policy uses LG_ANY and has no calibrated rate. An archive
 * with decision/ alone is from a release that did not store the policy: it can score but not decide.
 */
#include <stdint.h> /* uint8_t */
#include <stdlib.h> /* calloc, free, qsort */
#include <string.h> /* memchr, memcpy */

#include "frozen.h"

/* Maximum number of domains, and of domains times texts: opening reads all texts once per domain. */
enum { MOST_DOMAINS = 1024, MOST_ROWS_READ = 1 << 30 };

/* The frozen arrays of a decision over n texts, d detectors and m domains. */
typedef struct frozen {
    double const *scores;     /* (n, d) */
    int const *domains;       /* (n) index of a domain, or -1 */
    size_t texts;             /* n */
    int promised;             /* the rate of the whole guard was calibrated */
    size_t domain_count;      /* m */
    char const *names;        /* of all domains, concatenated, in UTF-8 */
    int const *ends;          /* (m) offset of the end of each name */
    uint8_t const *own;       /* (m) whether the domain has its own thresholds */
    double const *thresholds; /* (m, d) */
} frozen;

static lg_parameter const calibrated_parameters[] = {
    {"domains", LG_TYPE_I32, "N", 0},
    {"scores", LG_TYPE_F64, "NC", 0},
    {"texts", LG_TYPE_I64, "N", 0},
    {"seen", LG_TYPE_I64, "*", 0},
};

static lg_parameter const policy_parameters[] = {
    {"policy", LG_TYPE_U8, "", 0},
    {"promised", LG_TYPE_BOOL, "", 0},
    {"shadow", LG_TYPE_BOOL, "C", 0},
    {"domain_names", LG_TYPE_U8, "*", 0},
    {"domain_ends", LG_TYPE_I32, "M", 0},
    {"domain_own", LG_TYPE_BOOL, "M", 0},
    {"domain_thresholds", LG_TYPE_F64, "MC", 0},
};

static lg_status bind_scores(lg_guard *const guard, frozen *const arrays, lg_faults *const faults)
{
    lg_binding binding = lg_binding_of(&guard->archive, "decision", &guard->memory, faults);
    lg_set_length(&binding, 'C', guard->detector_count);
    size_t const count = sizeof calibrated_parameters / sizeof *calibrated_parameters;
    lg_status const status = lg_check_parameters(&binding, calibrated_parameters, count);
    if (status != LG_OK)
        return status;
    arrays->texts = lg_length(&binding, 'N');
    arrays->scores = lg_find(&binding, "scores")->data;
    arrays->domains = lg_find(&binding, "domains")->data;
    for (size_t i = 0; i < arrays->texts; i++)
        if (arrays->domains[i] < -1 || arrays->domains[i] >= (int)arrays->domain_count)
            return lg_unfit(&binding, "domains",
                            "has %d; expected -1 (none) to %d, an index of a "
                            "domain",
                            arrays->domains[i], (int)arrays->domain_count - 1);
    return LG_OK;
}

/* Whether the ends ascend to the length of the names and no name contains a zero byte. */
static int names_fit(frozen const *const arrays, size_t const length)
{
    int from = 0;
    for (size_t m = 0; m < arrays->domain_count; m++) {
        if (arrays->ends[m] < from || (size_t)arrays->ends[m] > length)
            return 0;
        from = arrays->ends[m];
    }
    return (size_t)from == length && (!length || !memchr(arrays->names, 0, length));
}

static lg_status bind_policy(lg_guard *const guard, lg_binding *const binding, frozen *const arrays)
{
    lg_set_length(binding, 'C', guard->detector_count);
    size_t const count = sizeof policy_parameters / sizeof *policy_parameters;
    lg_status const status = lg_check_parameters(binding, policy_parameters, count);
    if (status != LG_OK)
        return status;
    arrays->domain_count = lg_length(binding, 'M');
    if (arrays->domain_count > MOST_DOMAINS)
        return lg_unfit(binding, "domain_ends", "has %zu domains; expected at most 1024",
                        arrays->domain_count);
    guard->decision.policy = *(uint8_t const *)lg_find(binding, "policy")->data;
    arrays->promised = *(uint8_t const *)lg_find(binding, "promised")->data != 0;
    arrays->names = lg_find(binding, "domain_names")->data;
    arrays->ends = lg_find(binding, "domain_ends")->data;
    arrays->own = lg_find(binding, "domain_own")->data;
    arrays->thresholds = lg_find(binding, "domain_thresholds")->data;
    uint8_t const *const shadow = lg_find(binding, "shadow")->data;
    size_t deciding = 0;
    for (size_t d = 0; d < guard->detector_count; d++) {
        guard->detectors[d].shadow = shadow[d] != 0;
        deciding += !guard->detectors[d].shadow;
    }
    if (guard->decision.policy > LG_ALL || !deciding)
        return lg_unfit(binding, "policy", "is unknown, or no detector decides");
    return names_fit(arrays, lg_find(binding, "domain_names")->count)
               ? LG_OK
               : lg_unfit(binding, "domain_names", "and domain_ends do not match");
}

static int compare(void const *const first, void const *const second)
{
    double const a = *(double const *)first, b = *(double const *)second;
    return a < b ? -1 : a > b;
}

/* Copies the rows of one domain, or of all if it is negative, to `rows`, (count, d). */
static size_t copy_rows(frozen const *const arrays, size_t const d, int const domain,
                        double *const rows)
{
    size_t count = 0;
    for (size_t i = 0; i < arrays->texts; i++)
        if (domain < 0 || arrays->domains[i] == domain)
            memcpy(rows + count++ * d, arrays->scores + i * d, d * sizeof *rows);
    return count;
}

/* Copies the columns of the deciding detectors; returns their number. */
static size_t copy_deciding(lg_guard const *const guard, size_t const texts,
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

/* Binds a domain's thresholds and its clean scores for p-values. */
static int bind_thresholds(lg_guard *const guard, double const *const rows, size_t const texts,
                           double const *const thresholds, lg_threshold *const bound)
{
    for (size_t d = 0; d < guard->detector_count; d++) {
        double *const sorted = lg_allocate(&guard->memory, texts, sizeof *sorted);
        if (!sorted)
            return 0;
        for (size_t i = 0; i < texts; i++)
            sorted[i] = rows[i * guard->detector_count + d];
        qsort(sorted, texts, sizeof *sorted, compare);
        bound[d] = (lg_threshold){thresholds[d], sorted, texts};
    }
    return 1;
}

static int bind_domain(lg_guard *const guard, frozen const *const arrays, size_t const m,
                       double *const rows, double *const columns)
{
    lg_domain *const domain = &guard->decision.domains[guard->decision.domain_count];
    size_t const from = m ? (size_t)arrays->ends[m - 1] : 0,
                 length = (size_t)arrays->ends[m] - from;
    char *const name = lg_allocate(&guard->memory, length + 1, 1);
    if (!name)
        return 0;
    memcpy(name, arrays->names + from, length);
    domain->name = name;
    size_t const texts = copy_rows(arrays, guard->detector_count, (int)m, rows);
    size_t const deciding = copy_deciding(guard, texts, rows, columns);
    guard->decision.domain_count++;
    return bind_thresholds(guard, rows, texts, arrays->thresholds + m * guard->detector_count,
                           domain->thresholds)
           && lg_blocks_cut(&domain->blocks, columns, texts, deciding,
                            guard->decision.policy == LG_ALL, &guard->memory);
}

static int bind_promise(lg_guard *const guard, frozen const *const arrays, double *const rows,
                        double *const columns)
{
    lg_decision *const decision = &guard->decision;
    size_t const texts = copy_rows(arrays, guard->detector_count, -1, rows);
    size_t const deciding = copy_deciding(guard, texts, rows, columns);
    decision->domains
        = lg_allocate(&guard->memory, arrays->domain_count, sizeof *decision->domains);
    int bound = decision->domains
                && lg_blocks_cut(&decision->blocks, columns, texts, deciding,
                                 decision->policy == LG_ALL, &guard->memory);
    for (size_t m = 0; bound && m < arrays->domain_count; m++)
        if (arrays->own[m])
            bound = bind_domain(guard, arrays, m, rows, columns);
    return bound;
}

lg_status lg_decision_bind(lg_guard *const guard, lg_faults *const faults)
{
    lg_binding serving = lg_binding_of(&guard->archive, "serving", &guard->memory, faults);
    int const calibrated = lg_has_group(&guard->archive, "decision");
    int const has_policy = lg_find(&serving, "policy") != NULL;
    guard->decision.policy = calibrated && !has_policy ? -1 : LG_ANY;
    frozen arrays = {.texts = 0};
    lg_status status = has_policy ? bind_policy(guard, &serving, &arrays) : LG_OK;
    if (status != LG_OK || !calibrated)
        return status == LG_OK && arrays.promised
                   ? lg_unfit(&serving, "promised", "is true without decision/scores")
                   : status;
    arrays.domain_count = has_policy ? arrays.domain_count : INT32_MAX;
    status = bind_scores(guard, &arrays, faults);
    if (status != LG_OK || !arrays.promised)
        return status;
    if (arrays.domain_count && arrays.texts > (size_t)MOST_ROWS_READ / arrays.domain_count)
        return lg_unfit(&serving, "domain_ends", "has too many domains for so many texts");
    size_t const values = arrays.texts * guard->detector_count;
    double *const rows = calloc(values + 1, sizeof *rows);
    double *const columns = calloc(values + 1, sizeof *columns);
    int const bound = rows && columns && bind_promise(guard, &arrays, rows, columns);
    free(rows);
    free(columns);
    return bound ? LG_OK : lg_no_memory(&serving);
}
