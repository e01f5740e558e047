/* The header of an npy file: what array follows. */
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
    LG_TYPE_BOOL
} lg_type;

enum { LG_MOST_SIDES = 3 };

typedef struct lg_npy {
    lg_type type;
    size_t rank;
    size_t sides[LG_MOST_SIDES]; /* those beyond the rank are 1 */
} lg_npy;

/* Bytes of one element. */
size_t lg_type_size(lg_type type);

/* numpy's word for it. */
char const *lg_type_name(lg_type type);

/* Reads the dictionary of a header, `length` letters; null, or what is wrong with it. */
char const *lg_npy_parse(char const *text, size_t length, lg_npy *npy);

#endif
