/* A user's program: opens a guard, scores one text of zeros and prints the result.
 *     consumer detectors.npz */
#include <stdio.h>
#include <stdlib.h>

#include <layerguard.h>

int main(int const count, char **const arguments)
{
    char message[256] = "";
    lg_open_options const options
        = {.struct_size = sizeof options, .message = message, .message_size = sizeof message};
    lg_guard *guard;
    lg_status status = lg_open(count > 1 ? arguments[1] : "", &options, &guard);
    if (status != LG_OK) {
        printf("%s\n%s\n", lg_strerror(status), message);
        return 2;
    }
    lg_guard_info info = {.struct_size = sizeof info};
    lg_guard_describe(guard, &info);
    float *const states = malloc(info.states * info.width * sizeof *states);
    void *const workspace = malloc(info.workspace);
    lg_reading *const readings = calloc(info.detectors, sizeof *readings);
    for (size_t i = 0; i < info.states * info.width; i++)
        states[i] = (float)(i % 7) - 3.0f;
    lg_score_call const call = {
        .struct_size = sizeof call,
        .states = {.base = states,
                   .layer_stride = (ptrdiff_t)(info.width * sizeof *states),
                   .layer_count = info.states,
                   .rows = 1,
                   .width = info.width,
                   .dtype = LG_F32},
        .workspace = workspace,
        .workspace_size = info.workspace,
        .readings = readings,
        .reading_size = sizeof *readings,
    };
    lg_verdict verdict = {.struct_size = sizeof verdict};
    status = lg_score(guard, &call);
    if (status == LG_OK)
        status = lg_decide(guard,
                           &(lg_decide_call){.struct_size = sizeof(lg_decide_call),
                                             .readings = readings,
                                             .reading_size = sizeof *readings},
                           &verdict);
    for (size_t d = 0; status == LG_OK && d < info.detectors; d++) {
        lg_detector_info detector = {.struct_size = sizeof detector};
        lg_detector_describe(guard, d, &detector);
        printf("%s %a\n", detector.name, readings[d].score);
    }
    if (status == LG_OK)
        printf("flagged %d\n", verdict.flagged);
    free(readings);
    free(workspace);
    free(states);
    lg_close(guard);
    return status == LG_OK ? verdict.flagged : 2;
}
