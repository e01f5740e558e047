/* The directory of a zip archive; see the header.
 *
 * Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.16 (its
 * end) and 4.5.3 (zip64, which numpy writes into local headers whatever a member's size).
 */
#include <stdlib.h> /* free, malloc */
#include <string.h> /* memcmp, memcpy, strcmp */

#include "zip.h"

enum { LOCAL = 30, ENTRY = 46, END = 22 };
enum { ENCRYPTED = 1, SIZES_FOLLOW = 8, KNOWN_FLAGS = 2 | 4 | 8 | 1 << 11 };
enum { STORED = 0, DEFLATED = 8 };

/* The largest number of bytes that one deflated byte can give. */
enum { MOST_OF_ONE_BYTE = 1032 };

static uint32_t two(unsigned char const *const bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8;
}

static uint32_t four(unsigned char const *const bytes)
{
    return two(bytes) | two(bytes + 2) << 16;
}

/* Whether the bytes start with the signature "PK" and these two characters. */
static int starts(unsigned char const *const bytes, char const third, char const fourth)
{
    return bytes[0] == 'P' && bytes[1] == 'K' && bytes[2] == third && bytes[3] == fourth;
}

static lg_status damaged(lg_faults *const faults, char const *const what)
{
    return lg_refuse(faults, LG_ERR_ARCHIVE, "the archive %s; copy the bundle again", what);
}

/* Number of characters of [a-z0-9_] at `text`, at most 64. */
static size_t word(unsigned char const *const text, size_t const length)
{
    size_t i = 0;
    while (i < length && i < 64
           && ((text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9')
               || text[i] == '_'))
        i++;
    return i;
}

/* Whether the text is <detector>/<name>.npy. */
static int plain_name(unsigned char const *const text, size_t const length)
{
    size_t const detector = word(text, length);
    if (!detector || detector == length || text[detector] != '/')
        return 0;
    size_t const name = word(text + detector + 1, length - detector - 1);
    size_t const both = detector + 1 + name;
    return name && length == both + 4 && memcmp(text + both, ".npy", 4) == 0;
}

/* Refuses a member by its name, shown shortened and with printable characters only. */
static lg_status strange_name(unsigned char const *const text, size_t const length,
                              lg_faults *const faults)
{
    char shown[61];
    size_t const count = length < sizeof shown - 1 ? length : sizeof shown - 1;
    for (size_t i = 0; i < count; i++)
        shown[i] = (char)(text[i] >= ' ' && text[i] <= '~' ? text[i] : '?');
    shown[count] = '\0';
    return lg_refuse(faults, LG_ERR_ARCHIVE,
                     "the archive has a member '%s'; expected <detector>/<name>.npy", shown);
}

/* Whether the sizes of a local header match the directory. They are in the header, in a zip64 field
 * or after the data. */
static int same_sizes(lg_source const *const source, lg_member const *const member,
                      unsigned char const local[LOCAL], size_t const extra)
{
    if (two(local + 6) & SIZES_FOLLOW)
        return 1;
    if (four(local + 14) != member->checksum)
        return 0;
    uint32_t const packed = four(local + 18), unpacked = four(local + 22);
    if (packed != UINT32_MAX && unpacked != UINT32_MAX)
        return packed == member->packed && unpacked == member->unpacked;
    unsigned char field[20]; /* id, length, unpacked and packed, eight bytes each */
    if (packed != unpacked || two(local + 28) < sizeof field
        || !lg_source_read(source, extra, field, sizeof field))
        return 0;
    return two(field) == 1 && two(field + 2) == 16 && four(field + 4) == member->unpacked
           && four(field + 8) == 0 && four(field + 12) == member->packed && four(field + 16) == 0;
}

/* Reads a member's local header at `offset`, which must match the directory. */
static lg_status check_local(lg_source const *const source, size_t const offset,
                             unsigned char const *const entry, lg_member *const member,
                             lg_faults *const faults)
{
    unsigned char local[LOCAL], name[LG_MEMBER_NAME];
    size_t const length = strlen(member->name);
    int const read = lg_source_read(source, offset, local, LOCAL) && starts(local, 3, 4)
                     && two(local + 26) == length
                     && lg_source_read(source, offset + LOCAL, name, length);
    size_t const extra = offset + LOCAL + length;
    if (!read || memcmp(name, member->name, length) != 0 || two(local + 6) != two(entry + 8)
        || two(local + 8) != two(entry + 10) || !same_sizes(source, member, local, extra))
        return lg_refuse(faults, LG_ERR_ARCHIVE,
                         "the archive's directory and member '%s' differ; copy the bundle again",
                         member->name);
    member->start = extra + two(local + 28);
    return LG_OK;
}

/* Reads one entry of the directory; it is followed by its name of `length` bytes. */
static lg_status read_entry(unsigned char const *const entry, size_t const length,
                            lg_member *const member, lg_faults *const faults)
{
    unsigned char const *const name = entry + ENTRY;
    if (!plain_name(name, length))
        return strange_name(name, length, faults);
    memset(member, 0, sizeof *member);
    memcpy(member->name, name, length);
    uint32_t const flags = two(entry + 8), method = two(entry + 10);
    if (flags & ENCRYPTED || (flags & ~(uint32_t)KNOWN_FLAGS)
        || (method != STORED && method != DEFLATED))
        return lg_refuse(faults, LG_ERR_ARCHIVE,
                         "member '%s' is encrypted or packed by method %u; expected stored or "
                         "deflated",
                         member->name, (unsigned int)method);
    member->deflated = method == DEFLATED;
    member->checksum = four(entry + 16);
    member->packed = four(entry + 20);
    member->unpacked = four(entry + 24);
    if (two(entry + 6) > 45 || two(entry + 34) || member->packed == UINT32_MAX
        || member->unpacked == UINT32_MAX || four(entry + 42) == UINT32_MAX)
        return lg_refuse(faults, LG_ERR_ARCHIVE,
                         "member '%s' has a directory entry of a later zip format, of zip64, or of "
                         "several disks; expected none",
                         member->name);
    if (member->deflated ? member->unpacked / MOST_OF_ONE_BYTE > member->packed
                         : member->unpacked != member->packed)
        return lg_refuse(faults, LG_ERR_ARCHIVE,
                         "member '%s' claims %zu bytes packed in %zu, which cannot be",
                         member->name, member->unpacked, member->packed);
    return LG_OK;
}

/* Whether an earlier member has the name of number `count`. */
static int is_duplicate(lg_member const *const members, size_t const count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(members[i].name, members[count].name) == 0)
            return 1;
    return 0;
}

/* Reads all entries. Members must be in the directory's order and must not overlap one another or
 * the directory. */
static lg_status read_entries(lg_source const *const source, unsigned char const *const directory,
                              size_t const start, size_t const size, size_t const max_bytes,
                              lg_member *const members, size_t const count, lg_faults *const faults)
{
    size_t place = 0, free_from = 0, total = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned char const *const entry = directory + place;
        if (size - place < ENTRY || !starts(entry, 1, 2))
            return damaged(faults, "has a truncated directory");
        size_t const length = two(entry + 28);
        size_t const whole = ENTRY + length + two(entry + 30) + two(entry + 32);
        if (size - place < whole)
            return damaged(faults, "has a truncated directory");
        lg_status status = read_entry(entry, length, &members[i], faults);
        if (status != LG_OK)
            return status;
        size_t const offset = four(entry + 42);
        if (is_duplicate(members, i))
            return lg_refuse(faults, LG_ERR_ARCHIVE, "member '%s' appears twice; expected once",
                             members[i].name);
        status = check_local(source, offset, entry, &members[i], faults);
        if (status != LG_OK)
            return status;
        if (offset < free_from || (i == 0 && offset) || members[i].start > start
            || members[i].packed > start - members[i].start)
            return lg_refuse(faults, LG_ERR_ARCHIVE,
                             "member '%s' overlaps another or the directory, or is out of order",
                             members[i].name);
        free_from = members[i].start + members[i].packed;
        if (members[i].unpacked > max_bytes - total)
            return lg_refuse(faults, LG_ERR_LIMIT,
                             "the archive unpacks to more than %zu bytes, the limit", max_bytes);
        total += members[i].unpacked;
        place += whole;
    }
    return place == size ? LG_OK : damaged(faults, "has extra bytes after its directory");
}

lg_status lg_zip_directory(lg_source const *const source, size_t const max_bytes,
                           lg_member *const members, size_t *const count, lg_faults *const faults)
{
    unsigned char end[END];
    size_t const place = source->size < END ? 0 : source->size - END;
    if (!lg_source_read(source, place, end, END) || !starts(end, 5, 6) || two(end + 20))
        return damaged(faults, "does not end like a zip archive without a comment");
    size_t const here = two(end + 8), all = two(end + 10);
    size_t const size = four(end + 12), start = four(end + 16);
    if (here != all || two(end + 4) || two(end + 6) || start > place || size != place - start)
        return damaged(faults, "has its directory at another place than its end record says");
    if (all > LG_MOST_MEMBERS)
        return lg_refuse(faults, LG_ERR_LIMIT, "the archive has %zu members; expected at most %d",
                         all, LG_MOST_MEMBERS);
    if (size / (ENTRY + 3 * (size_t)UINT16_MAX) > all)
        return damaged(faults, "has extra bytes after its directory");
    unsigned char *const directory = malloc(size ? size : 1);
    if (!directory)
        return lg_refuse(faults, LG_ERR_MEMORY, "no memory for a directory of %zu bytes", size);
    lg_status const status
        = lg_source_read(source, start, directory, size)
              ? read_entries(source, directory, start, size, max_bytes, members, all, faults)
              : damaged(faults, "cannot be read to its end");
    free(directory);
    *count = all;
    return status;
}
