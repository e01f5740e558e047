/* The header of an npy file: dtype and shape of its array. */
#ifndef LG_NPY_H
#define LG_NPY_H

#include <stddef.h> /* size_t */

typedef enum lg_type {
    LG_TYPE_F64,
    LG_TYPE_F32,
    LG_TYPE_F16,
    LG_TYPE_I64,
    LG_TYPE_I32,
    LG_TYPE_U16,
    LG_TYPE_U8,
    LG_TYPE_BOOL,
    LG_TYPES, /* number of types; for an array in memory: another type */
} lg_type;

enum { LG_MOST_SIDES = 3 };

typedef struct lg_npy {
    lg_type type;
    size_t rank;
    size_t sides[LG_MOST_SIDES]; /* 1 beyond the rank; at most three are held */
} lg_npy;

/* Bytes of one element. */
size_t lg_type_size(lg_type type);

/* numpy's name of it. */
char const *lg_type_name(lg_type type);

/* The type with this name, or LG_TYPES. */
lg_type lg_type_named(char const *name);

/* Parses the dictionary of a header, `length` characters. Null, or what is wrong with it. */
char const *lg_npy_parse(char const *text, size_t length, lg_npy *npy);

#endif
