/* Replays the fuzzer's corpus. Every archive is refused with the status that its name starts with and
 * a message that names the fault, or opens and is used. Every truncated archive is refused, in memory
 * that ends where the archive does.
 *     test_corpus FOLDER */
#define _POSIX_C_SOURCE 200809L /* opendir */

#include <dirent.h>

#include "check.h"
#include "fuzz_npz.h"

static struct {
    char const *word;
    lg_status status;
} const words[] = {
    {"ok-", LG_OK},           {"archive-", LG_ERR_ARCHIVE},       {"limit-", LG_ERR_LIMIT},
    {"array-", LG_ERR_ARRAY}, {"parameters-", LG_ERR_PARAMETERS},
};

/* The message for each archive. */
static struct {
    char const *name;
    char const *said;
} const faults[] = {
    {"archive-altered", "member 'lcf/mu.npy' was altered: its bytes do not match their checksum"},
    {"archive-before", "member 'lcf/mu.npy' overlaps another or the directory, or is out of order"},
    {"archive-beyond", "member 'lcf/mu.npy' overlaps another or the directory, or is out of order"},
    {"archive-bomb", "member 'lcf/mu.npy' claims 2130706432 bytes packed in 98, which cannot be"},
    {"archive-checksum", "the archive's directory and member 'lcf/mu.npy' differ"},
    {"archive-comment", "the archive does not end like a zip archive without a comment"},
    {"archive-empty", "the archive does not end like a zip archive without a comment"},
    {"archive-encrypted", "member 'lcf/mu.npy' is encrypted or packed by method 0"},
    {"archive-half", "the archive does not end like a zip archive without a comment"},
    {"archive-inside", "member 'lcf/mv.npy' overlaps another or the directory, or is out of order"},
    {"archive-method", "member 'lcf/mu.npy' is encrypted or packed by method 12"},
    {"archive-offset", "the archive has its directory at another place than its end record says"},
    {"archive-order", "member 'lcf/mv.npy' overlaps another or the directory, or is out of order"},
    {"archive-other", "the archive's directory and member 'lcf/mv.npy' differ"},
    {"archive-over", "member 'lcf/mu.npy' overlaps another or the directory, or is out of order"},
    {"archive-own-flags", "the archive's directory and member 'lcf/mu.npy' differ"},
    {"archive-own-method", "the archive's directory and member 'lcf/mu.npy' differ"},
    {"archive-own-packed", "the archive's directory and member 'lcf/mu.npy' differ"},
    {"archive-own-size", "the archive's directory and member 'lcf/mu.npy' differ"},
    {"archive-path", "a member '../lcf/mu.npy'; expected <detector>/<name>.npy"},
    {"archive-swells", "member 'lcf/mu.npy' holds more than it claims, or is cut off"},
    {"archive-twice", "member 'lcf/mu.npy' appears twice; expected once"},
    {"archive-zip64", "member 'lcf/mu.npy' has a directory entry of a later zip format, of zip64"},
    {"array-big-endian", "member 'lcf/mu' has a dtype that is not a little-endian float64"},
    {"array-call", "member 'lcf/mu' has a header that numpy does not write"},
    {"array-fortran", "member 'lcf/mu' is in Fortran order; expected C order"},
    {"array-huge", "member 'lcf/mu' has a size that does not match its shape"},
    {"array-pickled", "member 'lcf/mu' has a dtype that is not a little-endian float64"},
    {"array-sides", "member 'lcf/mu' has a size that does not match its shape"},
    {"limit-bytes", "the archive unpacks to more than 1048576 bytes, the limit"},
    {"limit-members", "the archive has 1025 members; expected at most 1024"},
    {"parameters-block", "the detectors were calibrated on models of different sizes"},
    {"parameters-deep", "siren/layers is [1, 3]; expected states within 0..2"},
    {"parameters-deep-alone", "the detectors were calibrated on models of different sizes"},
    {"parameters-domains", "decision/domains has 2; expected -1 (none) to 1"},
    {"parameters-dtype", "lcf/centre is float32 [2]; expected float64 [2]"},
    {"parameters-ends", "serving/domain_names and domain_ends do not match"},
    {"parameters-model", "lcf/mu is float32 [2, 3]; expected float32 [9, 9]"},
    {"parameters-nan", "lcf/mu has 6 values that are not finite"},
    {"parameters-neurons", "siren/neurons has indices outside 0..2"},
    {"parameters-nobody", "serving/policy is unknown, or no detector decides"},
    {"parameters-offsets", "siren/neuron_offsets is [0, 9, 3]; expected an ascending list from 0"},
    {"parameters-part",
     "delta/parts has values above 1; expected 0 for down_proj and 1 for o_proj"},
    {"parameters-places", "delta/layers is [1, 1, 2]; expected blocks and their parts ascending"},
    {"parameters-shape", "lcf/precision is float64 [3, 3]; expected float64 [2, 2]"},
    {"parameters-sigma", "lcf/sigma has values of zero or less; expected positive scales"},
    {"parameters-unknown", "lcf/more is unknown to this release"},
    {"parameters-wide", "siren/neurons has indices outside 0..2"},
    {"parameters-wide-alone", "the detectors were calibrated on models of different sizes"},
};

/* Whether a message is the expected one for the file <name>.npz. */
static int says(char const *const file, char const *const message)
{
    size_t const length = strlen(file) - strlen(".npz");
    for (size_t i = 0; i < COUNT(faults); i++)
        if (strlen(faults[i].name) == length && strncmp(file, faults[i].name, length) == 0)
            return strstr(message, faults[i].said) != NULL;
    return 0;
}

static uint8_t *read_file(char const *const folder, char const *const name, size_t *const size)
{
    static uint8_t bytes[1 << 17];
    char path[1024];
    CHECK(snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path);
    FILE *const file = fopen(path, "rb");
    CHECK(file != NULL);
    *size = fread(bytes, 1, sizeof bytes, file);
    CHECK(*size < sizeof bytes);
    fclose(file);
    uint8_t *const data = buffer(*size + 1, 1);
    memcpy(data, bytes, *size);
    return data;
}

static void replay(char const *const name, uint8_t const *const data, size_t const size)
{
    char message[MESSAGE];
    size_t word = 0;
    while (word < COUNT(words) && strncmp(name, words[word].word, strlen(words[word].word)) != 0)
        word++;
    CHECK(word < COUNT(words));
    lg_status const status = open_and_use(data, size, message);
    int const said = status == LG_OK ? !message[0] : says(name, message);
    if (status != words[word].status || !said)
        fprintf(stderr, "%s: %s: %s\n", name, lg_strerror(status), message);
    CHECK(status == words[word].status && said);
    for (size_t shorter = 0; shorter < size; shorter += 1 + size / 199) {
        uint8_t *const beginning = buffer(shorter + (shorter == 0), 1);
        memcpy(beginning, data, shorter);
        CHECK(open_and_use(beginning, shorter, message) != LG_OK);
        free(beginning);
    }
}

int main(int const count, char **const arguments)
{
    CHECK(count == 2);
    DIR *const folder = opendir(arguments[1]);
    CHECK(folder != NULL);
    size_t replayed = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        size_t size;
        if (!strstr(entry->d_name, ".npz"))
            continue;
        uint8_t *const data = read_file(arguments[1], entry->d_name, &size);
        replay(entry->d_name, data, size);
        free(data);
        replayed++;
    }
    closedir(folder);
    printf("%zu archives\n", replayed);
    CHECK(replayed >= COUNT(faults) + 6); /* six archives open */
    return 0;
}
