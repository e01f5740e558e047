/* Fills an lg_states from a tuple of arrays through Python's buffer protocol.
 *
 * This is the plain case only, made for speed: asking each of 29 arrays for its address from
 * Python costs more than scoring them. Whatever is not plain is left to kernels.py, which converts
 * or explains it. Part of the Python module; the C core knows no Python.
 */
#include <stdint.h> /* uintptr_t */

/* The dtype that a buffer format of struct-module letters names, or -1. */
static int lg_dtype_of_format(char const *const format)
{
    if (!format || !format[0] || format[1])
        return -1;
    return format[0] == 'f' ? LG_F32 : format[0] == 'e' ? LG_F16 : format[0] == 'H' ? LG_BF16 : -1;
}

/* `arrays` is the id() of a tuple of at least `states->layer_count` objects, kept alive by the
 * caller. Writes dtype, rows, width and row_stride, and the address of every array's first row to
 * layers. Returns 1 if all arrays are alike: (rows, width) with contiguous rows of one stride and
 * of a known dtype; 0 if any is not, with nothing else promised about the outputs. */
static int lg_describe(uintptr_t const arrays, lg_states *const states, void const **const layers)
{
    PyGILState_STATE const gil = PyGILState_Ensure();
    PyObject *const tuple = (PyObject *)arrays;
    int plain = 1;
    for (size_t l = 0; plain && l < states->layer_count; l++) {
        Py_buffer view;
        PyObject *const array = PyTuple_GetItem(tuple, (Py_ssize_t)l);
        if (!array || PyObject_GetBuffer(array, &view, PyBUF_RECORDS_RO) != 0) {
            PyErr_Clear();
            plain = 0;
            break;
        }
        int const dtype = lg_dtype_of_format(view.format);
        plain = dtype >= 0 && view.ndim == 2
                && (view.strides[1] == view.itemsize || view.shape[1] == 1);
        if (plain && l == 0) {
            states->dtype = dtype;
            states->rows = (size_t)view.shape[0];
            states->width = (size_t)view.shape[1];
            states->row_stride = view.strides[0];
        } else if (plain) {
            plain = dtype == states->dtype && (size_t)view.shape[0] == states->rows
                    && (size_t)view.shape[1] == states->width
                    && (view.strides[0] == states->row_stride || states->rows < 2);
        }
        layers[l] = view.buf;
        PyBuffer_Release(&view);
    }
    PyGILState_Release(gil);
    return plain;
}
