/* Scores texts by a model's hidden states:  score detectors.npz STATES...
 * A file of states holds one text as float32, (states, tokens, width), little-endian.
 *     cc score.c -o score $(python -m layerguard.runtime --cflags --libs) */
#include <stdio.h>
#include <stdlib.h>

#include <layerguard.h>

/* Reads the states of a text from a file; returns the number of tokens, 0 on failure. */
static size_t read_states(char const *const path, lg_guard_info const *const info,
                          lg_states *const states)
{
    size_t const layer = info->width * sizeof(float);
    FILE *const file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        return 0;
    size_t const bytes = (size_t)ftell(file), tokens = bytes / layer / info->states;
    void *const values = malloc(bytes);
    rewind(file);
    size_t const read = values ? fread(values, 1, bytes, file) : 0;
    fclose(file);
    *states = (lg_states){.base = values, .layer_stride = (ptrdiff_t)(tokens * layer),
                          .row_stride = (ptrdiff_t)layer, .layer_count = info->states,
                          .rows = tokens, .width = info->width, .dtype = LG_F32};
    return read == bytes && tokens * layer * info->states == bytes ? tokens : 0;
}

int main(int const count, char **const arguments)
{
    char why[256] = "give the detectors.npz of a bundle, and files of states of its model";
    lg_open_options const options = {sizeof options, 0, why, sizeof why};
    lg_guard_info info = {.struct_size = sizeof info};
    lg_guard *guard = NULL;
    if (count < 2 || lg_open(arguments[1], &options, &guard) || lg_guard_describe(guard, &info)
        || !info.states_known || !info.width_known)
        return fprintf(stderr, "score: %s\n", why), 2;
    lg_reading *const readings = calloc(info.detectors, sizeof *readings);
    void *const workspace = malloc(info.workspace);
    for (int i = 2; i < count; i++) {
        lg_score_call call = {.struct_size = sizeof call, .workspace = workspace,
                              .workspace_size = info.workspace, .readings = readings,
                              .reading_size = sizeof *readings};
        lg_decide_call const decide = {sizeof decide, readings, sizeof *readings, NULL};
        lg_verdict verdict = {.struct_size = sizeof verdict};
        lg_status status = read_states(arguments[i], &info, &call.states) ? LG_OK : LG_ERR_SHAPE;
        if (status || (status = lg_score(guard, &call))
            || (status = lg_decide(guard, &decide, &verdict)))
            return fprintf(stderr, "%s: %s\n", arguments[i], lg_strerror(status)), 2;
        free((void *)call.states.base);
        printf("%d", verdict.flagged);
        for (size_t d = 0; d < info.detectors; d++)
            printf(" %.17g", readings[d].score);
        printf("\n");
    }
    free(workspace);
    free(readings);
    lg_close(guard);
    return 0;
}
