/* The faults of an archive; see the header. */
#include <stdarg.h> /* va_list */
#include <stdio.h>  /* vsnprintf */
#include <string.h> /* memcpy */

#include "faults.h"

/* Longer messages are truncated. */
enum { LONGEST = 512 };

/* Appends a whole line or nothing. After a line that did not fit, no later one is appended. */
static void append(lg_faults *const faults, char const *const line, size_t const length)
{
    size_t const start = faults->needed ? faults->needed - 1 : 0;
    faults->needed = start + length + 2; /* with the newline and the final zero */
    if (!faults->list || faults->needed > faults->list_size)
        return;
    memcpy(faults->list + start, line, length);
    faults->list[start + length] = '\n';
    faults->list[start + length + 1] = '\0';
}

lg_status lg_refuse(lg_faults *const faults, lg_status const status, char const *const format, ...)
{
    char line[LONGEST];
    va_list arguments;
    va_start(arguments, format);
    int const length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    size_t const written = length < 0 ? 0 : length < LONGEST ? (size_t)length : (size_t)LONGEST - 1;
    if (!faults->count++) {
        faults->status = status;
        if (faults->message && faults->message_size) {
            size_t const most = faults->message_size - 1;
            size_t const shown = written < most ? written : most;
            memcpy(faults->message, line, shown);
            faults->message[shown] = '\0';
        }
    }
    append(faults, line, written);
    return status;
}
