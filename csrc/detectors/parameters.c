/* Checks frozen arrays against the table that declares them; see the header. */
#include <math.h>   /* isfinite */
#include <stdarg.h> /* va_list */
#include <stdint.h> /* uint16_t */
#include <stdio.h>  /* snprintf, vsnprintf */
#include <string.h> /* strchr, strcmp, strlen, strncmp */

#include "parameters.h"

enum { NAME = LG_MEMBER_NAME, SHAPE = 128 };

lg_binding lg_binding_of(lg_archive const *const archive, char const *const group,
                         lg_memory *const memory, lg_faults *const faults)
{
    lg_binding binding = {archive, group, memory, faults, {0}};
    for (size_t i = 0; i < LG_LETTERS; i++)
        binding.lengths[i] = LG_UNKNOWN;
    return binding;
}

size_t lg_length(lg_binding const *const binding, char const letter)
{
    return binding->lengths[letter - 'A'];
}

void lg_set_length(lg_binding *const binding, char const letter, size_t const length)
{
    binding->lengths[letter - 'A'] = length;
}

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

/* "weight_#" and 3: "weight_3". */
static char const *numbered(char text[NAME], char const *const name, size_t const index)
{
    char const *const mark = strchr(name, '#');
    if (!mark)
        return name;
    snprintf(text, NAME, "%.*s%zu", (int)(mark - name), name, index);
    return text;
}

lg_array *lg_find_numbered(lg_binding const *const binding, char const *const name,
                           size_t const index)
{
    char text[NAME];
    return lg_find(binding, numbered(text, name, index));
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

size_t lg_numbered(lg_binding const *const binding, char const *const name)
{
    size_t const group = strlen(binding->group), length = strcspn(name, "#");
    size_t count = 0;
    for (size_t i = 0; i < binding->archive->count; i++) {
        char const *const member = binding->archive->arrays[i].name;
        count += strncmp(member, binding->group, group) == 0 && member[group] == '/'
                 && strncmp(member + group + 1, name, length) == 0;
    }
    return count ? count : 1;
}

lg_status lg_unfit(lg_binding const *const binding, char const *const name,
                   char const *const format, ...)
{
    char words[384];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    return lg_refuse(binding->faults, LG_ERR_PARAMETERS, "%s/%s %s; calibrate again",
                     binding->group, name, words);
}

lg_status lg_no_memory(lg_binding const *const binding)
{
    return lg_refuse(binding->faults, LG_ERR_MEMORY, "no memory for the parameters of %s",
                     binding->group);
}

char const *lg_show_integers(char text[LG_SHOWN], int const *const values, size_t const count)
{
    enum { FIRST = 8 };
    int at = snprintf(text, LG_SHOWN, "[");
    for (size_t i = 0; i < count; i++) {
        if (count > FIRST + 1 && i == FIRST) {
            at += snprintf(text + at, (size_t)(LG_SHOWN - at), ", ...");
            i = count - 1;
        }
        at += snprintf(text + at, (size_t)(LG_SHOWN - at), i ? ", %d" : "%d", values[i]);
    }
    snprintf(text + at, (size_t)(LG_SHOWN - at), "]");
    return text;
}

/* Dtype and shape of an array, such as "float32 [3, 16]". */
static char const *show_array(char text[SHAPE], lg_array const *const array)
{
    size_t const shown = array->npy.rank < LG_MOST_SIDES ? array->npy.rank : LG_MOST_SIDES;
    int at = snprintf(text, SHAPE, "%.24s [", array->dtype);
    for (size_t i = 0; i < shown; i++)
        at += snprintf(text + at, (size_t)(SHAPE - at), i ? ", %zu" : "%zu", array->npy.sides[i]);
    snprintf(text + at, (size_t)(SHAPE - at), shown < array->npy.rank ? ", ...]" : "]");
    return text;
}

/* The length that a character of `sides` requires, or LG_UNKNOWN. */
static size_t asked(lg_binding const *const binding, char const side)
{
    if (side >= '0' && side <= '9')
        return (size_t)(side - '0');
    return side == '*' ? LG_UNKNOWN : lg_length(binding, side);
}

/* The expected dtype and shape, such as "float32 [L, 16]": letters stand for unknown lengths. */
static char const *show_expected(char text[SHAPE], lg_binding const *const binding,
                                 lg_type const type, char const *const sides)
{
    int at = snprintf(text, SHAPE, "%s [", lg_type_name(type));
    for (size_t i = 0; sides[i]; i++) {
        size_t const length = asked(binding, sides[i]);
        char const letter[] = {sides[i], '\0'};
        at += snprintf(text + at, (size_t)(SHAPE - at), "%s", i ? ", " : "");
        at += length == LG_UNKNOWN ? snprintf(text + at, (size_t)(SHAPE - at), "%s",
                                              sides[i] == '*' ? "any" : letter)
                                   : snprintf(text + at, (size_t)(SHAPE - at), "%zu", length);
    }
    snprintf(text + at, (size_t)(SHAPE - at), "]");
    return text;
}

/* Whether the shape matches. Letters that are still unknown take the lengths of this array. */
static int fits(lg_binding *const binding, lg_array const *const array, char const *const sides)
{
    int good = array->npy.rank == strlen(sides);
    for (size_t i = 0; good && sides[i]; i++)
        if (sides[i] >= 'A' && sides[i] <= 'Z' && lg_length(binding, sides[i]) == LG_UNKNOWN)
            lg_set_length(binding, sides[i], array->npy.sides[i]);
    for (size_t i = 0; good && sides[i]; i++) {
        size_t const length = asked(binding, sides[i]);
        good = length == LG_UNKNOWN || length == array->npy.sides[i];
    }
    return good;
}

/* Number of elements that are not finite; 0 for integers. No early exit, so that the compiler
 * vectorises the loops. */
static size_t not_finite(lg_array const *const array)
{
    size_t count = 0;
    if (array->npy.type == LG_TYPE_F64)
        for (size_t i = 0; i < array->count; i++)
            count += isfinite(((double const *)array->data)[i]) ? 0u : 1u;
    else if (array->npy.type == LG_TYPE_F32)
        for (size_t i = 0; i < array->count; i++)
            count += isfinite(((float const *)array->data)[i]) ? 0u : 1u;
    else if (array->npy.type == LG_TYPE_F16)
        for (size_t i = 0; i < array->count; i++)
            count += (((uint16_t const *)array->data)[i] & 0x7c00) == 0x7c00;
    return count;
}

static int is_positive(lg_array const *const array)
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

/* For float64 arrays only. */
static int is_ascending(lg_array const *const array)
{
    double const *const values = array->data;
    int good = 1;
    for (size_t i = 1; i < array->count; i++)
        good &= !(values[i] < values[i - 1]);
    return good;
}

static lg_status check_values(lg_binding const *const binding, char const *const name,
                              lg_array const *const array, unsigned const constraints)
{
    size_t const strange = not_finite(array);
    if (strange)
        return lg_unfit(binding, name, "has %zu values that are not finite", strange);
    if (constraints & LG_NOT_EMPTY && !array->count)
        return lg_unfit(binding, name, "is empty; expected at least one value");
    if (constraints & LG_POSITIVE && !is_positive(array))
        return lg_unfit(binding, name, "has values of zero or less; expected positive scales");
    if (constraints & LG_ASCENDING && !is_ascending(array))
        return lg_unfit(binding, name, "is not sorted; expected ascending values");
    return LG_OK;
}

static lg_status check_one(lg_binding *const binding, lg_parameter const *const parameter,
                           char const *const name)
{
    char expected[SHAPE], found[SHAPE];
    lg_array const *const array = lg_find(binding, name);
    int const half = parameter->constraints & LG_OR_HALF && array && array->npy.type == LG_TYPE_F16;
    lg_type const type = half ? LG_TYPE_F16 : parameter->type;
    int const fit = array && array->npy.type == type && fits(binding, array, parameter->sides);
    show_expected(expected, binding, type, parameter->sides);
    if (!array)
        return lg_unfit(binding, name, "is missing; expected %s", expected);
    if (!fit)
        return lg_unfit(binding, name, "is %s; expected %s", show_array(found, array), expected);
    return check_values(binding, name, array, parameter->constraints);
}

lg_status lg_check_parameters(lg_binding *const binding, lg_parameter const *const parameters,
                              size_t const count)
{
    lg_status first = LG_OK;
    size_t many = 0;
    for (size_t i = 0; i < count; i++) {
        lg_parameter const *const parameter = &parameters[i];
        int const one = !strchr(parameter->name, '#');
        if (!one && !many)
            many = lg_numbered(binding, parameter->name);
        for (size_t n = 0; n < (one ? 1 : many); n++) {
            char text[NAME];
            lg_status const status
                = check_one(binding, parameter, numbered(text, parameter->name, n));
            first = first == LG_OK ? status : first;
        }
    }
    return first;
}
