/* The only declarations of LayerGuard's C library. C and C++ include them through layerguard.h.
 * Python reads them with cffi, which accepts no preprocessor lines; this file therefore has none.
 *
 * The API has two levels. A guard (lg_open, lg_score, lg_decide, lg_stream_*; at the end of this
 * file) reads detectors.npz and computes readings and a verdict from a model's hidden states. The
 * kernels, one family per detector, compute scores from parameters that the caller supplies.
 *
 * Every call validates its arguments before it computes. Only calls that open an object allocate
 * memory. No call prints or keeps state, so any number of threads may score with one model or
 * guard at the same time. Two concurrent calls must not share an output, a workspace or a stream.
 * Arguments declared const are only read.
 *
 * Reproducibility: a score depends only on its own text and the parameters, to the bit. It does not
 * depend on the level (the instruction set), the other rows, the strides or the thread. A call
 * disables flush-to-zero and sets the default rounding mode, and restores both at its end.
 *
 * Non-finite values: NaN or infinity in a value that a kernel reads makes the result NaN or
 * infinite. A guard flags every score that is not finite.
 */

typedef enum lg_status {
    LG_OK = 0,
    LG_ERR_NULL = -1,               /* a required pointer is null */
    LG_ERR_SHAPE = -2,              /* a size is zero, or states and parameters do not match */
    LG_ERR_DTYPE = -3,              /* the dtype is not in lg_dtype */
    LG_ERR_ALIGNMENT = -4,          /* a row does not start at a multiple of its element's size */
    LG_ERR_OVERFLOW = -5,           /* sizes times strides exceed the address space */
    LG_ERR_INDEX = -6,              /* layers, offsets, neurons or roles are out of range */
    LG_ERR_EMPTY = -7,              /* the mask keeps no token */
    LG_ERR_WORKSPACE = -8,          /* the workspace is smaller than the call needs */
    LG_ERR_LEVEL_UNKNOWN = -9,      /* no level has this name */
    LG_ERR_LEVEL_UNSUPPORTED = -10, /* this processor cannot run the level */
    LG_ERR_FILE = -11,              /* the file cannot be opened or read */
    LG_ERR_ARCHIVE = -12,    /* damaged, or not a zip archive of members <detector>/<name>.npy */
    LG_ERR_LIMIT = -13,      /* too many members, or more bytes than the limit */
    LG_ERR_ARRAY = -14,      /* a member is not a plain little-endian array in C order */
    LG_ERR_PARAMETERS = -15, /* arrays are missing, unknown, not finite, or contradict each other */
    LG_ERR_MEMORY = -16,     /* memory ran out; only calls that open an object allocate */
    LG_ERR_STRUCT_SIZE = -17, /* this library does not know the struct_size */
    LG_ERR_POOLING = -18,     /* a detector needs states other than those of the call */
    LG_ERR_DECISION = -19,    /* the archive has no policy, or a deciding detector was not read */
    LG_ERR_BOUND = -20        /* the two streams belong to different guards */
} lg_status;

/* Describes a status and what to do about it. Never null. */
char const *lg_strerror(int status);

/* ---- levels ---------------------------------------------------------------------------------
 * Every kernel is built for several instruction sets ("x86-64", "x86-64-v3", "x86-64-v4";
 * "portable" on other processors). The first call selects the level named by the environment
 * variable LAYERGUARD_LEVEL, or else the highest that the processor supports. All levels give the
 * same bits. */

/* The level in use; selects one if none is selected yet. On failure *name is unchanged. */
lg_status lg_level(char const **name);

/* Selects a level by name for this process. Null selects as the first call would. */
lg_status lg_set_level(char const *name);

/* ---- states --------------------------------------------------------------------------------- */

typedef enum lg_dtype {
    LG_F32 = 0,
    LG_F16 = 1, /* IEEE binary16 */
    LG_BF16 = 2 /* the upper half of a float32 */
} lg_dtype;

/* A view of hidden states: for each layer a matrix (rows, width) whose rows are contiguous.
 * Row r of layer l starts at  layers[l] + r * row_stride,  or, if `layers` is null, at
 * base + l * layer_stride + r * row_stride.  Strides are in bytes and may be negative or zero. */
typedef struct lg_states {
    void const *const *layers; /* (layer_count) or null */
    void const *base;          /* read when `layers` is null */
    ptrdiff_t layer_stride;    /* read when `layers` is null */
    ptrdiff_t row_stride;      /* read when rows > 1 */
    size_t layer_count;
    size_t rows;  /* texts, or the tokens of one text; may be zero */
    size_t width; /* elements of a row: the hidden size */
    int dtype;    /* lg_dtype */
} lg_states;

/* ---- LCF: layerwise convergence fingerprint -------------------------------------------------
 * S_l   = || (h_(l+1) - h_l - mu_l) * inverse_sigma_l ||
 * z_l   = (S_l - score_mean_l) / score_scale_l
 * score = sqrt((z - centre)' precision (z - centre))
 * The score is NaN if the quadratic form is negative (precision not positive semidefinite). */

typedef struct lg_lcf {
    size_t layer_count;         /* L: number of states minus one */
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
    lg_states states; /* L + 1 layers of width D; a row is the scored token of one text */
    double *scores;   /* (rows), written */
    double *z;        /* (rows, L), written */
} lg_lcf_call;

lg_status lg_lcf_score(lg_lcf_call const *call);

/* ---- pooling: the rows of `states` are the tokens of one text ------------------------------- */

typedef struct lg_pool_call {
    lg_states states;
    unsigned char const *mask; /* (rows) 0: the token is ignored; null: no token is ignored */
    float *pooled;             /* (layer_count, width), written */
    double *workspace;         /* (width), written by lg_pool_mean, not used by lg_pool_last */
} lg_pool_call;

/* Mean over the unmasked tokens. */
lg_status lg_pool_mean(lg_pool_call const *call);

/* The last unmasked token, as float32. */
lg_status lg_pool_last(lg_pool_call const *call);

/* ---- running sums: the mean over the tokens of a text that is still being generated ----------
 * Tokens are added one by one in double precision, so splitting them among calls does not change
 * the bits. */

typedef struct lg_sums_call {
    lg_states states; /* the tokens to add; may be zero rows */
    double *sums;     /* (layer_count, width), updated; zeros before the first token */
    size_t counted;   /* tokens in the sums after this call; read when `mean` is not null */
    float *mean;      /* (layer_count, width), written: sums / counted; or null */
} lg_sums_call;

lg_status lg_sums_add(lg_sums_call const *call);

/* ---- SIREN: selected neurons and a small network --------------------------------------------
 * features = concatenation over i of  alpha_i * h_(layers_i)[neurons_i],  then linear maps with a
 * ReLU between them; score = softmax(logits)[1], the probability of harm. */

typedef struct lg_siren {
    size_t states_needed;        /* larger than every entry of `layers` */
    size_t width_needed;         /* larger than every entry of `neurons` */
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

/* Floats of workspace needed to score `rows` rows; constant from 64 rows on. 0 if the size exceeds
 * the address space. */
size_t lg_siren_workspace(lg_siren const *model, size_t rows);

typedef struct lg_siren_call {
    lg_siren const *model; /* checked by lg_siren_check */
    lg_states states;      /* a row is the pooled state of one text */
    double *scores;        /* (rows), written: 0 to 1 */
    float *workspace;      /* (workspace_count), written */
    size_t workspace_count;
} lg_siren_call;

lg_status lg_siren_score(lg_siren_call const *call);

/* ---- WeightWatch: cosines to watched directions, by the role of a token ----------------------
 * cosine_(k, t) = u_k . h_(layer of k)[t] / || h_(layer of k)[t] ||
 * extremes: the least and the largest cosine over the tokens of each role
 * excess = max((low - least), (largest - high)) / scale  over roles and directions
 * The cosine is NaN if the norm of the state is below 2^-50 or its sums overflow float32. A NaN
 * stays in the extremes and makes the excess NaN. */

typedef enum lg_role {
    LG_SYSTEM = 0,
    LG_USER = 1,
    LG_ASSISTANT = 2,
    LG_TOOL = 3,
    LG_ROLES = 4 /* number of roles */
} lg_role;

typedef struct lg_directions {
    size_t states_needed;   /* larger than every entry of `layers` */
    size_t width;           /* D */
    size_t chosen_count;    /* C: states that have directions */
    int const *layers;      /* (C) index of the state */
    int const *offsets;     /* (C + 1) directions of state i: [offsets_i, offsets_(i+1)) */
    void const *directions; /* (K, D) unit rows, K = offsets_C */
    int dtype;              /* lg_dtype of the directions */
} lg_directions;

/* Checks every index and size of a model. Call it once, before the first reading. */
lg_status lg_directions_check(lg_directions const *model);

/* Floats of workspace needed for states of this dtype; 0 for LG_F32. */
size_t lg_extremes_workspace(lg_directions const *model, int dtype);

typedef struct lg_extremes_call {
    lg_directions const *model; /* checked by lg_directions_check */
    lg_states states;           /* the rows are tokens of one text */
    unsigned char const *mask;  /* (rows) 0: the token is ignored; null: no token is ignored */
    unsigned char const *roles; /* (rows), lg_role; null: all LG_USER */
    float *extremes;            /* (LG_ROLES, 2, K) least and largest, updated */
    float *workspace;           /* (lg_extremes_workspace), written; may be null if that is 0 */
} lg_extremes_call;

/* Updates the extremes with the unmasked tokens. Before the first call set the least to +infinity
 * and the largest to -infinity; a role without tokens keeps these values. A text may be split among
 * any number of calls. */
lg_status lg_extremes(lg_extremes_call const *call);

typedef struct lg_ranges {
    size_t count;       /* K */
    float const *low;   /* (LG_ROLES, K) */
    float const *high;  /* (LG_ROLES, K) */
    float const *scale; /* (LG_ROLES, K), > 0 */
} lg_ranges;

typedef struct lg_excess_call {
    lg_ranges const *ranges;
    float const *extremes; /* (rows, LG_ROLES, 2, K); roles without tokens are ignored */
    size_t rows;
    double *scores; /* (rows), written; NaN where a value is NaN or no role has tokens */
    int *worst;     /* (rows), written: role * K + k of the largest excess, or -1 */
} lg_excess_call;

lg_status lg_excess(lg_excess_call const *call);

/* ---- span: a linear probe on every token, and the window of tokens with the largest mean --------
 * logit_t = bias + sum over k of  w_k . h_(layers_k)[t]
 * score   = the largest mean of `window` neighbouring logits; of a shorter text the mean of all
 * A row of windows is float (LG_WINDOW_LOGITS + window): see lg_window_part. It is the state of a text
 * that is read in parts, too. A logit that is not finite makes the best mean NaN, which stays. */

typedef enum lg_window_part {
    LG_WINDOW_BEST = 0,   /* the largest mean so far */
    LG_WINDOW_FIRST = 1,  /* number of the first token of that window; exact below 2^24 */
    LG_WINDOW_TOKENS = 2, /* unmasked tokens so far; exact below 2^24 */
    LG_WINDOW_LOGITS = 3  /* the last logits start here, the newest one last */
} lg_window_part;

enum { LG_LONGEST_WINDOW = 4096 }; /* tokens */

typedef struct lg_probe {
    size_t states_needed; /* larger than every entry of `layers` */
    size_t width;         /* D */
    size_t chosen_count;  /* K: states that are read */
    int const *layers;    /* (K) index of the state */
    float const *weights; /* (K, D) */
    double bias;
    size_t window; /* tokens, 1 to LG_LONGEST_WINDOW */
} lg_probe;

/* Checks every index and size of a model. Call it once, before the first reading. */
lg_status lg_probe_check(lg_probe const *model);

/* Floats of a row of windows. */
size_t lg_windows_floats(lg_probe const *model);

typedef struct lg_windows_call {
    lg_probe const *model;     /* checked by lg_probe_check */
    lg_states states;          /* the rows are tokens of one text */
    unsigned char const *mask; /* (rows) 0: the token is ignored; null: no token is ignored */
    float *windows;            /* (lg_windows_floats), updated */
} lg_windows_call;

/* Adds the unmasked tokens. Before the first call set all floats to zero. A text may be split among any
 * number of calls. */
lg_status lg_windows(lg_windows_call const *call);

/* ---- delta: how much what tuning added acts on a text -------------------------------------------
 * x_k   = the largest over tokens t of ln(max(|dW_k v_t|, 1e-6)), dW_k the change of a matrix by
 *         tuning and v_t its input at token t; only the graph computes it: a row is float (K)
 * score = max over k of (x_k - centre_k) / scale_k
 * The score is NaN if any x_k is not finite. lg_score_pooled computes it; no kernel is needed. */

/* ---- versioned structs -----------------------------------------------------------------------
 * Most structs below start with `struct_size`. Before the call, set it to sizeof the struct and set
 * all unused fields to zero. Later releases may append fields. A program that was built with an
 * older header keeps working: fields that its struct lacks are read as zero and are not written. If
 * the header is newer than the library, fields that the library does not know must be zero. The
 * size of a reading is a field of the call. lg_states does not change. */

/* ---- a guard: all detectors of one detectors.npz ---------------------------------------------- */

typedef struct lg_guard lg_guard;

typedef struct lg_open_options {
    size_t struct_size;
    size_t max_bytes; /* maximum of all unpacked arrays; 0: 2 GiB, which is also the maximum */
    char *message;    /* written if opening fails: what was found and what was expected; or null */
    size_t message_size; /* bytes of `message`, with the final zero; 256 are usually enough */
} lg_open_options;

/* Opens the detectors.npz at `path`, a zip archive of stored or deflated arrays. The archive is
 * treated as untrusted input. Overlapping or duplicate members, sizes above the maximum, wrong
 * checksums, pickled objects, and arrays of a wrong dtype, shape or value are errors with a status
 * and a message. `options` may be null. On failure *guard is null. */
lg_status lg_open(char const *path, lg_open_options const *options, lg_guard **guard);

/* Opens an archive in memory, (size) bytes, as lg_open does. The bytes may be freed afterwards. */
lg_status lg_open_memory(void const *archive, size_t size, lg_open_options const *options,
                         lg_guard **guard);

/* An array in memory, for programs that read archives themselves or have computed parameters. */
typedef struct lg_named_array {
    char const *name;    /* "<detector>/<name>" */
    char const *dtype;   /* numpy's name, such as "float32" */
    size_t rank;         /* number of dimensions */
    size_t const *sides; /* (rank) */
    void const *data;    /* in C order, little-endian; copied */
} lg_named_array;

typedef struct lg_open_call {
    size_t struct_size;
    char const *path;             /* of the archive; or null */
    void const *archive;          /* (archive_size) an archive in memory; or null */
    size_t archive_size;          /* bytes */
    lg_named_array const *arrays; /* (array_count) read if `path` and `archive` are null */
    size_t array_count;           /* at most 1024 */
    char const *detector;         /* a detector that is required; or null */
    size_t layers;                /* L of the model; 0: unknown */
    size_t width;                 /* D of the model; 0: unknown */
    size_t max_bytes;             /* as in lg_open_options */
    char *faults;         /* (faults_size) written: as many lines as fit, one fault each; or null */
    size_t faults_size;   /* bytes of `faults`, with the final zero */
    size_t fault_count;   /* written: number of faults; 0 if the guard was opened */
    size_t faults_needed; /* written: bytes needed for all lines, with the final zero */
} lg_open_call;

/* Opens a guard as lg_open does, and lists every fault of the arrays: what was found, what was
 * expected, what to do. An unreadable archive gives one fault. Returns the status of the first. */
lg_status lg_open_checked(lg_open_call *call, lg_guard **guard);

/* Frees a guard. No thread may use it any more, and its streams must be closed. Null is allowed. */
void lg_close(lg_guard *guard);

typedef enum lg_policy {
    LG_ANY = 0, /* flagged if at least one deciding detector flags; also for a single detector */
    LG_ALL = 1  /* flagged if all deciding detectors flag */
} lg_policy;

typedef struct lg_guard_info {
    size_t struct_size;
    size_t detectors;    /* number of detectors, ordered by name; a text has a reading of each */
    size_t states;       /* L + 1, or the minimum if the archive does not hold the model's size */
    size_t width;        /* D, or the minimum if the archive does not hold the model's size */
    int states_known;    /* 1: exactly `states` layers are required; 0: at least */
    int width_known;     /* 1: exactly `width` elements are required; 0: at least */
    int policy;          /* lg_policy, or -1: not in the archive, see lg_decide */
    int reserved;        /* 0 */
    size_t domains;      /* number of domains that have their own thresholds */
    size_t workspace;    /* bytes of workspace that lg_score needs */
    size_t stream_bytes; /* bytes of memory that a stream needs */
} lg_guard_info;

/* Describes what the guard reads and the memory that its calls need. */
lg_status lg_guard_describe(lg_guard const *guard, lg_guard_info *info);

typedef enum lg_pooling {
    LG_LAST = 0,     /* the last unmasked token */
    LG_MEAN = 1,     /* the mean over the unmasked tokens */
    LG_MLP_MEAN = 2, /* the mean of each block's feed-forward output; not part of the states */
    LG_EXTREMES = 3, /* the least and largest cosine of each role's tokens */
    LG_WINDOW = 4,   /* the window of tokens with the largest mean of a probe's logits */
    LG_DELTA = 5 /* the largest length that the change of each matrix adds; not part of the states */
} lg_pooling;

typedef enum lg_view {
    LG_PROMPT = 0,       /* the prompt as the model receives it, before the answer */
    LG_CONTENT = 1,      /* prompt and answer as plain text, without chat markers */
    LG_CONVERSATION = 2, /* the prompt's tokens, then the answer's; every token has a role */
    LG_TRAJECTORY = 3    /* the turns and tool calls of an agent */
} lg_view;

typedef struct lg_detector_info {
    size_t struct_size;
    char const *name;   /* as lg_detector_name returns it */
    int view;           /* lg_view: the view of a text that it was calibrated on */
    int pooling;        /* lg_pooling */
    int final_norm;     /* 1: its last state is the one after the final norm, 0: the one before */
    int shadow;         /* 1: it gives readings but does not decide */
    double threshold;   /* unitless; flagged unless score <= threshold */
    size_t clean_count; /* number of clean scores used for its p-values */
} lg_detector_info;

/* Describes the detector at `index`, which is below `detectors` of lg_guard_info. */
lg_status lg_detector_describe(lg_guard const *guard, size_t index, lg_detector_info *info);

/* The name of the domain at `index` (UTF-8, ordered by name); null if there is none. */
char const *lg_domain_name(lg_guard const *guard, size_t index);

/* ---- the parameters of detectors ---------------------------------------------------------------- */

/* The name of a detector of this library, ordered by name; null if there is none at `index`. */
char const *lg_detector_name(size_t index);

typedef struct lg_parameter_info {
    size_t struct_size;
    char const *name;        /* "mu"; "weight_#" stands for weight_0, weight_1 and so on */
    char const *dtype;       /* numpy's name, such as "float32" */
    char const *other_dtype; /* another dtype that is accepted, or null */
    char const *sides; /* shape, one character per dimension: L: layers of the model, D: its width,
                          another capital letter: one length within the detector, a digit: that
                          length, '*': any length */
    int positive;      /* 1: every value is above zero */
    int ascending;     /* 1: the values are in ascending order; equal values are allowed */
} lg_parameter_info;

/* Describes an array of a detector, <detector>/<name>. LG_ERR_INDEX after the last one. */
lg_status lg_parameter_describe(char const *detector, size_t index, lg_parameter_info *info);

/* ---- readings of one text --------------------------------------------------------------------- */

typedef enum lg_reading_status {
    LG_UNREAD = 0, /* the detector was not read; lg_decide fails if it is a deciding one */
    LG_READ = 1,
    LG_INVALID = 2 /* the score is not finite; always flagged */
} lg_reading_status;

typedef struct lg_reading {
    int status;   /* lg_reading_status */
    int flagged;  /* 1 unless score <= threshold */
    double score; /* unitless; larger is worse */
    double threshold;
    double p_value;  /* conformal: (1 + number of clean scores >= score) / (n + 1) */
    double evidence; /* LCF: the z of `layer`; WeightWatch: the excess at `layer`; delta, span: the
                        score; else 0 */
    int layer;       /* index of the state with the largest effect on the score; -1: not given */
    int place;       /* as in lg_evidence, of `evidence`; else 0 */
} lg_reading;

typedef struct lg_score_call {
    size_t struct_size;
    lg_states states;            /* the rows are the tokens of one text */
    unsigned char const *mask;   /* (rows) 0: the token is ignored; null: no token is ignored */
    unsigned char const *roles;  /* (rows), lg_role; null: all LG_USER */
    unsigned char const *chosen; /* (detectors) 0: the detector is not read, for example because it
                                    needs another view of the text; null: all are read */
    void *workspace;             /* (workspace_size) bytes, aligned to 8, written */
    size_t workspace_size;       /* at least `workspace` of lg_guard_info */
    lg_reading *readings;        /* (detectors), written for the chosen ones */
    size_t reading_size;         /* sizeof(lg_reading) */
    int final_norm; /* 1: the last state is the one after the final norm, 0: the one before it; must
                       match `final_norm` of the chosen detectors */
} lg_score_call;

/* Computes the readings of one text, the same to the bit as LayerGuard's Python. Any number of
 * threads may score with one guard, each with its own workspace. On failure the chosen readings are
 * LG_UNREAD. If several calls read the views of a text, zero all readings before the first call.
 * LG_ERR_SHAPE: the states are from another model. LG_ERR_EMPTY: no token, or all are masked.
 * LG_ERR_INDEX: a role is not in lg_role. LG_ERR_POOLING: a chosen detector needs other states.
 * LG_ERR_WORKSPACE: the workspace is too small. Invalid states give the errors of lg_states. */
lg_status lg_score(lg_guard const *guard, lg_score_call const *call);

/* ---- readings of pooled texts ------------------------------------------------------------------
 * For pooled states from elsewhere, for example the outputs of a graph. A row is one text. */

/* One contribution to a score. */
typedef struct lg_evidence {
    double value; /* LCF: z; SIREN: share of the logit difference; WeightWatch: excess; delta:
                     (x_k - centre_k) / scale_k; span: the mean logit of the window */
    int layer;    /* index of the state; delta: the block of the matrix, from 1 */
    int place; /* WeightWatch: role * K + direction; delta: k; LCF, SIREN: index among the layers read;
                     span: number of the window's first token, or -1 if a row of windows holds none */
} lg_evidence;

typedef struct lg_pooled_info {
    size_t struct_size;
    size_t states;    /* layers of a row, or the minimum; 1 for extremes, windows and delta */
    size_t width;     /* elements of a row per layer, or the minimum; extremes: LG_ROLES * 2 * K,
                         windows: LG_WINDOW_LOGITS + window, delta: K */
    int states_known; /* 1: exactly `states` layers are required; 0: at least */
    int width_known;  /* 1: exactly `width` elements are required; 0: at least */
    size_t workspace; /* bytes of workspace that lg_score_pooled needs */
} lg_pooled_info;

/* Describes the rows that the detector at `index` reads, and the workspace for `rows` rows. */
lg_status lg_pooled_describe(lg_guard const *guard, size_t index, size_t rows,
                             lg_pooled_info *info);

typedef struct lg_pooled_call {
    size_t struct_size;
    size_t detector; /* index, as in lg_detector_describe */
    lg_states
        rows; /* pooled states; or one float32 layer: of extremes, (LG_ROLES, 2, K) per row, of
                        windows, (LG_WINDOW_LOGITS + window) per row, or of delta, (K) per row */
    void *workspace;       /* (workspace_size) bytes, aligned to 8, written */
    size_t workspace_size; /* at least `workspace` of lg_pooled_info */
    lg_reading *readings;  /* (rows), written */
    size_t reading_size;   /* sizeof(lg_reading) */
    lg_evidence *evidence; /* (rows, evidence_count) written, largest first; unused entries have
                              `layer` -1; or null */
    size_t evidence_count; /* entries per row */
} lg_pooled_call;

/* Computes one detector's readings of many texts. A reading does not depend on the other rows.
 * Errors are those of lg_score; LG_ERR_INDEX also if there is no such detector. */
lg_status lg_score_pooled(lg_guard const *guard, lg_pooled_call const *call);

/* ---- the verdict ------------------------------------------------------------------------------ */

typedef struct lg_decide_call {
    size_t struct_size;
    lg_reading *readings; /* (detectors), updated with the thresholds of the domain */
    size_t reading_size;  /* sizeof(lg_reading) */
    char const *domain;   /* the kind of traffic, UTF-8; the thresholds of all traffic are used if
                             it is null, unknown or has no thresholds of its own */
} lg_decide_call;

typedef struct lg_verdict {
    size_t struct_size;
    int flagged;    /* 1: the text should be stopped */
    int invalid;    /* 1: a deciding score is not finite; such a text is flagged */
    double p_value; /* the least false-positive target that flags the text; -1: not calibrated */
    int domain;     /* whose thresholds were used: an index for lg_domain_name; -1: all traffic */
    int reserved;   /* 0 */
} lg_verdict;

/* Decides over the readings of all detectors by the policy in the archive. If the reading of a
 * detector that never decides is flagged, the text is unfamiliar: the others then have their largest
 * thresholds, over all traffic and the domains. An archive without a decision uses LG_ANY.
 * LG_ERR_DECISION: a deciding detector was not read, or the archive is too old to hold the policy. On
 * failure the verdict is flagged and invalid; with a wrong struct_size it is unchanged. */
lg_status lg_decide(lg_guard const *guard, lg_decide_call const *call, lg_verdict *verdict);

/* ---- thresholds and p-values -------------------------------------------------------------------
 * The computations of lg_score and lg_decide on the caller's scores, for calibration programs. */

/* Sets status, threshold, flagged and p_value of a reading from its score. clean_scores:
 * (clean_count), ascending. */
lg_status lg_judge(double threshold, double const *clean_scores, size_t clean_count,
                   lg_reading *reading);

/* Statistically equivalent blocks: the order in which clean texts are cut off, from which the
 * p-value of several detectors together is computed (csrc/guard/blocks.c). */
typedef struct lg_block_set lg_block_set;

/* Builds the blocks of `texts` clean texts; scores: (texts, columns), finite. On failure *set is
 * null. */
lg_status lg_block_set_open(double const *scores, size_t texts, size_t columns, int policy,
                            lg_block_set **set);

/* The p-value of a text with these scores, (columns): the least false-positive target that flags
 * it. */
lg_status lg_block_set_p_value(lg_block_set const *set, double const *scores, double *p_value);

/* The cuts of a column: the keys in ascending order and the number of each cut, from 1; (count)
 * each. A key is the score under LG_ALL, minus the score under LG_ANY. Valid until the set is
 * closed. */
lg_status lg_block_set_cuts(lg_block_set const *set, size_t column, double const **keys,
                            size_t const **numbers, size_t *count);

/* Frees a set. Null is allowed. */
void lg_block_set_close(lg_block_set *set);

/* ---- a text that is still being generated -----------------------------------------------------
 * A stream keeps what the detectors need of the tokens so far. Memory and time per token do not
 * depend on the length of the text, and readings do not depend on how it is split among calls.
 * The mean is summed in another order than in lg_score and may differ from it in the last bits.
 * Detectors of different views need one stream per view. */

typedef struct lg_stream lg_stream;

/* Opens a stream in `memory`, (size) bytes aligned to 8, at least `stream_bytes` of lg_guard_info.
 * If `memory` is null, the stream allocates. The guard must outlive it. On failure *stream is
 * null. */
lg_status lg_stream_open(lg_guard const *guard, void *memory, size_t size, lg_stream **stream);

typedef struct lg_push_call {
    size_t struct_size;
    lg_states states;           /* of the next tokens; may be zero rows */
    unsigned char const *roles; /* (rows), lg_role; null: all LG_USER */
    int final_norm;             /* as in lg_score_call; the same for all tokens of a stream */
} lg_push_call;

/* Adds tokens to the stream. */
lg_status lg_stream_push(lg_stream *stream, lg_push_call const *call);

typedef struct lg_read_call {
    size_t struct_size;
    unsigned char const *chosen; /* (detectors), as in lg_score_call */
    lg_reading *readings;        /* (detectors), written for the chosen ones */
    size_t reading_size;         /* sizeof(lg_reading) */
} lg_read_call;

/* Computes the readings of the tokens so far; LG_ERR_EMPTY before the first. Uses the stream's
 * memory: one call at a time. */
lg_status lg_stream_read(lg_stream *stream, lg_read_call const *call);

/* Copies the state of `from` to `to`, both of one guard: to fork a text or to save a position. */
lg_status lg_stream_copy(lg_stream *to, lg_stream const *from);

/* Frees a stream if it allocated its memory. Null is allowed. */
void lg_stream_close(lg_stream *stream);
