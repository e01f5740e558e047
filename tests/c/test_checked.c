/* lg_open_checked: every fault is listed in whole lines, and arrays in memory open like an archive.
 * Also the tables of parameters.
 *     test_checked CORPUS */
#include "check.h"

static size_t const TWO_BY_THREE[] = {2, 3}, TWO_BY_TWO[] = {2, 2}, SCALAR[] = {1};

/* Valid arrays of LCF for two layers of width three. */
enum { ARRAYS = 10 };
static float mu[6], sigma[6] = {1, 1, 1, 1, 1, 1};
static double zeros[4], ones[2] = {1, 1}, clean[2] = {1, 2};
static lg_named_array const sound[ARRAYS] = {
    {"lcf/mu", "float32", 2, TWO_BY_THREE, mu},
    {"lcf/sigma", "float32", 2, TWO_BY_THREE, sigma},
    {"lcf/score_mean", "float64", 1, TWO_BY_THREE, zeros},
    {"lcf/score_scale", "float64", 1, TWO_BY_THREE, ones},
    {"lcf/centre", "float64", 1, TWO_BY_THREE, zeros},
    {"lcf/precision", "float64", 2, TWO_BY_TWO, zeros},
    {"lcf/threshold", "float64", 0, NULL, ones},
    {"lcf/clean_scores", "float64", 1, TWO_BY_TWO, clean},
    {"lcf/target_fpr", "float64", 0, NULL, ones},
    {"lcf/fpr_interval", "float64", 1, TWO_BY_TWO, zeros},
};

static char faults[4096];

static lg_open_call call_of(lg_named_array const *const arrays, size_t const count)
{
    return (lg_open_call){.struct_size = sizeof(lg_open_call),
                          .arrays = arrays,
                          .array_count = count,
                          .faults = faults,
                          .faults_size = sizeof faults};
}

static void check_arrays(void)
{
    lg_guard *guard;
    lg_open_call call = call_of(sound, ARRAYS);
    CHECK(lg_open_checked(&call, &guard) == LG_OK && guard);
    CHECK(call.fault_count == 0 && !faults[0] && sigma[0] == 1.0f);
    lg_guard_info info = {.struct_size = sizeof info};
    CHECK(lg_guard_describe(guard, &info) == LG_OK && info.states == 3 && info.width == 3);
    lg_close(guard);
}

static lg_status open_changed(size_t const place, lg_named_array const changed)
{
    lg_named_array arrays[ARRAYS];
    lg_guard *guard;
    memcpy(arrays, sound, sizeof arrays);
    arrays[place] = changed;
    lg_open_call call = call_of(arrays, ARRAYS);
    lg_status const status = lg_open_checked(&call, &guard);
    CHECK(status != LG_OK && !guard && call.fault_count > 0);
    CHECK(call.faults_needed == strlen(faults) + 1);
    return status;
}

/* Arrays that an archive cannot hold, and invalid arrays. */
static void check_strange_arrays(void)
{
    size_t const many[] = {1, 2, 3, 4}, huge[] = {(size_t)-1, (size_t)-1};
    CHECK(open_changed(0, (lg_named_array){"lcf/mu", "complex128", 2, TWO_BY_THREE, mu})
          == LG_ERR_PARAMETERS);
    CHECK(strstr(faults, "lcf/mu is complex128 [2, 3]; expected float32 [L, D]"));
    CHECK(open_changed(0, (lg_named_array){"lcf/mu", "float32", 4, many, mu}) == LG_ERR_PARAMETERS);
    CHECK(strstr(faults, "lcf/mu is float32 [1, 2, 3, ...]; expected float32 [L, D]"));
    CHECK(open_changed(0, (lg_named_array){"lcf/mu", "float32", 2, huge, mu}) == LG_ERR_MEMORY);
    CHECK(open_changed(0, (lg_named_array){"mu", "float32", 2, TWO_BY_THREE, mu}) == LG_ERR_NULL);
    CHECK(open_changed(0, (lg_named_array){NULL, "float32", 2, TWO_BY_THREE, mu}) == LG_ERR_NULL);
    CHECK(open_changed(0, (lg_named_array){"lcf/mu", NULL, 2, TWO_BY_THREE, mu}) == LG_ERR_NULL);
    CHECK(open_changed(0, (lg_named_array){"lcf/mu", "float32", 2, NULL, mu}) == LG_ERR_NULL);
    CHECK(open_changed(0, (lg_named_array){"lcf/mu", "float32", 1, SCALAR, NULL}) == LG_ERR_NULL);
}

/* Three faults in one archive: a wrong dtype, a missing array, an unknown one. */
static void check_list(void)
{
    lg_named_array arrays[ARRAYS];
    lg_guard *guard;
    memcpy(arrays, sound, sizeof arrays);
    arrays[4].dtype = "float32";
    arrays[7].name = "lcf/more";
    lg_open_call call = call_of(arrays, ARRAYS);
    call.layers = 2;
    call.width = 3;
    CHECK(lg_open_checked(&call, &guard) == LG_ERR_PARAMETERS && !guard && call.fault_count == 3);
    CHECK(strcmp(faults, "lcf/centre is float32 [2]; expected float64 [2]; calibrate again\n"
                         "lcf/clean_scores is missing; expected float64 [any]; calibrate again\n"
                         "lcf/more is unknown to this release; upgrade, or calibrate again\n")
          == 0);
    size_t const whole = strlen(faults), first = strcspn(faults, "\n") + 1;
    CHECK(call.faults_needed == whole + 1);
    for (size_t size = 0; size <= whole + 1; size++) { /* only whole lines, never beyond the end */
        char *const room = buffer(size + (size == 0), 1);
        call.faults = room;
        call.faults_size = size;
        CHECK(lg_open_checked(&call, &guard) == LG_ERR_PARAMETERS && call.fault_count == 3);
        CHECK(call.faults_needed == whole + 1);
        CHECK(!size || (strlen(room) < first) == (size <= first));
        CHECK(!size || !room[0] || room[strlen(room) - 1] == '\n');
        free(room);
    }
    call.faults = NULL;
    CHECK(lg_open_checked(&call, &guard) == LG_ERR_PARAMETERS && call.fault_count == 3);
}

/* If the model's size is given, arrays must have it. */
static void check_model(void)
{
    lg_guard *guard;
    lg_open_call call = call_of(sound, ARRAYS);
    call.layers = 5;
    CHECK(lg_open_checked(&call, &guard) == LG_ERR_PARAMETERS && call.fault_count == 6);
    CHECK(strstr(faults, "lcf/mu is float32 [2, 3]; expected float32 [5, 3]"));
    call.layers = 2;
    call.width = 3;
    CHECK(lg_open_checked(&call, &guard) == LG_OK && call.fault_count == 0);
    lg_close(guard);
}

static void check_sources(char const *const folder)
{
    char path[1024];
    lg_guard *guard = (lg_guard *)path;
    CHECK(snprintf(path, sizeof path, "%s/ok-lcf.npz", folder) < (int)sizeof path);
    lg_open_call call = call_of(NULL, 0);
    CHECK(lg_open_checked(&call, NULL) == LG_ERR_NULL);
    CHECK(lg_open_checked(NULL, &guard) == LG_ERR_NULL && !guard);
    CHECK(lg_open_checked(&call, &guard) == LG_ERR_NULL);
    call.path = path;
    CHECK(lg_open_checked(&call, &guard) == LG_OK);
    lg_close(guard);
    call.path = "/";
    CHECK(lg_open_checked(&call, &guard) == LG_ERR_FILE && call.fault_count == 1 && faults[0]);
    call = call_of(NULL, 0);
    call.archive = "PK";
    call.archive_size = 2;
    CHECK(lg_open_checked(&call, &guard) == LG_ERR_ARCHIVE && call.fault_count == 1);
    call = call_of(sound, 0);
    CHECK(lg_open_checked(&call, &guard) == LG_ERR_PARAMETERS && call.fault_count == 1);
    call.detector = "lcf";
    CHECK(lg_open_checked(&call, &guard) == LG_ERR_PARAMETERS && call.fault_count == ARRAYS);
    CHECK(strstr(faults, "lcf/precision is missing; expected float64 [L, L]; calibrate again"));
    call = call_of(sound, 1025);
    CHECK(lg_open_checked(&call, &guard) == LG_ERR_LIMIT);
    call.struct_size = 1;
    CHECK(lg_open_checked(&call, &guard) == LG_ERR_STRUCT_SIZE && !guard);
}

static void check_tables(void)
{
    size_t kinds = 1;
    CHECK(strcmp(lg_detector_name(0), "agent_siren") == 0);
    for (; lg_detector_name(kinds); kinds++)
        CHECK(strcmp(lg_detector_name(kinds - 1), lg_detector_name(kinds)) < 0);
    CHECK(strcmp(lg_detector_name(kinds - 1), "weightwatch") == 0);
    lg_parameter_info info = {.struct_size = sizeof info};
    CHECK(lg_parameter_describe("lcf", 1, &info) == LG_OK);
    CHECK(strcmp(info.name, "sigma") == 0 && strcmp(info.dtype, "float32") == 0);
    CHECK(strcmp(info.sides, "LD") == 0 && info.positive && !info.other_dtype);
    CHECK(lg_parameter_describe("weightwatch", 0, &info) == LG_OK);
    CHECK(strcmp(info.other_dtype, "float16") == 0 && !info.positive && !info.ascending);
    CHECK(lg_parameter_describe("lcf", 7, &info) == LG_OK);
    CHECK(strcmp(info.name, "clean_scores") == 0 && info.ascending);
    CHECK(lg_parameter_describe("lcf", 10, &info) == LG_ERR_INDEX);
    CHECK(lg_parameter_describe("oracle", 0, &info) == LG_ERR_INDEX);
    CHECK(lg_parameter_describe(NULL, 0, &info) == LG_ERR_NULL);
    CHECK(lg_parameter_describe("lcf", 0, NULL) == LG_ERR_NULL);
}

int main(int const count, char **const arguments)
{
    CHECK(count == 2);
    check_arrays();
    check_strange_arrays();
    check_list();
    check_model();
    check_sources(arguments[1]);
    check_tables();
    return 0;
}
