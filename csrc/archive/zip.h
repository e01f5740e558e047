/* A zip archive read as if it were hostile: its directory first, then one member after the other.
 *
 * Refused: members that overlap or lie out of order, stand twice, are encrypted, are packed by
 * another method than deflate, bear other names than <detector>/<name>.npy, or whose own header
 * differs from the directory; bytes before the first or after the directory; directories of the
 * zip64 format, which no archive within the limits needs.
 */
#ifndef LG_ZIP_H
#define LG_ZIP_H

#include <stdint.h> /* uint32_t */

#include "source.h"

/* "<detector>/<name>.npy", 64 letters each, and the end. */
enum { LG_MEMBER_NAME = 64 + 1 + 64 + 4 + 1 };

typedef struct lg_member {
    char name[LG_MEMBER_NAME];
    int deflated;
    uint32_t checksum; /* CRC-32 of what is unpacked */
    size_t packed;     /* bytes in the archive */
    size_t unpacked;
    size_t start; /* of its data in the archive */
} lg_member;

enum { LG_MOST_MEMBERS = 1024 };

/* Reads the directory and every member's header: `members`, (LG_MOST_MEMBERS), and how many. */
lg_status lg_zip_directory(lg_source const *source, size_t max_bytes, lg_member *members,
                           size_t *count, lg_fault const *fault);

#endif
