/* Combines all readings of a text into one decision. */
#include <string.h> /* strcmp */

#include "checks.h"
#include "guard.h"
#include "structs.h"

static lg_domain const *find_domain(lg_guard const *const guard, char const *const name,
                                    int *const index)
{
    *index = -1;
    for (size_t m = 0; name && m < guard->decision.domain_count; m++)
        if (strcmp(guard->decision.domains[m].name, name) == 0) {
            *index = (int)m;
            return &guard->decision.domains[m];
        }
    return NULL;
}

/* The threshold of a detector for an unfamiliar text: the largest over all traffic and domains. */
static lg_threshold const *cautious(lg_guard const *const guard, size_t const detector)
{
    lg_threshold const *largest = &guard->detectors[detector].threshold;
    for (size_t m = 0; m < guard->decision.domain_count; m++) {
        lg_threshold const *const own = &guard->decision.domains[m].thresholds[detector];
        if (own->value > largest->value)
            largest = own;
    }
    return largest;
}

/* Applies the thresholds of the domain, or those of an unfamiliar text, to the readings. */
static void apply(lg_guard const *const guard, lg_decide_call const *const call,
                  lg_domain const *const domain)
{
    int unfamiliar = 0;
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_reading *const reading = lg_reading_at(call->readings, call->reading_size, d);
        if (reading->status != LG_UNREAD)
            lg_threshold_apply(domain ? &domain->thresholds[d] : &guard->detectors[d].threshold,
                               reading);
        if (guard->detectors[d].kind->never_decides && reading->status != LG_UNREAD)
            unfamiliar |= reading->flagged != 0;
    }
    for (size_t d = 0; unfamiliar && d < guard->detector_count; d++) {
        lg_reading *const reading = lg_reading_at(call->readings, call->reading_size, d);
        if (!guard->detectors[d].kind->never_decides && reading->status != LG_UNREAD)
            lg_threshold_apply(cautious(guard, d), reading);
    }
}

/* Applies thresholds to the readings, and combines them. */
static lg_status decide(lg_guard const *const guard, lg_decide_call const *const call,
                        lg_verdict *const verdict)
{
    lg_domain const *const domain = find_domain(guard, call->domain, &verdict->domain);
    lg_blocks const *const blocks = domain ? &domain->blocks : &guard->decision.blocks;
    double scores[LG_MOST_KINDS];
    size_t deciding = 0, flagged = 0, invalid = 0, unread = 0;
    apply(guard, call, domain);
    for (size_t d = 0; d < guard->detector_count; d++) {
        lg_reading const *const reading = lg_reading_at(call->readings, call->reading_size, d);
        if (guard->detectors[d].shadow)
            continue;
        scores[deciding++] = reading->score;
        flagged += reading->flagged != 0;
        invalid += reading->status == LG_INVALID;
        unread += reading->status == LG_UNREAD;
    }
    if (unread)
        return LG_ERR_DECISION;
    verdict->invalid = invalid > 0;
    verdict->flagged
        = invalid || (guard->decision.policy == LG_ALL ? flagged == deciding : flagged > 0);
    if (blocks->lengths)
        verdict->p_value = lg_blocks_p_value(blocks, scores);
    return LG_OK;
}

lg_status lg_decide(lg_guard const *const guard, lg_decide_call const *const argument,
                    lg_verdict *const verdict)
{
    lg_verdict result = {.flagged = 1, .invalid = 1, .p_value = -1.0, .domain = -1};
    lg_decide_call call;
    lg_status status = lg_copy_out(verdict, &result, sizeof result); /* the verdict on failure */
    if (status == LG_OK && !guard)
        status = LG_ERR_NULL;
    if (status == LG_OK)
        status = lg_copy_in(&call, sizeof call, argument);
    if (status != LG_OK)
        return status;
    if (!call.readings)
        return LG_ERR_NULL;
    if (!lg_reading_fits(call.reading_size))
        return LG_ERR_STRUCT_SIZE;
    if (lg_misaligned(call.readings, _Alignof(lg_reading)))
        return LG_ERR_ALIGNMENT;
    if (guard->decision.policy < 0)
        return LG_ERR_DECISION;
    lg_fpenv const saved = lg_fpenv_enter();
    status = decide(guard, &call, &result);
    lg_fpenv_leave(saved);
    return status == LG_OK ? lg_copy_out(verdict, &result, sizeof result) : status;
}
