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
    LG_ERR_INDEX = -6,             /* layers, offsets, neurons or roles are out of range */
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

/* ---- running sums: the mean over the tokens of a text that is still being written ------------
 * Tokens are added in double, one after the other: the same bits however they are split among
 * calls. */

typedef struct lg_sums_call {
    lg_states states; /* the tokens to add; none is no work */
    double *sums;     /* (layer_count, width), updated; zeros before the first token */
    size_t counted;   /* tokens in the sums once these are added; read when `mean` is not null */
    float *mean;      /* (layer_count, width), written: sums / counted; or null */
} lg_sums_call;

lg_status lg_sums_add(lg_sums_call const *call);

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

/* ---- WeightWatch: cosines to watched directions, by the role of a token ----------------------
 * cosine_(k, t) = u_k . h_(layer of k)[t] / || h_(layer of k)[t] ||,  of each role the least and
 * the largest over its tokens; excess = max((low - least), (largest - high)) / scale over roles
 * and directions. A state of length zero (below 2^-50) or beyond float32's sums has no cosine: NaN,
 * which stays in the extremes and makes the excess NaN. */

typedef enum lg_role {
    LG_SYSTEM = 0,
    LG_USER = 1,
    LG_ASSISTANT = 2,
    LG_TOOL = 3,
    LG_ROLES = 4 /* how many there are */
} lg_role;

typedef struct lg_directions {
    size_t states_needed;   /* every entry of `layers` is below it */
    size_t width;           /* D */
    size_t chosen_count;    /* C: states that have directions */
    int const *layers;      /* (C) index of the state */
    int const *offsets;     /* (C + 1) directions of state i: [offsets_i, offsets_(i+1)) */
    void const *directions; /* (K, D) unit rows, K = offsets_C */
    int dtype;              /* lg_dtype of the directions */
} lg_directions;

/* Checks every index and size of a model. Call it once, before the first reading. */
lg_status lg_directions_check(lg_directions const *model);

/* Floats of workspace that reading states of this dtype needs; 0 for LG_F32. */
size_t lg_extremes_workspace(lg_directions const *model, int dtype);

typedef struct lg_extremes_call {
    lg_directions const *model; /* passed lg_directions_check */
    lg_states states;           /* the rows are tokens of one text */
    unsigned char const *mask;  /* (rows), zero: the token does not count; null: all count */
    unsigned char const *roles; /* (rows), lg_role; null: all LG_USER */
    float *extremes;            /* (LG_ROLES, 2, K) least and largest, widened */
    float *workspace;           /* (lg_extremes_workspace), written; may be null where that is 0 */
} lg_extremes_call;

/* Widens the extremes by the tokens that count. Start with +infinity for the least and -infinity for
 * the largest: what a role without tokens keeps. A text may come in parts of any size. */
lg_status lg_extremes(lg_extremes_call const *call);

typedef struct lg_ranges {
    size_t count;       /* K */
    float const *low;   /* (LG_ROLES, K) */
    float const *high;  /* (LG_ROLES, K) */
    float const *scale; /* (LG_ROLES, K), > 0 */
} lg_ranges;

typedef struct lg_excess_call {
    lg_ranges const *ranges;
    float const *extremes; /* (rows, LG_ROLES, 2, K); roles without tokens do not count */
    size_t rows;
    double *scores; /* (rows), written; NaN where a value is NaN or no role has tokens */
    int *worst;     /* (rows), written: role * K + k of the largest excess, or -1 */
} lg_excess_call;

lg_status lg_excess(lg_excess_call const *call);
