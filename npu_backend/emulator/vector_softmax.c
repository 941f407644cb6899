/* SOFTMAX: of 8-bit codes by a table of exponentials, of all else in float32; npu_backend/ops/numerics_softmax.py. */
#include "lines.h"

typedef struct {
    const uint8_t *table;
    uint8_t flip;
    float output_scale;
    int32_t zero_point;
    int32_t low;
    int32_t high;
    uint8_t *line; /* a line's codes and then its results, where they lie apart */
} constants;

NPU_INLINE float exponential(const constants *k, uint8_t byte, uint32_t largest) {
    return npu_load_f32(k->table + 4 * ((uint32_t)(uint8_t)(byte ^ k->flip) + 255 - largest));
}

/* The sum is sequential, as its float32 rounding depends on the order. */
NPU_INLINE void table_body(const constants *prepared, const uint8_t *restrict input, uint8_t *restrict output,
                             size_t length) {
    const constants k = *prepared;
    uint8_t largest = 0;
    for (size_t i = 0; i < length; ++i) {
        uint8_t code = input[i] ^ k.flip;
        largest = code > largest ? code : largest;
    }
    float sum = 0.0f;
    for (size_t i = 0; i < length; ++i) {
        sum += exponential(&k, input[i], largest);
    }
    for (size_t i = 0; i < length; ++i) {
        float quotient = exponential(&k, input[i], largest) * k.output_scale / sum;
        int32_t code = npu_add(npu_round(npu_clamp(quotient, 0.0f, 511.0f)), k.zero_point);
        code = code > k.low ? code : k.low;
        output[i] = (uint8_t)(code < k.high ? code : k.high);
    }
}

NPU_LEVELS(table, (const constants *k, const uint8_t *restrict input, uint8_t *restrict output, size_t length),
           (k, input, output, length))

static void table_line(const npu_lines *lines, npu_line_block block, void *context) {
    const constants *k = context;
    const int64_t from = lines->along.strides[0][3], to = lines->along.strides[1][3];
    const uint8_t *input = from == 1 ? block.input : k->line;
    uint8_t *output = to == 1 ? block.output : k->line + lines->length;
    if (from != 1) {
        npu_copy_strided(k->line, 1, block.input, from, 1, lines->length);
    }
    table_levels[lines->level - 1](k, input, output, lines->length);
    if (to != 1) {
        npu_copy_strided(block.output, to, output, 1, 1, lines->length);
    }
}

static npu_status softmax_by_table(const npu_softmax *op, uint8_t *spm, npu_lines *lines, npu_scratch *scratch) {
    constants k = {spm + op->table, npu_code_of(op->input_type).flip, op->output_scale, op->output_zero_point,
                   (int32_t)npu_type_low(op->output_type), (int32_t)npu_type_high(op->output_type),
                   npu_scratch_reserve(scratch, 2 * lines->length)};
    if (k.line == NULL) {
        return NPU_OUT_OF_MEMORY;
    }
    lines->lanes = 1;
    npu_for_blocks(lines, table_line, &k);
    return NPU_OK;
}

NPU_INLINE void largest_lanes(const float *restrict x, size_t length, const size_t lanes, float *restrict largest) {
    float partials[NPU_MAX_PARTIALS];
    npu_fill_floats(partials, NPU_PARTIALS * lanes, -INFINITY);
    NPU_FOLD(partials, x, length, lanes, a > b ? a : b);
    NPU_JOIN(partials, lanes, a > b ? a : b)
    memcpy(largest, partials, lanes * sizeof *largest);
}

NPU_INLINE void softmax_lanes(float *restrict x, float *restrict spare, size_t length, const size_t lanes,
                              int is_logarithm) {
    float of_line[NPU_LINE_LANES];
    float *exponentials = is_logarithm ? spare : x;
    largest_lanes(x, length, lanes, of_line);
    NPU_EACH_ELEMENT(x, length, lanes, own - of_line[l])
    for (size_t i = 0; i < length * lanes; ++i) {
        exponentials[i] = npu_exp(x[i]);
    }
    npu_sum_lines(exponentials, length, lanes, of_line);
    for (size_t l = 0; l < lanes; ++l) {
        of_line[l] = is_logarithm ? npu_log(of_line[l]) : 1.0f / of_line[l];
    }
    if (is_logarithm) {
        NPU_EACH_ELEMENT(x, length, lanes, own - of_line[l])
    } else {
        NPU_EACH_ELEMENT(x, length, lanes, own * of_line[l])
    }
}

NPU_INLINE void softmax_body(const void *context, float *x, float *spare, size_t length, size_t lanes) {
    const int is_logarithm = ((const npu_softmax *)context)->function == NPU_SOFTMAX_LOGARITHM;
    if (lanes == 1) {
        softmax_lanes(x, spare, length, 1, is_logarithm);
    } else {
        softmax_lanes(x, spare, length, NPU_LINE_LANES, is_logarithm);
    }
}

NPU_LEVELS(softmax, (const void *context, float *x, float *spare, size_t length, size_t lanes),
           (context, x, spare, length, lanes))

npu_status npu_execute_softmax(const npu_softmax *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    npu_lines lines = npu_lines_of((const npu_line_fields *)(const void *)op, spm, level);
    if (op->function == NPU_SOFTMAX_TABLE) {
        return softmax_by_table(op, spm, &lines, scratch);
    }
    return npu_transform_lines(&lines, softmax_levels[level - 1], op, op->function == NPU_SOFTMAX_LOGARITHM, scratch);
}
