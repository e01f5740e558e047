/* The declarations of LayerGuard's C core, once. C and C++ read them through layerguard.h, Python
 * through cffi, which takes no preprocessor lines: so there are none here.
 *
 * Every call takes one struct, checks it, then computes. The caller owns all memory. Nothing is
 * allocated, printed or kept between calls, so any number of threads may score at once with one
 * model; two calls must not share an output or a workspace. The struct is only read.
 *
 * The same bits: every score depends only on its own row and the parameters, not on the level (the
 * instruction set chosen), the other rows, the strides or the thread. Flush-to-zero and the
 * rounding mode of the calling thread are put aside during a call and restored.
 *
 * Not finite: NaN or infinity in a value that a kernel reads makes its result NaN or infinite.
 */

typedef enum lg_status {
    LG_OK = 0,
    LG_ERR_NULL = -1,              /* a pointer that is needed is null */
    LG_ERR_SHAPE = -2,             /* a size is zero, or states and parameters differ in size */
    LG_ERR_DTYPE = -3,             /* the dtype is not one of lg_dtype */
    LG_ERR_ALIGNMENT = -4,         /* a row does not start at a multiple of its element's size */
    LG_ERR_OVERFLOW = -5,          /* sizes times strides exceed the address space */
    LG_ERR_INDEX = -6,             /* SIREN's layers, offsets or neurons are out of range */
    LG_ERR_EMPTY = -7,             /* the mask keeps no token */
    LG_ERR_WORKSPACE = -8,         /* the workspace is smaller than the call needs */
    LG_ERR_LEVEL_UNKNOWN = -9,     /* no level has this name */
    LG_ERR_LEVEL_UNSUPPORTED = -10 /* this processor cannot run the level */
} lg_status;

/* What a status means and what to do about it; never null. */
char const *lg_strerror(int status);

/* ---- levels ---------------------------------------------------------------------------------
 * Every kernel is built for several instruction sets ("x86-64", "x86-64-v3", "x86-64-v4";
 * "portable" on other processors). The first call chooses: what the environment variable
 * LAYERGUARD_LEVEL names, else the highest that the processor runs. All give the same bits. */

/* The level in use, chosen now if no call has chosen yet. On failure *name is untouched. */
lg_status lg_level(char const **name);

/* Chooses a level by name, for this process; null chooses as the first call would. */
lg_status lg_set_level(char const *name);

/* ---- states --------------------------------------------------------------------------------- */

typedef enum lg_dtype {
    LG_F32 = 0,
    LG_F16 = 1, /* IEEE binary16 */
    LG_BF16 = 2 /* the upper half of a float32 */
} lg_dtype;

/* Hidden states where they lie: for each layer a matrix (rows, width) whose rows are contiguous.
 * Row r of layer l starts at  layers[l] + r * row_stride,  or, where `layers` is null, at
 * base + l * layer_stride + r * row_stride.  Strides are in bytes and may be negative or zero. */
typedef struct lg_states {
    void const *const *layers; /* (layer_count) or null */
    void const *base;          /* read when `layers` is null */
    ptrdiff_t layer_stride;    /* read when `layers` is null */
    ptrdiff_t row_stride;      /* read when rows > 1 */
    size_t layer_count;
    size_t rows;  /* texts, or tokens where pooling reads them; zero rows are no work */
    size_t width; /* elements in a row: the hidden size */
    int dtype;    /* lg_dtype */
} lg_states;

/* ---- LCF: layerwise convergence fingerprint -------------------------------------------------
 * S_l   = || (h_(l+1) - h_l - mu_l) * inverse_sigma_l ||
 * z_l   = (S_l - score_mean_l) / score_scale_l
 * score = sqrt((z - centre)' precision (z - centre))
 * A form that comes out negative (a precision that is not positive semidefinite) scores NaN. */

typedef struct lg_lcf {
    size_t layer_count;         /* L: one fewer than the states */
    size_t width;               /* D */
    float const *mu;            /* (L, D) */
    float const *inverse_sigma; /* (L, D), each (float)(1.0 / sigma) */
    double const *score_mean;   /* (L) */
    double const *score_scale;  /* (L) */
    double const *centre;       /* (L) */
    double const *precision;    /* (L, L) */
} lg_lcf;

typedef struct lg_lcf_call {
    lg_lcf const *model;
    lg_states states; /* L + 1 layers of width D; a row is the read token of one text */
    double *scores;   /* (rows), written */
    double *z;        /* (rows, L), written */
} lg_lcf_call;

lg_status lg_lcf_score(lg_lcf_call const *call);

/* ---- pooling: the rows of `states` are the tokens of one text ------------------------------- */

typedef struct lg_pool_call {
    lg_states states;
    unsigned char const *mask; /* (rows), zero: the token does not count; null: all count */
    float *pooled;             /* (layer_count, width), written */
    double *workspace;         /* (width), written by lg_pool_mean, not used by lg_pool_last */
} lg_pool_call;

/* Mean over the tokens that count. */
lg_status lg_pool_mean(lg_pool_call const *call);

/* The last token that counts, as float32. */
lg_status lg_pool_last(lg_pool_call const *call);

/* ---- SIREN: chosen neurons and a small network ----------------------------------------------
 * features = concatenation over i of  alpha_i * h_(layers_i)[neurons_i],  then linear maps with a
 * ReLU between them; score = softmax(logits)[1], the probability of harm. */

typedef struct lg_siren {
    size_t states_needed;        /* every entry of `layers` is below it */
    size_t width_needed;         /* every entry of `neurons` is below it */
    size_t chosen_count;         /* K: layers that are read */
    int const *layers;           /* (K) index of the state */
    int const *neuron_offsets;   /* (K + 1) neurons of layer i: [offsets_i, offsets_(i+1)) */
    int const *neurons;          /* (offsets_K) index in the row */
    float const *alpha;          /* (K) */
    size_t linear_count;         /* M: linear maps */
    size_t const *widths;        /* (M + 1) offsets_K, hidden sizes, 2 */
    float const *const *weights; /* (M) weights[m]: (widths[m+1], widths[m]) */
    float const *const *biases;  /* (M) biases[m]: (widths[m+1]) */
} lg_siren;

/* Checks every index and size of a model. Call it once, before the first score. */
lg_status lg_siren_check(lg_siren const *model);

/* Floats of workspace that scoring `rows` rows needs, the same for any number from 64 on; 0 if that
 * exceeds the address space. */
size_t lg_siren_workspace(lg_siren const *model, size_t rows);

typedef struct lg_siren_call {
    lg_siren const *model; /* passed lg_siren_check */
    lg_states states;      /* a row is the pooled state of one text */
    double *scores;        /* (rows), written: 0 to 1 */
    float *workspace;      /* (workspace_count), written */
    size_t workspace_count;
} lg_siren_call;

lg_status lg_siren_score(lg_siren_call const *call);
