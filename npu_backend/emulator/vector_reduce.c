/* REDUCE and ARGREDUCE: one element of each line; npu_backend/ops/numerics_lines.py. */
#include "lines.h"

typedef struct {
    uint32_t function;
    float scale; /* of the result: that of the elements, where it may be applied after the fold */
    float chunk[NPU_CHUNK_FLOATS];
    float partials[NPU_MAX_PARTIALS];
    float largest[NPU_LINE_LANES]; /* of LOG_SUM_EXP, and the extremes of ARGREDUCE */
} reduction;

NPU_INLINE void fold_lanes(uint32_t function, const float *restrict x, size_t count, const size_t lanes,
                           float *restrict partials) {
    switch (function) {
    case NPU_REDUCE_MAXIMUM: NPU_FOLD(partials, x, count, lanes, a > b ? a : b); break;
    case NPU_REDUCE_MINIMUM: NPU_FOLD(partials, x, count, lanes, a < b ? a : b); break;
    case NPU_REDUCE_PRODUCT: NPU_FOLD(partials, x, count, lanes, a * b); break;
    case NPU_REDUCE_L1: NPU_FOLD(partials, x, count, lanes, a + fabsf(b)); break;
    case NPU_REDUCE_L2:
    case NPU_REDUCE_SUM_SQUARE: NPU_FOLD(partials, x, count, lanes, a + b * b); break;
    case NPU_REDUCE_LOG_SUM_EXP: NPU_FOLD(partials, x, count, lanes, a + npu_exp(b)); break;
    default: NPU_FOLD(partials, x, count, lanes, a + b); break;
    }
}

NPU_INLINE void fold_body(uint32_t function, const float *x, size_t count, size_t lanes, float *partials) {
    if (lanes == 1) {
        fold_lanes(function, x, count, 1, partials);
    } else {
        fold_lanes(function, x, count, NPU_LINE_LANES, partials);
    }
}

NPU_LEVELS(fold, (uint32_t function, const float *x, size_t count, size_t lanes, float *partials),
           (function, x, count, lanes, partials))

static float first_partial(uint32_t function) {
    switch (function) {
    case NPU_REDUCE_MAXIMUM: return -INFINITY;
    case NPU_REDUCE_MINIMUM: return INFINITY;
    case NPU_REDUCE_PRODUCT: return 1.0f;
    default: return 0.0f;
    }
}

static void join_partials(uint32_t function, float *partials, size_t lanes) {
    switch (function) {
    case NPU_REDUCE_MAXIMUM: NPU_JOIN(partials, lanes, a > b ? a : b) break;
    case NPU_REDUCE_MINIMUM: NPU_JOIN(partials, lanes, a < b ? a : b) break;
    case NPU_REDUCE_PRODUCT: NPU_JOIN(partials, lanes, a * b) break;
    default: NPU_JOIN(partials, lanes, a + b) break;
    }
}

/* The next elements of the lines to the chunk; their number. */
static size_t read_chunk(const npu_lines *lines, npu_line_block block, size_t first, float *chunk) {
    size_t most = NPU_CHUNK_FLOATS / lines->lanes, left = lines->length - first;
    size_t count = left < most ? left : most;
    npu_read_lines(lines, block, first, count, chunk);
    return count;
}

static void subtract_largest(reduction *k, size_t count, size_t lanes) {
    NPU_EACH_ELEMENT(k->chunk, count, lanes, own - k->largest[l])
}

/* All elements of the lines, chunk by chunk; the results stand in the first partial results. */
static void fold_lines(const npu_lines *lines, npu_line_block block, uint32_t function, reduction *k) {
    npu_fill_floats(k->partials, NPU_PARTIALS * lines->lanes, first_partial(function));
    for (size_t first = 0, count; first < lines->length; first += count) {
        count = read_chunk(lines, block, first, k->chunk);
        if (function == NPU_REDUCE_LOG_SUM_EXP) {
            subtract_largest(k, count, lines->lanes);
        }
        fold_levels[lines->level - 1](function, k->chunk, count, lines->lanes, k->partials);
    }
    join_partials(function, k->partials, lines->lanes);
}

static void find_largest(const npu_lines *lines, npu_line_block block, uint32_t function, reduction *k) {
    fold_lines(lines, block, function, k);
    memcpy(k->largest, k->partials, lines->lanes * sizeof(float));
}

static float finish(const reduction *k, float total, float largest, float length) {
    switch (k->function) {
    case NPU_REDUCE_MEAN: return total * k->scale / length;
    case NPU_REDUCE_L2: return sqrtf(total);
    case NPU_REDUCE_LOG_SUM: return npu_log(total * k->scale);
    case NPU_REDUCE_LOG_SUM_EXP: return largest + npu_log(total);
    default: return total * k->scale;
    }
}

static void reduce_block(const npu_lines *lines, npu_line_block block, void *context) {
    reduction *k = context;
    if (k->function == NPU_REDUCE_LOG_SUM_EXP) {
        find_largest(lines, block, NPU_REDUCE_MAXIMUM, k);
    }
    fold_lines(lines, block, k->function, k);
    for (size_t l = 0; l < block.count; ++l) {
        k->partials[l] = finish(k, k->partials[l], k->largest[l], (float)lines->length);
    }
    npu_write_across(lines, block, k->partials);
}

/* Whether a factor common to all elements is one of the result: integer codes are then summed as they are. */
static int is_linear(uint32_t function) {
    return function != NPU_REDUCE_PRODUCT && function != NPU_REDUCE_L2 && function != NPU_REDUCE_SUM_SQUARE &&
           function != NPU_REDUCE_LOG_SUM_EXP;
}

npu_status npu_execute_reduce(const npu_reduce *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    npu_lines lines = npu_lines_of(op, spm, level);
    reduction k = {0};
    k.function = op->function;
    k.scale = is_linear(op->function) ? op->input_scale : 1.0f;
    lines.from.scale = is_linear(op->function) ? 1.0f : op->input_scale;
    npu_for_blocks(&lines, reduce_block, &k);
    return NPU_OK;
}

typedef struct {
    reduction extreme;
    int select_last;
    uint32_t output_bytes;
} search;

static void find_in_chunk(const search *k, size_t first, size_t count, size_t lanes, int64_t *found) {
    for (size_t r = 0; r < count; ++r) {
        for (size_t l = 0; l < lanes; ++l) {
            int is_extreme = k->extreme.chunk[r * lanes + l] == k->extreme.largest[l];
            found[l] = is_extreme && (k->select_last || found[l] < 0) ? (int64_t)(first + r) : found[l];
        }
    }
}

static void write_indices(const npu_lines *lines, npu_line_block block, const int64_t *found, uint32_t bytes) {
    for (size_t l = 0; l < block.count; ++l) {
        int64_t index = found[l] < 0 ? 0 : found[l]; /* little-endian: its first bytes are the int32 */
        memcpy(block.output + (int64_t)l * lines->across.strides[1][3], &index, bytes);
    }
}

static void search_block(const npu_lines *lines, npu_line_block block, void *context) {
    search *k = context;
    int64_t found[NPU_LINE_LANES];
    find_largest(lines, block, k->extreme.function, &k->extreme);
    for (size_t l = 0; l < lines->lanes; ++l) {
        found[l] = -1;
    }
    for (size_t first = 0, count; first < lines->length; first += count) {
        count = read_chunk(lines, block, first, k->extreme.chunk);
        find_in_chunk(k, first, count, lines->lanes, found);
    }
    write_indices(lines, block, found, k->output_bytes);
}

npu_status npu_execute_argreduce(const npu_argreduce *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    npu_lines lines = npu_lines_of((const npu_line_fields *)(const void *)op, spm, level);
    search k = {{0}, op->select_last != 0, npu_type_bytes(op->output_type)};
    k.extreme.function = op->function;
    lines.from.scale = 1.0f; /* the order of codes is that of their values */
    npu_for_blocks(&lines, search_block, &k);
    return NPU_OK;
}
