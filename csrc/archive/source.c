/* The bytes of an archive, in memory or in a file that is read on demand. */
#define _POSIX_C_SOURCE 200809L /* open, pread */
#define _FILE_OFFSET_BITS 64

#include <errno.h>  /* errno, EINTR */
#include <fcntl.h>  /* open */
#include <string.h> /* memcpy, strerror_r */
#include <unistd.h> /* close, lseek, pread */

#include "source.h"

lg_status lg_source_open(lg_source *const source, char const *const path, lg_faults *const faults)
{
    *source = (lg_source){.file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (source->file < 0) {
        char words[64];
        if (strerror_r(errno, words, sizeof words) != 0)
            words[0] = '\0';
        return lg_refuse(faults, LG_ERR_FILE, "the file cannot be opened: %s", words);
    }
    /* lseek fails on a pipe, pread on a folder; fstat would require a newer libc */
    char first;
    off_t const end = lseek(source->file, 0, SEEK_END);
    if (end < 0 || pread(source->file, &first, 1, 0) < 0) {
        lg_source_close(source);
        return lg_refuse(faults, LG_ERR_FILE,
                         "the path is not a regular file; expected detectors.npz");
    }
    source->size = (size_t)end;
    return LG_OK;
}

void lg_source_close(lg_source const *const source)
{
    if (!source->bytes && source->file >= 0)
        close(source->file);
}

int lg_source_read(lg_source const *const source, size_t const offset, void *const out,
                   size_t const count)
{
    if (offset > source->size || count > source->size - offset)
        return 0;
    if (source->bytes) {
        if (count)
            memcpy(out, source->bytes + offset, count);
        return 1;
    }
    for (size_t done = 0; done < count;) {
        ssize_t const got
            = pread(source->file, (char *)out + done, count - done, (off_t)(offset + done));
        if (got == 0 || (got < 0 && errno != EINTR))
            return 0; /* the file was truncated, or reading failed */
        done += got > 0 ? (size_t)got : 0;
    }
    return 1;
}
