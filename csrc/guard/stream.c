/* Streams: what the detectors need of the tokens so far of a text that is still being generated.
 *
 * A stream holds the last token's states as float32, the sums of all tokens as double, and the
 * extremes and windows. Each is updated token by token, so the result does not depend on how the text was split.
 */
#include <stdlib.h> /* free, malloc */

#include "checks.h"
#include "readings.h"
#include "structs.h"

static void *part(lg_stream *const stream, size_t const place)
{
    return (char *)stream + place;
}

lg_status lg_stream_open(lg_guard const *const guard, void *const memory, size_t const size,
                         lg_stream **const stream)
{
    if (!stream)
        return LG_ERR_NULL;
    *stream = NULL;
    if (!guard)
        return LG_ERR_NULL;
    lg_stream_layout const *const to = &guard->stream_layout;
    if (memory && size < to->size)
        return LG_ERR_WORKSPACE;
    if (memory && lg_misaligned(memory, LG_ALIGNMENT))
        return LG_ERR_ALIGNMENT;
    lg_stream *const made = memory ? memory : malloc(to->size);
    if (!made)
        return LG_ERR_MEMORY;
    memset(made, 0, to->workspace);
    *made = (lg_stream){.guard = guard, .owned = !memory};
    lg_clear_gathered(guard, part(made, to->gathered));
    *stream = made;
    return LG_OK;
}

static void add(lg_stream *const stream, lg_kernels const *const kernels,
                lg_push_call const *const call)
{
    lg_guard const *const guard = stream->guard;
    lg_stream_layout const *const to = &guard->stream_layout;
    if (guard->last.states) {
        lg_pool_call pool = {.states = call->states, .pooled = part(stream, to->last)};
        pool.states.layer_count = guard->last.states;
        pool.states.width = guard->last.width;
        kernels->pool_last(&pool);
    }
    if (guard->mean.states) {
        lg_sums_call sums = {.states = call->states, .sums = part(stream, to->sums)};
        sums.states.layer_count = guard->mean.states;
        sums.states.width = guard->mean.width;
        kernels->sums(&sums);
    }
    lg_tokens const tokens = {.states = call->states, .roles = call->roles};
    lg_gather(guard, kernels, NULL, &tokens, part(stream, to->gathered),
              part(stream, to->workspace));
}

lg_status lg_stream_push(lg_stream *const stream, lg_push_call const *const argument)
{
    lg_push_call call;
    if (!stream)
        return LG_ERR_NULL;
    lg_status status = lg_copy_in(&call, sizeof call, argument);
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

/* One contiguous row per layer. */
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
    lg_stream_layout const *const to = &guard->stream_layout;
    char *const workspace = part(stream, to->workspace);
    float *const mean = (float *)(void *)(workspace + guard->layout.mean);
    lg_sums_call sums = {.states = rows_of(guard->mean, mean),
                         .sums = part(stream, to->sums),
                         .counted = stream->tokens,
                         .mean = mean};
    sums.states.rows = 0; /* adds no token, only computes the mean */
    kernels->sums(&sums);
    lg_pooled const pooled = {
        .kernels = kernels,
        .last = rows_of(guard->last, part(stream, to->last)),
        .mean = rows_of(guard->mean, mean),
        .gathered = part(stream, to->gathered),
        .workspace = workspace,
    };
    lg_read_all(guard, &pooled, call->chosen, call->readings, call->reading_size);
}

lg_status lg_stream_read(lg_stream *const stream, lg_read_call const *const argument)
{
    lg_read_call call;
    if (!stream)
        return LG_ERR_NULL;
    lg_status status = lg_copy_in(&call, sizeof call, argument);
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
    lg_stream_layout const *const layout = &to->guard->stream_layout;
    memcpy((char *)to + layout->last, (char const *)from + layout->last,
           layout->workspace - layout->last);
    to->final_norm = from->final_norm;
    to->tokens = from->tokens;
    return LG_OK;
}

void lg_stream_close(lg_stream *const stream)
{
    if (stream && stream->owned)
        free(stream);
}
