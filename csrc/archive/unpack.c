/* The bytes of one member of an archive; see the header. The one file that knows zlib.
 *
 * No more than was asked for is ever unpacked, so a member that swells costs nothing. */
#include "unpack.h"

/* A fuzzer would hardly ever get past a checksum: libFuzzer's documentation asks for this. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
enum { CHECKSUMS_COUNT = 0 };
#else
enum { CHECKSUMS_COUNT = 1 };
#endif

/* Bytes read at a time, so that they are still in the cache when their checksum is taken. */
enum { AT_ONCE = 1 << 17 };

lg_status lg_unpack_open(lg_unpack *const unpack, lg_source const *const source,
                         lg_member const *const member, lg_fault const *const fault)
{
    unpack->source = source;
    unpack->member = member;
    unpack->fault = fault;
    unpack->taken = unpack->given = 0;
    unpack->checksum = (uint32_t)crc32(0, NULL, 0);
    unpack->stream = (z_stream){0};
    if (member->deflated && inflateInit2(&unpack->stream, -MAX_WBITS) != Z_OK)
        return lg_refuse(fault, LG_ERR_MEMORY, "no memory to unpack member '%s'", member->name);
    return LG_OK;
}

static lg_status damaged(lg_unpack const *const unpack, char const *const what)
{
    return lg_refuse(unpack->fault, LG_ERR_ARCHIVE, "member '%s' %s; copy the bundle again",
                     unpack->member->name, what);
}

/* Gives zlib more packed bytes where it has none. */
static int refill(lg_unpack *const unpack)
{
    if (unpack->stream.avail_in)
        return 1;
    size_t const left = unpack->member->packed - unpack->taken;
    size_t const count = left < sizeof unpack->packed ? left : sizeof unpack->packed;
    if (!lg_source_read(unpack->source, unpack->member->start + unpack->taken, unpack->packed,
                        count))
        return 0;
    unpack->taken += count;
    unpack->stream.next_in = unpack->packed;
    unpack->stream.avail_in = (uInt)count;
    return 1;
}

static lg_status inflate_into(lg_unpack *const unpack, unsigned char *const out, size_t const count)
{
    z_stream *const stream = &unpack->stream;
    stream->next_out = out;
    stream->avail_out = (uInt)count;
    while (stream->avail_out) {
        if (!refill(unpack))
            return damaged(unpack, "cannot be read to its end");
        int const found = inflate(stream, Z_NO_FLUSH);
        if (found == Z_MEM_ERROR)
            return lg_refuse(unpack->fault, LG_ERR_MEMORY, "no memory to unpack member '%s'",
                             unpack->member->name);
        if (found != Z_OK && !(found == Z_STREAM_END && !stream->avail_out))
            return damaged(unpack, "cannot be unpacked to the size that it claims");
    }
    return LG_OK;
}

/* At most AT_ONCE of the next bytes. */
static lg_status read_part(lg_unpack *const unpack, unsigned char *const out, size_t const count)
{
    if (unpack->member->deflated) {
        lg_status const status = inflate_into(unpack, out, count);
        if (status != LG_OK)
            return status;
    } else if (!lg_source_read(unpack->source, unpack->member->start + unpack->given, out, count)) {
        return damaged(unpack, "cannot be read to its end");
    }
    unpack->checksum = (uint32_t)crc32(unpack->checksum, out, (uInt)count);
    unpack->given += count;
    return LG_OK;
}

lg_status lg_unpack_read(lg_unpack *const unpack, void *const out, size_t const count)
{
    if (count > unpack->member->unpacked - unpack->given)
        return damaged(unpack, "is shorter than its array");
    lg_status status = LG_OK;
    for (size_t done = 0; status == LG_OK && done < count; done += AT_ONCE)
        status = read_part(unpack, (unsigned char *)out + done,
                           count - done < AT_ONCE ? count - done : (size_t)AT_ONCE);
    return status;
}

/* Whether the deflated bytes end here, all of them used. */
static int stream_ends(lg_unpack *const unpack)
{
    unsigned char beyond;
    z_stream *const stream = &unpack->stream;
    int found;
    do { /* once at least: zlib may still hold the end that it has read */
        if (!refill(unpack))
            return 0;
        stream->next_out = &beyond;
        stream->avail_out = 1;
        found = inflate(stream, Z_NO_FLUSH);
        if (!stream->avail_out)
            return 0;
    } while (found == Z_OK);
    return found == Z_STREAM_END && !stream->avail_in && unpack->taken == unpack->member->packed;
}

lg_status lg_unpack_end(lg_unpack *const unpack)
{
    if (unpack->given != unpack->member->unpacked)
        return damaged(unpack, "is longer than its array");
    if (CHECKSUMS_COUNT && unpack->checksum != unpack->member->checksum)
        return damaged(unpack, "was altered: its bytes do not match their checksum");
    if (unpack->member->deflated && !stream_ends(unpack))
        return damaged(unpack, "holds more than it claims, or is cut off");
    return LG_OK;
}

void lg_unpack_close(lg_unpack *const unpack)
{
    if (unpack->member->deflated)
        inflateEnd(&unpack->stream);
}
