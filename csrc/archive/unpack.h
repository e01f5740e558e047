/* Reads the bytes of one stored or deflated member of an archive in order. */
#ifndef LG_UNPACK_H
#define LG_UNPACK_H

#define ZLIB_CONST /* zlib declares its input as const */
#include <zlib.h>  /* z_stream */

#include "zip.h"

typedef struct lg_unpack {
    lg_source const *source;
    lg_member const *member;
    lg_faults *faults;
    size_t consumed;   /* packed bytes read */
    size_t produced;   /* unpacked bytes returned */
    uint32_t checksum; /* of the unpacked bytes so far */
    z_stream stream;   /* used where the member is deflated */
    unsigned char packed[16384];
} lg_unpack;

lg_status lg_unpack_open(lg_unpack *unpack, lg_source const *source, lg_member const *member,
                         lg_faults *faults);

/* Reads the next `count` bytes. */
lg_status lg_unpack_read(lg_unpack *unpack, void *out, size_t count);

/* Checks that all bytes were read and match the checksum. */
lg_status lg_unpack_end(lg_unpack *unpack);

void lg_unpack_close(lg_unpack *unpack);

#endif
