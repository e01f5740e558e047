/* Unpacks one member of an archive; see the header. Only this file calls zlib.
 *
 * Only the bytes that were requested are unpacked, so a zip bomb needs no memory. */
#include "unpack.h"

/* Fuzzing skips the checksum, which random input would never match (libFuzzer documentation). */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
enum { CHECKSUMS_COUNT = 0 };
#else
enum { CHECKSUMS_COUNT = 1 };
#endif

/* Bytes read at a time: they are still in the cache when the checksum is computed. */
enum { AT_ONCE = 1 << 17 };

lg_status lg_unpack_open(lg_unpack *const unpack, lg_source const *const source,
                         lg_member const *const member, lg_faults *const faults)
{
    unpack->source = source;
    unpack->member = member;
    unpack->faults = faults;
    unpack->consumed = unpack->produced = 0;
    unpack->checksum = (uint32_t)crc32(0, NULL, 0);
    unpack->stream = (z_stream){0};
    if (member->deflated && inflateInit2(&unpack->stream, -MAX_WBITS) != Z_OK)
        return lg_refuse(faults, LG_ERR_MEMORY, "no memory to unpack member '%s'", member->name);
    return LG_OK;
}

static lg_status damaged(lg_unpack const *const unpack, char const *const what)
{
    return lg_refuse(unpack->faults, LG_ERR_ARCHIVE, "member '%s' %s; copy the bundle again",
                     unpack->member->name, what);
}

/* Gives zlib more packed bytes if it has none left. */
static int refill(lg_unpack *const unpack)
{
    if (unpack->stream.avail_in)
        return 1;
    size_t const left = unpack->member->packed - unpack->consumed;
    size_t const count = left < sizeof unpack->packed ? left : sizeof unpack->packed;
    if (!lg_source_read(unpack->source, unpack->member->start + unpack->consumed, unpack->packed,
                        count))
        return 0;
    unpack->consumed += count;
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
        int const result = inflate(stream, Z_NO_FLUSH);
        if (result == Z_MEM_ERROR)
            return lg_refuse(unpack->faults, LG_ERR_MEMORY, "no memory to unpack member '%s'",
                             unpack->member->name);
        if (result != Z_OK && !(result == Z_STREAM_END && !stream->avail_out))
            return damaged(unpack, "cannot be unpacked to the size that it claims");
    }
    return LG_OK;
}

/* Reads the next bytes, at most AT_ONCE. */
static lg_status read_part(lg_unpack *const unpack, unsigned char *const out, size_t const count)
{
    if (unpack->member->deflated) {
        lg_status const status = inflate_into(unpack, out, count);
        if (status != LG_OK)
            return status;
    } else if (!lg_source_read(unpack->source, unpack->member->start + unpack->produced, out,
                               count)) {
        return damaged(unpack, "cannot be read to its end");
    }
    unpack->checksum = (uint32_t)crc32(unpack->checksum, out, (uInt)count);
    unpack->produced += count;
    return LG_OK;
}

lg_status lg_unpack_read(lg_unpack *const unpack, void *const out, size_t const count)
{
    if (count > unpack->member->unpacked - unpack->produced)
        return damaged(unpack, "is shorter than its array");
    lg_status status = LG_OK;
    for (size_t done = 0; status == LG_OK && done < count; done += AT_ONCE)
        status = read_part(unpack, (unsigned char *)out + done,
                           count - done < AT_ONCE ? count - done : (size_t)AT_ONCE);
    return status;
}

/* Whether the deflated stream ends here and all its bytes were used. */
static int stream_ends(lg_unpack *const unpack)
{
    unsigned char beyond;
    z_stream *const stream = &unpack->stream;
    int result;
    do { /* at least once: zlib may not have processed the end marker yet */
        if (!refill(unpack))
            return 0;
        stream->next_out = &beyond;
        stream->avail_out = 1;
        result = inflate(stream, Z_NO_FLUSH);
        if (!stream->avail_out)
            return 0;
    } while (result == Z_OK);
    return result == Z_STREAM_END && !stream->avail_in
           && unpack->consumed == unpack->member->packed;
}

lg_status lg_unpack_end(lg_unpack *const unpack)
{
    if (unpack->produced != unpack->member->unpacked)
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
