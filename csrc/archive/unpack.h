/* The bytes of one member of an archive, from its first to its last, whether stored or deflated. */
#ifndef LG_UNPACK_H
#define LG_UNPACK_H

#define ZLIB_CONST /* zlib then takes what it reads as const */
#include <zlib.h>  /* z_stream */

#include "zip.h"

typedef struct lg_unpack {
    lg_source const *source;
    lg_member const *member;
    lg_fault const *fault;
    size_t taken;      /* packed bytes read */
    size_t given;      /* unpacked bytes given out */
    uint32_t checksum; /* of those */
    z_stream stream;   /* used where the member is deflated */
    unsigned char packed[16384];
} lg_unpack;

lg_status lg_unpack_open(lg_unpack *unpack, lg_source const *source, lg_member const *member,
                         lg_fault const *fault);

/* The next `count` bytes. */
lg_status lg_unpack_read(lg_unpack *unpack, void *out, size_t count);

/* Whether what was given out was all there is, and matches its checksum. */
lg_status lg_unpack_end(lg_unpack *unpack);

void lg_unpack_close(lg_unpack *unpack);

#endif
