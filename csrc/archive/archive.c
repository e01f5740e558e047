/* The arrays of a detectors.npz. Sizes are believed only once all headers agree on them. */
#include <stdlib.h> /* free, malloc */
#include <string.h> /* memcmp, strlen */

#include "archive.h"
#include "unpack.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "arrays are read as they lie in the archive: little-endian processors alone"
#endif

enum { MAGIC = 8, LONGEST_HEADER = 4096 };

static lg_status no_array(lg_array const *const array, char const *const what,
                          lg_fault const *const fault)
{
    return lg_refuse(fault, LG_ERR_ARRAY, "member '%s' %s; calibrate again", array->name, what);
}

/* Reads the header: magic, version, length, dictionary. */
static lg_status read_header(lg_unpack *const unpack, lg_array *const array,
                             lg_fault const *const fault)
{
    unsigned char start[MAGIC + 4];
    char header[LONGEST_HEADER];
    lg_status status = lg_unpack_read(unpack, start, MAGIC + 2);
    if (status != LG_OK)
        return status;
    if (memcmp(start, "\x93NUMPY", 6) != 0 || start[6] < 1 || start[6] > 2 || start[7] != 0)
        return no_array(array, "is no npy file of version 1.0 or 2.0", fault);
    size_t length = start[8] | (size_t)start[9] << 8;
    if (start[6] == 2) {
        status = lg_unpack_read(unpack, start + MAGIC + 2, 2);
        if (status != LG_OK)
            return status;
        length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
    }
    if (length > LONGEST_HEADER)
        return no_array(array, "has a header of more than 4096 letters", fault);
    status = lg_unpack_read(unpack, header, length);
    if (status != LG_OK)
        return status;
    char const *const wrong = lg_npy_parse(header, length, &array->npy);
    return wrong ? no_array(array, wrong, fault) : LG_OK;
}

/* The number of elements, where they are just the bytes that are left of the member. */
static int fits(lg_array *const array, size_t const left)
{
    size_t const size = lg_type_size(array->npy.type);
    size_t const *const sides = array->npy.sides;
    size_t count = left / size;
    if (left % size)
        return 0;
    array->count = count;
    if (!count)
        return !sides[0] || !sides[1] || !sides[2];
    for (size_t i = 0; i < LG_MOST_SIDES; i++) {
        if (!sides[i] || count % sides[i])
            return 0;
        count /= sides[i];
    }
    return count == 1;
}

static lg_status read_array(lg_unpack *const unpack, lg_array *const array, lg_memory *const memory,
                            lg_fault const *const fault)
{
    lg_status status = read_header(unpack, array, fault);
    if (status != LG_OK)
        return status;
    size_t const left = unpack->member->unpacked - unpack->given;
    if (!fits(array, left))
        return no_array(array, "has another size than its shape", fault);
    array->data = lg_keep(memory, left, 1);
    if (!array->data)
        return lg_refuse(fault, LG_ERR_MEMORY, "no memory for the %zu bytes of member '%s'", left,
                         array->name);
    status = lg_unpack_read(unpack, array->data, left);
    return status == LG_OK ? lg_unpack_end(unpack) : status;
}

static lg_status read_member(lg_source const *const source, lg_member const *const member,
                             lg_array *const array, lg_memory *const memory,
                             lg_fault const *const fault)
{
    memcpy(array->name, member->name, strlen(member->name) - strlen(".npy"));
    lg_unpack unpack;
    lg_status status = lg_unpack_open(&unpack, source, member, fault);
    if (status != LG_OK)
        return status;
    status = read_array(&unpack, array, memory, fault);
    lg_unpack_close(&unpack);
    return status;
}

lg_status lg_archive_read(lg_archive *const archive, lg_source const *const source,
                          size_t const max_bytes, lg_memory *const memory,
                          lg_fault const *const fault)
{
    lg_member *const members = malloc(LG_MOST_MEMBERS * sizeof *members);
    archive->arrays = lg_keep(memory, LG_MOST_MEMBERS, sizeof *archive->arrays);
    archive->count = 0;
    lg_status status = LG_ERR_MEMORY;
    if (!members || !archive->arrays)
        lg_refuse(fault, status, "no memory for the names of the members");
    else
        status = lg_zip_directory(source, max_bytes, members, &archive->count, fault);
    for (size_t i = 0; status == LG_OK && i < archive->count; i++)
        status = read_member(source, &members[i], &archive->arrays[i], memory, fault);
    free(members);
    return status;
}
