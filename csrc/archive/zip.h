/* Reads a zip archive as untrusted input: first the directory, then one member after the other.
 *
 * Refused are: members that overlap, are out of order, appear twice, are encrypted or use a method
 * other than stored or deflate; names other than <detector>/<name>.npy; local headers that differ
 * from the directory; bytes before the first member or after the directory; and zip64 directories,
 * which no archive within the size limits needs.
 */
#ifndef LG_ZIP_H
#define LG_ZIP_H

#include <stdint.h> /* uint32_t */

#include "source.h"

/* "<detector>/<name>.npy", 64 characters each, and the final zero. */
enum { LG_MEMBER_NAME = 64 + 1 + 64 + 4 + 1 };

typedef struct lg_member {
    char name[LG_MEMBER_NAME];
    int deflated;
    uint32_t checksum; /* CRC-32 of the unpacked bytes */
    size_t packed;     /* bytes in the archive */
    size_t unpacked;
    size_t start; /* of its data in the archive */
} lg_member;

enum { LG_MOST_MEMBERS = 1024 };

/* Reads the directory and every member's header into `members`, (LG_MOST_MEMBERS), and `count`. */
lg_status lg_zip_directory(lg_source const *source, size_t max_bytes, lg_member *members,
                           size_t *count, lg_faults *faults);

#endif
