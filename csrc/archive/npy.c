/* The header of an npy file: a Python dictionary of three keys. Only the syntax that numpy writes is
 * accepted. Source: numpy's "NEP 1, a simple file format for NumPy arrays". */
#include <stdint.h> /* SIZE_MAX */
#include <string.h> /* memcmp, strcmp, strlen */

#include "npy.h"

static struct {
    char const *descr; /* as in the header: little-endian, or one byte */
    char const *name;
    size_t size;
} const types[] = {
    [LG_TYPE_F64] = {"<f8", "float64", 8}, [LG_TYPE_F32] = {"<f4", "float32", 4},
    [LG_TYPE_F16] = {"<f2", "float16", 2}, [LG_TYPE_I64] = {"<i8", "int64", 8},
    [LG_TYPE_I32] = {"<i4", "int32", 4},   [LG_TYPE_U16] = {"<u2", "uint16", 2},
    [LG_TYPE_U8] = {"|u1", "uint8", 1},    [LG_TYPE_BOOL] = {"|b1", "bool", 1},
};

size_t lg_type_size(lg_type const type)
{
    return types[type].size;
}

char const *lg_type_name(lg_type const type)
{
    return types[type].name;
}

lg_type lg_type_named(char const *const name)
{
    size_t type = 0;
    while (type < LG_TYPES && strcmp(types[type].name, name) != 0)
        type++;
    return (lg_type)type;
}

/* The remaining text. */
typedef struct cursor {
    char const *at;
    char const *end;
} cursor;

static void skip_spaces(cursor *const left)
{
    while (left->at < left->end && *left->at == ' ')
        left->at++;
}

/* Skips `word` and the spaces after it, if the text continues with it. */
static int take(cursor *const left, char const *const word)
{
    size_t const length = strlen(word);
    if ((size_t)(left->end - left->at) < length || memcmp(left->at, word, length) != 0)
        return 0;
    left->at += length;
    skip_spaces(left);
    return 1;
}

/* Skips the word in single or double quotes. */
static int take_quoted(cursor *const left, char const *const word)
{
    cursor const start = *left;
    char const quotes[] = {'\'', '"'};
    for (size_t i = 0; i < sizeof quotes; i++) {
        char const quote[] = {quotes[i], '\0'};
        *left = start;
        if (left->at < left->end && *left->at == quotes[i] && left->at++ && take(left, word)
            && take(left, quote))
            return 1;
    }
    *left = start;
    return 0;
}

static int take_number(cursor *const left, size_t *const number)
{
    char const *const first = left->at;
    *number = 0;
    for (; left->at < left->end && *left->at >= '0' && *left->at <= '9'; left->at++) {
        size_t const digit = (size_t)(*left->at - '0');
        if (*number > (SIZE_MAX - digit) / 10)
            return 0;
        *number = *number * 10 + digit;
    }
    int const taken = left->at > first && (*first != '0' || left->at == first + 1);
    skip_spaces(left);
    return taken;
}

static char const *parse_type(cursor *const left, lg_npy *const npy)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (take_quoted(left, types[i].descr)) {
            npy->type = (lg_type)i;
            return NULL;
        }
    return "has a dtype that is not a little-endian float64, float32, float16, int64, int32, "
           "uint16, uint8 or bool";
}

static char const *parse_order(cursor *const left)
{
    if (take(left, "False"))
        return NULL;
    return take(left, "True") ? "is in Fortran order; expected C order"
                              : "has a header that numpy "
                                "does not write";
}

/* (), (3,), (3, 4): a tuple of one element needs the comma. */
static char const *parse_shape(cursor *const left, lg_npy *const npy)
{
    static char const *const strange = "has a shape that numpy does not write";
    int comma = 1;
    if (!take(left, "("))
        return strange;
    for (npy->rank = 0; !take(left, ")"); npy->rank++) {
        if (npy->rank == LG_MOST_SIDES)
            return "has more than three dimensions";
        if (!comma || !take_number(left, &npy->sides[npy->rank]))
            return strange;
        comma = take(left, ",");
    }
    return npy->rank == 1 && !comma ? strange : NULL;
}

char const *lg_npy_parse(char const *const text, size_t const length, lg_npy *const npy)
{
    static char const *const strange = "has a header that numpy does not write";
    cursor left = {text, text + length};
    int type = 0, order = 0, shape = 0;
    for (size_t i = 0; i < LG_MOST_SIDES; i++)
        npy->sides[i] = 1;
    if (!length || left.end[-1] != '\n')
        return strange;
    left.end--;
    if (!take(&left, "{"))
        return strange;
    for (int comma = 1; !take(&left, "}"); comma = take(&left, ",")) {
        char const *fault = strange;
        if (comma && take_quoted(&left, "descr") && !type++ && take(&left, ":"))
            fault = parse_type(&left, npy);
        else if (comma && take_quoted(&left, "fortran_order") && !order++ && take(&left, ":"))
            fault = parse_order(&left);
        else if (comma && take_quoted(&left, "shape") && !shape++ && take(&left, ":"))
            fault = parse_shape(&left, npy);
        if (fault)
            return fault;
    }
    return type && order && shape && left.at == left.end ? NULL : strange;
}
