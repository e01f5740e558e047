/* Checks frozen arrays against the table that declares them: names, dtypes, shapes, values. */
#ifndef LG_PARAMETERS_H
#define LG_PARAMETERS_H

#include "archive.h"

/* Constraints on the values of an array. All floats must be finite. */
enum {
    LG_POSITIVE = 1 << 0,  /* every value is above zero */
    LG_ASCENDING = 1 << 1, /* no value is below the one before it */
    LG_NOT_EMPTY = 1 << 2,
    LG_OR_HALF = 1 << 3 /* float16 is accepted too */
};

/* An array of a detector, of "decision" or of "serving".
 * sides: the shape, one character per dimension. A digit is that length. A capital letter is the
 * same length wherever it is used: L for the model's layers, D for its width, any other letter
 * within the group. '*' is any length.
 * name: "weight_#" declares weight_0, weight_1 and so on. All such entries of a table declare as
 * many arrays as the archive has of the first one. */
typedef struct lg_parameter {
    char const *name;
    lg_type type;
    char const *sides;
    unsigned constraints;
} lg_parameter;

/* An unknown length. */
#define LG_UNKNOWN ((size_t)-1)

enum { LG_LETTERS = 26 };

/* The arrays of a group, the lengths of the letters in their shapes, and the list of faults. */
typedef struct lg_binding {
    lg_archive const *archive;
    char const *group; /* a detector, "decision" or "serving" */
    lg_memory *memory;
    lg_faults *faults;
    size_t lengths[LG_LETTERS]; /* of 'A' to 'Z' */
} lg_binding;

/* A binding whose letters are all unknown. */
lg_binding lg_binding_of(lg_archive const *archive, char const *group, lg_memory *memory,
                         lg_faults *faults);

/* The length of a letter, or LG_UNKNOWN. */
size_t lg_length(lg_binding const *binding, char letter);

void lg_set_length(lg_binding *binding, char letter, size_t length);

/* The array <group>/<name>, marked as used; null if there is none. */
lg_array *lg_find(lg_binding const *binding, char const *name);

/* The same for number `index` of a table's "weight_#". */
lg_array *lg_find_numbered(lg_binding const *binding, char const *name, size_t index);

/* Whether the archive has an array of the group. */
int lg_has_group(lg_archive const *archive, char const *group);

/* Number of arrays that a table's "weight_#" declares: those of the group whose names start with
 * "weight_", at least one. */
size_t lg_numbered(lg_binding const *binding, char const *name);

/* Checks every array of the table and adds the faults. Unknown letters take the length of the first
 * array that has them. */
lg_status lg_check_parameters(lg_binding *binding, lg_parameter const *parameters, size_t count);

/* Adds a fault of <group>/<name> with this message. */
__attribute__((format(printf, 3, 4))) lg_status lg_unfit(lg_binding const *binding,
                                                         char const *name, char const *format, ...);

/* Writes integers as "[1, 2, 3]"; of many only the first ones and the last. */
enum { LG_SHOWN = 192 };
char const *lg_show_integers(char text[LG_SHOWN], int const *values, size_t count);

lg_status lg_no_memory(lg_binding const *binding);

#endif
