/* Replays the fuzzer's corpus: every archive is refused with the status that its name begins with,
 * or opens and is worked with; and so is every beginning of each, in memory that ends there.
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
    if (status != words[word].status)
        fprintf(stderr, "%s: %s: %s\n", name, lg_strerror(status), message);
    CHECK(status == words[word].status);
    CHECK(status == LG_OK || strlen(message) > 10);
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
    CHECK(replayed > 30);
    return 0;
}
