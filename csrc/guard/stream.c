/* A text that is still being written: what its detectors need of the tokens so far.
 *
 * The last token's states widened, the sums of all tokens in double, and the extremes: each is
 * updated token by token, so the same bits come out however the text was cut.
 */
#include <stdlib.h> /* free, malloc */

#include "checks.h"
#include "seen.h"
#include "sized.h"

struct lg_stream {
    lg_guard const *guard;
    int owned;      /* its memory is its own */
    int final_norm; /* of the tokens so far */
    size_t tokens;
};

/* Where a stream's parts lie, in bytes from its start; the scratch is laid out as a workspace. */
typedef struct parts {
    size_t last;     /* float (last.states, last.width) */
    size_t sums;     /* double (mean.states, mean.width) */
    size_t extremes; /* float (LG_ROLES, 2, K) */
    size_t scratch;
    size_t size;
} parts;

static parts parts_of(lg_guard const *const guard)
{
    parts found;
    found.last = lg_aligned(sizeof(lg_stream));
    found.sums = lg_aligned(found.last + guard->last.states * guard->last.width * sizeof(float));
    found.extremes
        = lg_aligned(found.sums + guard->mean.states * guard->mean.width * sizeof(double));
    found.scratch = lg_aligned(found.extremes + guard->extremes_count * sizeof(float));
    found.size = found.scratch + guard->layout.size;
    return found;
}

static void *part(lg_stream *const stream, size_t const place)
{
    return (char *)stream + place;
}

size_t lg_stream_bytes(lg_guard const *const guard)
{
    return parts_of(guard).size;
}

lg_status lg_stream_open(lg_guard const *const guard, void *const memory, size_t const size,
                         lg_stream **const stream)
{
    if (!stream)
        return LG_ERR_NULL;
    *stream = NULL;
    if (!guard)
        return LG_ERR_NULL;
    parts const of = parts_of(guard);
    if (memory && size < of.size)
        return LG_ERR_WORKSPACE;
    if (memory && lg_misaligned(memory, LG_ALIGNMENT))
        return LG_ERR_ALIGNMENT;
    lg_stream *const made = memory ? memory : malloc(of.size);
    if (!made)
        return LG_ERR_MEMORY;
    memset(made, 0, of.scratch);
    *made = (lg_stream){.guard = guard, .owned = !memory};
    lg_clear_extremes(part(made, of.extremes), guard->extremes_count);
    *stream = made;
    return LG_OK;
}

static void add(lg_stream *const stream, lg_kernels const *const kernels,
                lg_push_call const *const call)
{
    lg_guard const *const guard = stream->guard;
    parts const of = parts_of(guard);
    if (guard->last.states) {
        lg_pool_call pool = {.states = call->states, .pooled = part(stream, of.last)};
        pool.states.layer_count = guard->last.states;
        pool.states.width = guard->last.width;
        kernels->pool_last(&pool);
    }
    if (guard->mean.states) {
        lg_sums_call sums = {.states = call->states, .sums = part(stream, of.sums)};
        sums.states.layer_count = guard->mean.states;
        sums.states.width = guard->mean.width;
        kernels->sums(&sums);
    }
    if (guard->watched) {
        lg_extremes_call const found
            = {.states = call->states, .roles = call->roles, .extremes = part(stream, of.extremes)};
        lg_add_extremes(guard, kernels, found, part(stream, of.scratch));
    }
}

lg_status lg_stream_push(lg_stream *const stream, lg_push_call const *const given)
{
    lg_push_call call;
    if (!stream)
        return LG_ERR_NULL;
    lg_status status = lg_take(&call, sizeof call, given);
    if (status == LG_OK)
        status = lg_check_text(stream->guard, &call.states, call.roles);
    if (status != LG_OK || !call.states.rows)
        return status;
    if (stream->tokens && stream->final_norm != (call.final_norm != 0))
        return LG_ERR_POOLING;
    lg_run run;
    status = lg_enter(&run);
    if (status != LG_OK)
        return status;
    add(stream, run.kernels, &call);
    lg_leave(&run);
    stream->final_norm = call.final_norm != 0;
    stream->tokens += call.states.rows;
    return LG_OK;
}

/* One row a layer, one behind the other. */
static lg_states rows_of(lg_extent const extent, float const *const values)
{
    return (lg_states){.base = values,
                       .layer_stride = (ptrdiff_t)(extent.width * sizeof(float)),
                       .layer_count = extent.states,
                       .rows = 1,
                       .width = extent.width,
                       .dtype = LG_F32};
}

static void read_all(lg_stream *const stream, lg_kernels const *const kernels,
                     lg_read_call const *const call)
{
    lg_guard const *const guard = stream->guard;
    parts const of = parts_of(guard);
    char *const workspace = part(stream, of.scratch);
    float *const mean = (float *)(void *)(workspace + guard->layout.mean);
    lg_sums_call sums = {.states = rows_of(guard->mean, mean),
                         .sums = part(stream, of.sums),
                         .counted = stream->tokens,
                         .mean = mean};
    sums.states.rows = 0; /* none is added: it divides */
    kernels->sums(&sums);
    lg_pooled const pooled = {
        .kernels = kernels,
        .last = rows_of(guard->last, part(stream, of.last)),
        .mean = rows_of(guard->mean, mean),
        .extremes = part(stream, of.extremes),
        .workspace = workspace,
    };
    lg_read_all(guard, &pooled, call->chosen, call->readings, call->reading_size);
}

lg_status lg_stream_read(lg_stream *const stream, lg_read_call const *const given)
{
    lg_read_call call;
    if (!stream)
        return LG_ERR_NULL;
    lg_status status = lg_take(&call, sizeof call, given);
    if (status == LG_OK)
        status = lg_check_readings(stream->guard, call.chosen, call.readings, call.reading_size);
    if (status != LG_OK)
        return status;
    if (!stream->tokens)
        return LG_ERR_EMPTY;
    status = lg_check_chosen(stream->guard, call.chosen, stream->final_norm);
    lg_run run;
    if (status == LG_OK)
        status = lg_enter(&run);
    if (status != LG_OK)
        return status;
    read_all(stream, run.kernels, &call);
    lg_leave(&run);
    return LG_OK;
}

lg_status lg_stream_copy(lg_stream *const to, lg_stream const *const from)
{
    if (!to || !from)
        return LG_ERR_NULL;
    if (to->guard != from->guard)
        return LG_ERR_BOUND;
    if (to == from)
        return LG_OK;
    parts const of = parts_of(to->guard);
    memcpy((char *)to + of.last, (char const *)from + of.last, of.scratch - of.last);
    to->final_norm = from->final_norm;
    to->tokens = from->tokens;
    return LG_OK;
}

void lg_stream_close(lg_stream *const stream)
{
    if (stream && stream->owned)
        free(stream);
}
