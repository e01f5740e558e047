/* The declarations of LayerGuard's C library, once. C and C++ read them through layerguard.h, Python
 * through cffi, which takes no preprocessor lines: so there are none here.
 *
 * Two storeys. A guard (lg_open, lg_score, lg_decide, lg_stream_*; at the end) reads detectors.npz
 * and gives the readings and the verdict of a text from a model's hidden states. Under it lie the
 * kernels, one family a detector, for whoever has parameters of their own.
 *
 * Every call checks what it is given, then computes. Opening a guard or a stream allocates; nothing
 * else does. Nothing is printed or kept between calls, so any number of threads may score at once
 * with one model or guard; two calls must not share an output, a workspace or a stream. What a
 * call takes as const is only read.
 *
 * The same bits: every score depends only on its own text and the parameters, not on the level (the
 * instruction set chosen), the other rows, the strides or the thread. Flush-to-zero and the
 * rounding mode of the calling thread are put aside during a call and restored.
 *
 * Not finite: NaN or infinity in a value that a kernel reads makes its result NaN or infinite, and
 * a guard flags what is not finite.
 */

typedef enum lg_status {
    LG_OK = 0,
    LG_ERR_NULL = -1,               /* a pointer that is needed is null */
    LG_ERR_SHAPE = -2,              /* a size is zero, or states and parameters differ in size */
    LG_ERR_DTYPE = -3,              /* the dtype is not one of lg_dtype */
    LG_ERR_ALIGNMENT = -4,          /* a row does not start at a multiple of its element's size */
    LG_ERR_OVERFLOW = -5,           /* sizes times strides exceed the address space */
    LG_ERR_INDEX = -6,              /* layers, offsets, neurons or roles are out of range */
    LG_ERR_EMPTY = -7,              /* the mask keeps no token */
    LG_ERR_WORKSPACE = -8,          /* the workspace is smaller than the call needs */
    LG_ERR_LEVEL_UNKNOWN = -9,      /* no level has this name */
    LG_ERR_LEVEL_UNSUPPORTED = -10, /* this processor cannot run the level */
    LG_ERR_FILE = -11,              /* the file cannot be opened or read */
    LG_ERR_ARCHIVE = -12, /* not a zip archive of members <detector>/<name>.npy, or a damaged one */
    LG_ERR_LIMIT = -13,   /* too many members, or more bytes than the limit */
    LG_ERR_ARRAY = -14,   /* a member is no plain little-endian array in C order */
    LG_ERR_PARAMETERS = -15, /* arrays are missing, unknown, not finite, or contradict each other */
    LG_ERR_MEMORY = -16,     /* memory ran out; only calls that open something allocate */
    LG_ERR_STRUCT_SIZE = -17, /* a struct_size is not one that this library knows */
    LG_ERR_POOLING = -18,     /* a detector reads what states of blocks do not hold */
    LG_ERR_DECISION = -19,    /* who decides is not frozen in the archive, or was not read */
    LG_ERR_BOUND = -20        /* two streams of different guards */
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

/* ---- structs that grow -----------------------------------------------------------------------
 * Every struct of a call below starts with `struct_size`. Set it to sizeof of the struct before the
 * call, and what else you do not set to zero. When a struct grows, a program that was built with an
 * older header goes on working: a field that its struct does not have counts as zero, or is not
 * written. With a newer header than the library's, a field that the library does not know must be
 * zero. Readings say their size in the call; lg_states stays as it is. */

/* ---- a guard: every detector of one detectors.npz --------------------------------------------- */

typedef struct lg_guard lg_guard;

typedef struct lg_open_options {
    size_t struct_size;
    size_t max_bytes; /* of all arrays unpacked; 0: 2 GiB, which is also the most */
    char *message;    /* written where opening fails: a sentence of what was found and expected */
    size_t message_size; /* bytes of `message`, its end included; 256 hold most sentences */
} lg_open_options;

/* Opens the detectors.npz at `path`: a zip of arrays, stored or deflated. Nothing in it is believed:
 * members that overlap, stand twice, swell beyond the limit, or do not match their checksum, pickled
 * objects, arrays of a wrong dtype, shape or value are refused, each with a status and a message.
 * `options` may be null. On failure *guard is null. */
lg_status lg_open(char const *path, lg_open_options const *options, lg_guard **guard);

/* The same of an archive in memory, (size) bytes, which are not needed afterwards. */
lg_status lg_open_memory(void const *archive, size_t size, lg_open_options const *options,
                         lg_guard **guard);

/* Frees a guard that no thread uses any more and whose streams are closed; null is allowed. */
void lg_close(lg_guard *guard);

typedef enum lg_policy {
    LG_ANY = 0, /* one deciding detector that flags is enough; one alone is any of one */
    LG_ALL = 1  /* all deciding detectors have to flag */
} lg_policy;

typedef struct lg_guard_info {
    size_t struct_size;
    size_t detectors;    /* readings of a text, in the order of their names */
    size_t states;       /* that it reads: L + 1, or the fewest where the archive does not say */
    size_t width;        /* D, or the least where the archive does not say */
    int states_known;    /* 1: states of just that number are taken; 0: of more too */
    int width_known;     /* the same of the width */
    int policy;          /* lg_policy, or -1: not frozen, see lg_decide */
    int reserved;        /* 0 */
    size_t domains;      /* kinds of traffic with thresholds of their own */
    size_t workspace;    /* bytes that one call of lg_score needs */
    size_t stream_bytes; /* that a stream needs */
} lg_guard_info;

/* What the guard reads, and the memory that its calls need. */
lg_status lg_guard_describe(lg_guard const *guard, lg_guard_info *info);

typedef enum lg_pooling {
    LG_LAST = 0,     /* the last token that counts */
    LG_MEAN = 1,     /* the mean over the tokens that count */
    LG_MLP_MEAN = 2, /* the mean of each block's feed-forward output: states do not hold it */
    LG_EXTREMES = 3  /* the least and largest cosine of each role's tokens */
} lg_pooling;

typedef enum lg_view {
    LG_PROMPT = 0,       /* the prompt as the model sees it, up to where the answer begins */
    LG_CONTENT = 1,      /* prompt and answer as plain text, chat markers cleaned */
    LG_CONVERSATION = 2, /* the prompt's tokens, then the answer's; every token has a role */
    LG_TRAJECTORY = 3    /* the turns and tools of an agent */
} lg_view;

typedef struct lg_detector_info {
    size_t struct_size;
    char const *name; /* "lcf", "siren", "agent_siren" or "weightwatch"; lives as the guard does */
    int view;         /* lg_view: which text it was calibrated on */
    int pooling;      /* lg_pooling */
    int final_norm;   /* 1: its last state is the one after the final norm, 0: the one before */
    int shadow;       /* 1: it is read and never decides */
    double threshold; /* unitless; flagged unless score <= threshold */
    size_t clean_count; /* clean texts that its p-values count */
} lg_detector_info;

/* The detector at `index`, below `detectors` of the guard's info. */
lg_status lg_detector_describe(lg_guard const *guard, size_t index, lg_detector_info *info);

/* The name of a domain, in UTF-8, in the order of names; null where there is none. */
char const *lg_domain_name(lg_guard const *guard, size_t index);

/* ---- readings of one text --------------------------------------------------------------------- */

typedef enum lg_reading_status {
    LG_UNREAD = 0, /* nothing was written: as good as invalid for who decides */
    LG_READ = 1,
    LG_INVALID = 2 /* the score is not finite: always flagged */
} lg_reading_status;

typedef struct lg_reading {
    int status;   /* lg_reading_status */
    int flagged;  /* 1 unless score <= threshold */
    double score; /* unitless; larger is worse */
    double threshold;
    double p_value;  /* conformal: (1 + clean scores at least this large) / (n + 1) */
    double evidence; /* LCF: the z of `layer`; WeightWatch: the excess at `layer`; else 0 */
    int layer;       /* index of the state that moved the score most; -1: not told */
    int reserved;    /* 0 */
} lg_reading;

typedef struct lg_score_call {
    size_t struct_size;
    lg_states states;            /* the rows are the tokens of one text, in place */
    unsigned char const *mask;   /* (rows), zero: the token does not count; null: all count */
    unsigned char const *roles;  /* (rows), lg_role; null: all LG_USER */
    unsigned char const *chosen; /* (detectors), zero: is not read, for it reads another view of the
                                    text; null: all are read */
    void *workspace;             /* (workspace_size) bytes, aligned to 8, written */
    size_t workspace_size;       /* at least `workspace` of the guard's info */
    lg_reading *readings;        /* (detectors), written where chosen */
    size_t reading_size;         /* sizeof(lg_reading): from one reading to the next */
    int final_norm; /* 1: the last state is the one after the final norm, which detectors that
                       were calibrated so ask for; 0: the one before it */
} lg_score_call;

/* The readings of one text: the bits that LayerGuard's Python gives on the same states. Any number of
 * threads may score with one guard, each in a workspace of its own. On failure the chosen readings
 * are unread. Zero all of them before a text's first call where several calls read its views.
 * LG_ERR_SHAPE: states of another model. LG_ERR_EMPTY: no token, or none that counts. LG_ERR_INDEX: a
 * role that is none. LG_ERR_POOLING: a chosen detector reads what these states do not hold.
 * LG_ERR_WORKSPACE: the workspace is too small. And what is wrong with the states themselves. */
lg_status lg_score(lg_guard const *guard, lg_score_call const *call);

/* ---- the verdict ------------------------------------------------------------------------------ */

typedef struct lg_decide_call {
    size_t struct_size;
    lg_reading *readings; /* (detectors), read; put at the thresholds of the domain, written */
    size_t reading_size;  /* sizeof(lg_reading) */
    char const *domain;   /* the kind of traffic, UTF-8; null, unknown or without thresholds of its
                             own: those of all traffic */
} lg_decide_call;

typedef struct lg_verdict {
    size_t struct_size;
    int flagged; /* 1: the text is to be stopped */
    int invalid; /* 1: a deciding score is not finite; such a text is flagged */
    double
        p_value;  /* the least target at which the guard would flag the text; -1: not calibrated */
    int domain;   /* whose thresholds were used: an index for lg_domain_name; -1: all traffic's */
    int reserved; /* 0 */
} lg_verdict;

/* One decision over the readings of all detectors, by the policy that is frozen in the archive; an
 * archive without a decision flags where any detector does. LG_ERR_DECISION: a deciding detector was
 * not read, or the archive was frozen before it held the policy. A verdict that could not be reached
 * is flagged and invalid, unless its struct_size was wrong: then it is as it was. */
lg_status lg_decide(lg_guard const *guard, lg_decide_call const *call, lg_verdict *verdict);

/* ---- a text that is still being written -------------------------------------------------------
 * A stream keeps what the detectors need of the tokens so far: memory and time per token stay the
 * same however long the text becomes, and readings have the same bits however it is cut. Its mean
 * is summed in another order than lg_score's, so that it may differ from that in the last bits.
 * Detectors that read different views of a text each need a stream of their view's tokens. */

typedef struct lg_stream lg_stream;

/* Opens a stream in `memory`, (size) bytes aligned to 8, at least `stream_bytes` of the
 * guard's info; or, where `memory` is null, in memory of its own. The guard must outlive it. On
 * failure *stream is null. */
lg_status lg_stream_open(lg_guard const *guard, void *memory, size_t size, lg_stream **stream);

typedef struct lg_push_call {
    size_t struct_size;
    lg_states states;           /* of the tokens that follow, in place; none is no work */
    unsigned char const *roles; /* (rows), lg_role; null: all LG_USER */
    int final_norm;             /* as in lg_score_call; the same for all tokens of a stream */
} lg_push_call;

/* Takes further tokens in. */
lg_status lg_stream_push(lg_stream *stream, lg_push_call const *call);

typedef struct lg_read_call {
    size_t struct_size;
    unsigned char const *chosen; /* (detectors), as in lg_score_call */
    lg_reading *readings;        /* (detectors), written where chosen */
    size_t reading_size;         /* sizeof(lg_reading) */
} lg_read_call;

/* The readings of the tokens so far; LG_ERR_EMPTY before the first. Works in the stream's memory:
 * one call at a time. */
lg_status lg_stream_read(lg_stream *stream, lg_read_call const *call);

/* Makes `to` what `from` is, of one guard: a fork to go on with apart, a mark to come back to. */
lg_status lg_stream_copy(lg_stream *to, lg_stream const *from);

/* Frees a stream that opened memory of its own; null is allowed. */
void lg_stream_close(lg_stream *stream);
