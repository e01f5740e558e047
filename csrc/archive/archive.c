/* Reads the arrays of a detectors.npz. No size is used before all headers agree on it. */
#include <stdint.h> /* PTRDIFF_MAX */
#include <stdlib.h> /* free, malloc */
#include <string.h> /* memcmp, memcpy, strchr, strlen */

#include "archive.h"
#include "unpack.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "arrays are read without byte swapping: only little-endian processors are supported"
#endif

enum { MAGIC = 8, LONGEST_HEADER = 4096 };

static lg_status bad_array(lg_array const *const array, char const *const what,
                           lg_faults *const faults)
{
    return lg_refuse(faults, LG_ERR_ARRAY, "member '%s' %s; calibrate again", array->name, what);
}

/* Reads the header: magic, version, length, dictionary. */
static lg_status read_header(lg_unpack *const unpack, lg_array *const array,
                             lg_faults *const faults)
{
    unsigned char start[MAGIC + 4];
    char header[LONGEST_HEADER];
    lg_status status = lg_unpack_read(unpack, start, MAGIC + 2);
    if (status != LG_OK)
        return status;
    if (memcmp(start, "\x93NUMPY", 6) != 0 || start[6] < 1 || start[6] > 2 || start[7] != 0)
        return bad_array(array, "is not an npy file of version 1.0 or 2.0", faults);
    size_t length = start[8] | (size_t)start[9] << 8;
    if (start[6] == 2) {
        status = lg_unpack_read(unpack, start + MAGIC + 2, 2);
        if (status != LG_OK)
            return status;
        length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
    }
    if (length > LONGEST_HEADER)
        return bad_array(array, "has a header of more than 4096 characters", faults);
    status = lg_unpack_read(unpack, header, length);
    if (status != LG_OK)
        return status;
    char const *const wrong = lg_npy_parse(header, length, &array->npy);
    return wrong ? bad_array(array, wrong, faults) : LG_OK;
}

/* Whether the elements take exactly the remaining bytes of the member. Sets their number. */
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
                            lg_faults *const faults)
{
    lg_status status = read_header(unpack, array, faults);
    if (status != LG_OK)
        return status;
    size_t const left = unpack->member->unpacked - unpack->produced;
    if (!fits(array, left))
        return bad_array(array, "has a size that does not match its shape", faults);
    array->data = lg_allocate(memory, left, 1);
    if (!array->data)
        return lg_refuse(faults, LG_ERR_MEMORY, "no memory for the %zu bytes of member '%s'", left,
                         array->name);
    array->dtype = lg_type_name(array->npy.type);
    status = lg_unpack_read(unpack, array->data, left);
    return status == LG_OK ? lg_unpack_end(unpack) : status;
}

static lg_status read_member(lg_source const *const source, lg_member const *const member,
                             lg_array *const array, lg_memory *const memory,
                             lg_faults *const faults)
{
    memcpy(array->name, member->name, strlen(member->name) - strlen(".npy"));
    lg_unpack unpack;
    lg_status status = lg_unpack_open(&unpack, source, member, faults);
    if (status != LG_OK)
        return status;
    status = read_array(&unpack, array, memory, faults);
    lg_unpack_close(&unpack);
    return status;
}

lg_status lg_archive_read(lg_archive *const archive, lg_source const *const source,
                          size_t const max_bytes, lg_memory *const memory, lg_faults *const faults)
{
    lg_member *const members = malloc(LG_MOST_MEMBERS * sizeof *members);
    archive->arrays = lg_allocate(memory, LG_MOST_MEMBERS, sizeof *archive->arrays);
    archive->count = 0;
    lg_status status = LG_ERR_MEMORY;
    if (!members || !archive->arrays)
        lg_refuse(faults, status, "no memory for the names of the members");
    else
        status = lg_zip_directory(source, max_bytes, members, &archive->count, faults);
    for (size_t i = 0; status == LG_OK && i < archive->count; i++)
        status = read_member(source, &members[i], &archive->arrays[i], memory, faults);
    free(members);
    return status;
}

/* Whether the array has a valid name, a dtype and a shape. */
static int is_valid(lg_named_array const *const source)
{
    return source->name && source->dtype && strlen(source->name) < LG_MEMBER_NAME
           && strchr(source->name, '/') && (!source->rank || source->sides);
}

/* Number of elements, or LG_UNCOUNTED if they exceed the address space. */
#define LG_UNCOUNTED ((size_t)-1)
static size_t count_elements(lg_named_array const *const source, size_t const size)
{
    size_t count = 1;
    for (size_t i = 0; i < source->rank; i++) {
        if (source->sides[i] && count > (size_t)PTRDIFF_MAX / size / source->sides[i])
            return LG_UNCOUNTED;
        count *= source->sides[i];
    }
    return count;
}

static lg_status copy_array(lg_named_array const *const source, lg_array *const array,
                            lg_memory *const memory, lg_faults *const faults)
{
    memcpy(array->name, source->name, strlen(source->name));
    array->dtype = source->dtype;
    array->npy.type = lg_type_named(source->dtype);
    array->npy.rank = source->rank;
    for (size_t i = 0; i < LG_MOST_SIDES; i++)
        array->npy.sides[i] = i < source->rank ? source->sides[i] : 1;
    if (array->npy.type == LG_TYPES || source->rank > LG_MOST_SIDES)
        return LG_OK; /* the check of the parameters reports it */
    size_t const size = lg_type_size(array->npy.type);
    array->count = count_elements(source, size);
    array->data = array->count == LG_UNCOUNTED ? NULL : lg_allocate(memory, array->count, size);
    if (!array->data)
        return lg_refuse(faults, LG_ERR_MEMORY, "no memory for %s", array->name);
    if (array->count && !source->data)
        return lg_refuse(faults, LG_ERR_NULL, "%s has no data", array->name);
    if (array->count)
        memcpy(array->data, source->data, array->count * size);
    return LG_OK;
}

lg_status lg_archive_copy(lg_archive *const archive, lg_named_array const *const arrays,
                          size_t const count, lg_memory *const memory, lg_faults *const faults)
{
    if (count > LG_MOST_MEMBERS)
        return lg_refuse(faults, LG_ERR_LIMIT, "%zu arrays; expected at most %d", count,
                         LG_MOST_MEMBERS);
    archive->arrays = lg_allocate(memory, count, sizeof *archive->arrays);
    if (!archive->arrays)
        return lg_refuse(faults, LG_ERR_MEMORY, "no memory for the names of the arrays");
    for (size_t i = 0; i < count; i++) {
        if (!is_valid(&arrays[i]))
            return lg_refuse(faults, LG_ERR_NULL,
                             "array %zu has no name of the form <detector>/<name>, no dtype or no "
                             "sides",
                             i);
        lg_status const status = copy_array(&arrays[i], &archive->arrays[i], memory, faults);
        archive->count = i + 1;
        if (status != LG_OK)
            return status;
    }
    return LG_OK;
}
