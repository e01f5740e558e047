/* Checks of frozen arrays that all detectors share; see the header. */
#include <math.h>   /* isfinite */
#include <stdint.h> /* uint16_t */
#include <stdio.h>  /* snprintf */
#include <string.h> /* strcmp, strlen, strncmp */

#include "parameters.h"

lg_array *lg_find(lg_binding const *const binding, char const *const name)
{
    size_t const length = strlen(binding->group);
    for (size_t i = 0; i < binding->archive->count; i++) {
        lg_array *const array = &binding->archive->arrays[i];
        if (strncmp(array->name, binding->group, length) == 0 && array->name[length] == '/'
            && strcmp(array->name + length + 1, name) == 0) {
            array->used = 1;
            return array;
        }
    }
    return NULL;
}

int lg_has_group(lg_archive const *const archive, char const *const group)
{
    size_t const length = strlen(group);
    for (size_t i = 0; i < archive->count; i++)
        if (strncmp(archive->arrays[i].name, group, length) == 0
            && archive->arrays[i].name[length] == '/')
            return 1;
    return 0;
}

lg_status lg_unfit(lg_binding const *const binding, char const *const name, char const *const what)
{
    return lg_refuse(binding->fault, LG_ERR_PARAMETERS, "%s/%s %s; calibrate again", binding->group,
                     name, what);
}

lg_status lg_no_memory(lg_binding const *const binding)
{
    return lg_refuse(binding->fault, LG_ERR_MEMORY, "no memory for the parameters of %s",
                     binding->group);
}

/* "float32 [3, any]" */
static char const *shown(char text[64], lg_type const type, size_t const rank, size_t const sides[])
{
    int at = snprintf(text, 64, "%s [", lg_type_name(type));
    for (size_t i = 0; i < rank && at > 0 && at < 64; i++) {
        char const *const comma = i ? ", " : "";
        at += sides[i] == LG_ANY_SIDE
                  ? snprintf(text + at, (size_t)(64 - at), "%sany", comma)
                  : snprintf(text + at, (size_t)(64 - at), "%s%zu", comma, sides[i]);
    }
    if (at > 0 && at < 64)
        snprintf(text + at, (size_t)(64 - at), "]");
    return text;
}

/* Whether every element is finite; integers are. Eight are taken together: no early way out. */
static int finite(lg_array const *const array)
{
    int good = 1;
    if (array->npy.type == LG_TYPE_F64)
        for (size_t i = 0; i < array->count; i++)
            good &= isfinite(((double const *)array->data)[i]) != 0;
    else if (array->npy.type == LG_TYPE_F32)
        for (size_t i = 0; i < array->count; i++)
            good &= isfinite(((float const *)array->data)[i]) != 0;
    else if (array->npy.type == LG_TYPE_F16)
        for (size_t i = 0; i < array->count; i++)
            good &= (((uint16_t const *)array->data)[i] & 0x7c00) != 0x7c00;
    return good;
}

static int above_zero(lg_array const *const array)
{
    int good = 1;
    if (array->npy.type == LG_TYPE_F64)
        for (size_t i = 0; i < array->count; i++)
            good &= ((double const *)array->data)[i] > 0.0;
    else
        for (size_t i = 0; i < array->count; i++)
            good &= ((float const *)array->data)[i] > 0.0f;
    return good;
}

lg_status lg_need(lg_binding const *const binding, lg_expected const *const expected,
                  lg_array const **const array)
{
    char wanted[64], found[64];
    shown(wanted, expected->type, expected->rank, expected->sides);
    lg_array const *const it = *array = lg_find(binding, expected->name);
    if (!it)
        return lg_refuse(binding->fault, LG_ERR_PARAMETERS, "%s/%s is missing; expected %s",
                         binding->group, expected->name, wanted);
    int same = it->npy.type == expected->type && it->npy.rank == expected->rank;
    for (size_t i = 0; same && i < expected->rank; i++)
        same = expected->sides[i] == LG_ANY_SIDE || expected->sides[i] == it->npy.sides[i];
    if (!same)
        return lg_refuse(binding->fault, LG_ERR_PARAMETERS, "%s/%s is %s; expected %s",
                         binding->group, expected->name,
                         shown(found, it->npy.type, it->npy.rank, it->npy.sides), wanted);
    if (!finite(it))
        return lg_unfit(binding, expected->name, "has values that are not finite");
    if (expected->positive && !above_zero(it))
        return lg_unfit(binding, expected->name,
                        "has values of zero or less; expected positive scales");
    return LG_OK;
}

lg_status lg_need_all(lg_binding const *const binding, size_t const count,
                      lg_expected const *const expected, lg_array const **const arrays)
{
    lg_status status = LG_OK;
    for (size_t i = 0; status == LG_OK && i < count; i++)
        status = lg_need(binding, &expected[i], &arrays[i]);
    return status;
}
