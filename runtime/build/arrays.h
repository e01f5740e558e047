/* Calls the C core with Python arrays, whose addresses and shapes come from the buffer protocol.
 *
 * Part of the Python module; the C core does not depend on Python. Getting the addresses of 29 arrays
 * in Python takes longer than scoring them, so this file does it, for plain arrays only: arrays of the
 * same shape, of a dtype and layout that the core reads. For all others it returns LG_NOT_PLAIN, and
 * the Python side converts them or reports the fault.
 *
 * Python objects are passed as their id(). The caller keeps them alive. The GIL is held only while
 * the buffers are requested.
 */
#include <stdint.h> /* uintptr_t */
#include <stdlib.h> /* malloc, free */

enum { LG_NOT_PLAIN = 1 };

/* The lg_dtype of a buffer format (struct module syntax), or -1. */
static int lg_dtype_of_format(char const *const format)
{
    if (!format || !format[0] || format[1])
        return -1;
    return format[0] == 'f' ? LG_F32 : format[0] == 'e' ? LG_F16 : format[0] == 'H' ? LG_BF16 : -1;
}

/* Writes the layout of the first array to `states`; compares that of other arrays with it. */
static int lg_describe_layer(PyObject *const array, size_t const layer, lg_states *const states,
                             void const **const rows)
{
    Py_buffer view;
    if (PyObject_GetBuffer(array, &view, PyBUF_RECORDS_RO) != 0) {
        PyErr_Clear();
        return 0;
    }
    int const dtype = lg_dtype_of_format(view.format);
    int plain
        = dtype >= 0 && view.ndim == 2 && (view.strides[1] == view.itemsize || view.shape[1] == 1);
    if (plain && layer == 0) {
        states->dtype = dtype;
        states->rows = (size_t)view.shape[0];
        states->width = (size_t)view.shape[1];
        states->row_stride = view.strides[0];
    } else if (plain) {
        plain = dtype == states->dtype && (size_t)view.shape[0] == states->rows
                && (size_t)view.shape[1] == states->width
                && (view.strides[0] == states->row_stride || states->rows < 2);
    }
    *rows = view.buf;
    PyBuffer_Release(&view);
    return plain;
}

/* Describes the states in a tuple of arrays; the caller must free their `layers`. */
static int lg_describe(PyObject *const tuple, lg_states *const states)
{
    Py_ssize_t const count = PyTuple_Size(tuple);
    void const **const layers = malloc((size_t)(count > 0 ? count : 1) * sizeof *layers);
    *states = (lg_states){.layers = layers, .layer_count = (size_t)count};
    int plain = layers != NULL;
    for (Py_ssize_t l = 0; plain && l < count; l++)
        plain = lg_describe_layer(PyTuple_GetItem(tuple, l), (size_t)l, states, &layers[l]);
    return plain;
}

/* The address of a contiguous array of exactly `size` bytes, or null. */
static void *lg_address(uintptr_t const array, size_t const size)
{
    Py_buffer view;
    if (PyObject_GetBuffer((PyObject *)array, &view, PyBUF_WRITABLE) != 0) {
        PyErr_Clear();
        return NULL;
    }
    void *const address = (size_t)view.len == size ? view.buf : NULL;
    PyBuffer_Release(&view);
    return address;
}

/* All functions below return LG_NOT_PLAIN or the status of the core.
 * layers: a tuple of arrays; outputs: writable arrays of the sizes that layerguard_api.h declares. */

/* For a guard with one detector. readings, evidence: arrays of (rows) and (rows, evidence_count)
 * structs. */
static int lg_pooled_arrays(lg_guard const *const guard, uintptr_t const layers,
                            uintptr_t const readings, uintptr_t const evidence,
                            size_t const evidence_count)
{
    lg_pooled_call call = {.struct_size = sizeof call,
                           .reading_size = sizeof(lg_reading),
                           .evidence_count = evidence_count};
    PyGILState_STATE const gil = PyGILState_Ensure();
    int const plain = lg_describe((PyObject *)layers, &call.rows);
    if (plain) {
        size_t const rows = call.rows.rows;
        call.readings = lg_address(readings, rows * sizeof(lg_reading));
        call.evidence = lg_address(evidence, rows * evidence_count * sizeof(lg_evidence));
    }
    PyGILState_Release(gil);
    int status = LG_NOT_PLAIN;
    if (plain) {
        lg_pooled_info info = {.struct_size = sizeof info};
        status = lg_pooled_describe(guard, 0, call.rows.rows, &info);
        if (status == LG_OK) {
            call.workspace_size = info.workspace;
            call.workspace = malloc(info.workspace ? info.workspace : 1);
            status = call.workspace ? lg_score_pooled(guard, &call) : LG_ERR_MEMORY;
            free(call.workspace);
        }
    }
    free((void *)call.rows.layers);
    return status;
}

/* mask: an array with one byte per token, or 0; workspace: an array, or 0 for the last token. */
static int lg_pool_arrays(uintptr_t const layers, uintptr_t const mask, uintptr_t const pooled,
                          uintptr_t const workspace)
{
    lg_pool_call call = {.mask = NULL};
    PyGILState_STATE const gil = PyGILState_Ensure();
    int const plain = lg_describe((PyObject *)layers, &call.states);
    if (plain) {
        size_t const width = call.states.width;
        call.pooled = lg_address(pooled, call.states.layer_count * width * sizeof(float));
        call.mask = mask ? lg_address(mask, call.states.rows) : NULL;
        call.workspace = workspace ? lg_address(workspace, width * sizeof(double)) : NULL;
    }
    PyGILState_Release(gil);
    int status = LG_NOT_PLAIN;
    if (plain && mask && !call.mask)
        status = LG_ERR_SHAPE;
    else if (plain)
        status = workspace ? lg_pool_mean(&call) : lg_pool_last(&call);
    free((void *)call.states.layers);
    return status;
}

static int lg_sums_arrays(uintptr_t const layers, uintptr_t const sums, size_t const counted,
                          uintptr_t const mean)
{
    lg_sums_call call = {.counted = counted};
    PyGILState_STATE const gil = PyGILState_Ensure();
    int const plain = lg_describe((PyObject *)layers, &call.states);
    if (plain) {
        size_t const count = call.states.layer_count * call.states.width;
        call.sums = lg_address(sums, count * sizeof(double));
        call.mean = lg_address(mean, count * sizeof(float));
    }
    PyGILState_Release(gil);
    int const status = !plain                   ? LG_NOT_PLAIN
                       : call.sums && call.mean ? lg_sums_add(&call)
                                                : LG_ERR_SHAPE;
    free((void *)call.states.layers);
    return status;
}

/* mask, roles: arrays with one byte per token, or 0; workspace: lg_extremes_workspace floats. */
static int lg_extremes_arrays(lg_directions const *const model, uintptr_t const layers,
                              uintptr_t const mask, uintptr_t const roles, uintptr_t const extremes,
                              uintptr_t const workspace)
{
    lg_extremes_call call = {.model = model};
    PyGILState_STATE const gil = PyGILState_Ensure();
    int const plain = lg_describe((PyObject *)layers, &call.states);
    if (plain) {
        size_t const count = (size_t)model->offsets[model->chosen_count];
        call.mask = mask ? lg_address(mask, call.states.rows) : NULL;
        call.roles = roles ? lg_address(roles, call.states.rows) : NULL;
        call.extremes = lg_address(extremes, 2 * LG_ROLES * count * sizeof(float));
        size_t const needed = lg_extremes_workspace(model, call.states.dtype);
        call.workspace = lg_address(workspace, needed * sizeof(float));
    }
    PyGILState_Release(gil);
    int status = LG_NOT_PLAIN;
    if (plain)
        status = (mask && !call.mask) || (roles && !call.roles) ? LG_ERR_SHAPE : lg_extremes(&call);
    free((void *)call.states.layers);
    return status;
}

/* mask: an array with one byte per token, or 0; windows: lg_windows_floats floats. */
static int lg_windows_arrays(lg_probe const *const model, uintptr_t const layers,
                             uintptr_t const mask, uintptr_t const windows)
{
    lg_windows_call call = {.model = model};
    PyGILState_STATE const gil = PyGILState_Ensure();
    int const plain = lg_describe((PyObject *)layers, &call.states);
    if (plain) {
        call.mask = mask ? lg_address(mask, call.states.rows) : NULL;
        call.windows = lg_address(windows, lg_windows_floats(model) * sizeof(float));
    }
    PyGILState_Release(gil);
    int status = LG_NOT_PLAIN;
    if (plain)
        status = mask && !call.mask ? LG_ERR_SHAPE : lg_windows(&call);
    free((void *)call.states.layers);
    return status;
}
