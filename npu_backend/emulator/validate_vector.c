/* Validation of the vector engine's instructions: their fields. */
#include "validate.h"

static int check_pool(const context *at, const npu_pool *op) {
    return check_window(at, (const npu_depthwise *)(const void *)op, COMPUTED_TYPES, COMPUTED_TYPES) &&
           check_element(at, "input_type", op->input_type, op->input_scale, op->input_zero_point) &&
           check_element(at, "output_type", op->output_type, op->output_scale, op->output_zero_point) &&
           between(at, "counted_height", op->counted_height, 0, MAX_POSITION) &&
           between(at, "counted_width", op->counted_width, 0, MAX_POSITION) &&
           between(at, "output_channels", op->output_channels, op->input_channels, op->input_channels) &&
           between(at, "function", op->function, 0, NPU_POOL_COUNT - 1);
}

static int check_mean(const context *at, const npu_mean *op) {
    return between(at, "input_height", op->input_height, 1, MAX_EXTENT) &&
           between(at, "input_width", op->input_width, 1, MAX_EXTENT) &&
           check_pixels(at, op->input_height, op->input_width) && between(at, "channels", op->channels, 1, MAX_EXTENT) &&
           one_of_types(at, "input_type", op->input_type, BYTE_TYPES) &&
           one_of_types(at, "output_type", op->output_type, BYTE_TYPES) &&
           code(at, "input_zero_point", op->input_zero_point, op->input_type) &&
           code(at, "output_zero_point", op->output_zero_point, op->output_type) &&
           scales_are_valid(at, op->input_scale, op->output_scale);
}

static int element_bytes(const context *at, uint32_t bytes) {
    return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8 || refuse(at, "element_bytes is not 1, 2, 4 or 8");
}

static int check_binary(const context *at, const npu_binary *op) {
    uint32_t types = op->function <= NPU_BINARY_MULTIPLY_CODES ? BYTE_TYPES : COMPUTED_TYPES;
    return counts_are_positive(at, op->counts, 4) &&
           between(at, "function", op->function, 0, NPU_BINARY_COUNT - 1) &&
           one_of_types(at, "left_type", op->left_type, types) &&
           one_of_types(at, "right_type", op->right_type, types) &&
           one_of_types(at, "output_type", op->output_type, types) &&
           check_element(at, "left_type", op->left_type, op->left_scale, op->left_zero_point) &&
           check_element(at, "right_type", op->right_type, op->right_scale, op->right_zero_point) &&
           check_element(at, "output_type", op->output_type, op->output_scale, op->output_zero_point);
}

static int check_select(const context *at, const npu_select *op) {
    return counts_are_positive(at, op->counts, 4) &&
           check_element(at, "left_type", op->left_type, op->left_scale, op->left_zero_point) &&
           check_element(at, "right_type", op->right_type, op->right_scale, op->right_zero_point) &&
           check_element(at, "output_type", op->output_type, op->output_scale, op->output_zero_point);
}

static int check_unary(const context *at, const npu_unary *op) {
    return counts_are_positive(at, op->counts, 4) && between(at, "function", op->function, 0, NPU_UNARY_COUNT - 1) &&
           check_element(at, "input_type", op->input_type, op->input_scale, op->input_zero_point) &&
           check_element(at, "output_type", op->output_type, op->output_scale, op->output_zero_point);
}

static int check_convert(const context *at, const npu_convert *op) {
    return counts_are_positive(at, op->counts, 4) &&
           check_element(at, "input_type", op->input_type, op->input_scale, op->input_zero_point) &&
           check_element(at, "output_type", op->output_type, op->output_scale, op->output_zero_point);
}

static int check_taps(const context *at, const npu_resize *op) {
    int64_t low = op->function == NPU_RESIZE_BILINEAR ? 2 : 1;
    int64_t high = op->function == NPU_RESIZE_SEPARABLE ? MAX_KERNEL : low;
    return between(at, "row_taps", op->row_taps, low, high) && between(at, "column_taps", op->column_taps, low, high) &&
           ((double)op->row_taps * op->input_width * op->channels <= MAX_PIXELS ||
            refuse(at, "row_taps times the elements of a row are beyond 2^26")) &&
           (op->function != NPU_RESIZE_NEAREST || op->input_type == op->output_type ||
            refuse(at, "nearest takes one type to another"));
}

static int check_resize(const context *at, const npu_resize *op) {
    return between(at, "input_height", op->input_height, 1, MAX_EXTENT) &&
           between(at, "input_width", op->input_width, 1, MAX_EXTENT) &&
           between(at, "output_height", op->output_height, 1, MAX_EXTENT) &&
           between(at, "output_width", op->output_width, 1, MAX_EXTENT) &&
           check_pixels(at, op->input_height, op->input_width) &&
           check_pixels(at, op->output_height, op->output_width) && between(at, "channels", op->channels, 1, MAX_EXTENT) &&
           between(at, "input_row_origin", op->input_row_origin, 0, MAX_EXTENT) &&
           between(at, "input_column_origin", op->input_column_origin, 0, MAX_EXTENT) &&
           aligned(at, "row_table is not 4-byte aligned", op->row_table) &&
           aligned(at, "column_table is not 4-byte aligned", op->column_table) &&
           between(at, "function", op->function, 0, NPU_RESIZE_COUNT - 1) &&
           check_element(at, "input_type", op->input_type, op->input_scale, op->input_zero_point) &&
           check_element(at, "output_type", op->output_type, op->output_scale, op->output_zero_point) &&
           check_taps(at, op);
}

static int check_lines(const context *at, const npu_reduce *op) {
    double elements = (double)op->counts[0] * op->counts[1] * op->counts[2] * op->counts[3];
    return counts_are_positive(at, op->counts, 4) &&
           (elements <= MAX_PIXELS || refuse(at, "more elements than one instruction may have")) &&
           between(at, "line_axes", op->line_axes, 0, 15) &&
           check_element(at, "input_type", op->input_type, op->input_scale, op->input_zero_point) &&
           check_element(at, "output_type", op->output_type, op->output_scale, op->output_zero_point);
}

static int check_table_lines(const context *at, const npu_softmax *op) {
    uint32_t axes = 0;
    for (int axis = 0; axis < 4; ++axis) {
        axes += (op->line_axes >> axis & 1u) && op->counts[axis] > 1;
    }
    return between(at, "axes of a line", axes, 0, 1) && aligned(at, "table is not 4-byte aligned", op->table) &&
           one_of_types(at, "input_type", op->input_type, BYTE_TYPES) &&
           one_of_types(at, "output_type", op->output_type, BYTE_TYPES);
}

static int check_softmax(const context *at, const npu_softmax *op) {
    return check_lines(at, (const npu_reduce *)(const void *)op) &&
           between(at, "function", op->function, 0, NPU_SOFTMAX_COUNT - 1) &&
           (op->function != NPU_SOFTMAX_TABLE || check_table_lines(at, op));
}

static int check_reduce(const context *at, const npu_reduce *op) {
    return check_lines(at, op) && between(at, "function", op->function, 0, NPU_REDUCE_COUNT - 1);
}

static int check_normalize(const context *at, const npu_normalize *op) {
    return check_lines(at, (const npu_reduce *)(const void *)op) &&
           ((isfinite(op->epsilon) && op->epsilon >= 0.0f) || refuse(at, "epsilon is negative or not finite")) &&
           between(at, "subtract_mean", op->subtract_mean, 0, 1);
}

static int check_argreduce(const context *at, const npu_argreduce *op) {
    return check_lines(at, (const npu_reduce *)(const void *)op) &&
           one_of_types(at, "output_type", op->output_type, 1u << NPU_TYPE_INT32 | 1u << NPU_TYPE_INT64) &&
           between(at, "function", op->function, NPU_REDUCE_MAXIMUM, NPU_REDUCE_MINIMUM) &&
           between(at, "select_last", op->select_last, 0, 1);
}

static int check_lrn(const context *at, const npu_lrn *op) {
    return check_lines(at, (const npu_reduce *)(const void *)op) && between(at, "size", op->size, 1, MAX_KERNEL);
}

/* The output, which comes last, is written whole and nothing else is; addresses count even where no byte is read. */
static int check_kernel(const context *at, const npu_kernel *op) {
    const uint32_t *addresses = &op->operand0;
    if (!between(at, "kernel", op->kernel, 0, (int64_t)at->program->kernel_count - 1) ||
        !between(at, "operand_count", op->operand_count, 1, NPU_KERNEL_OPERANDS) ||
        !between(at, "run_bytes", op->run_bytes[op->operand_count - 1], 1, UINT32_MAX)) {
        return 0;
    }
    for (uint32_t i = 0; i < op->operand_count; ++i) {
        if (!counts_are_positive(at, op->counts + 4 * (size_t)i, 4) ||
            !between(at, "operand", addresses[i], 0, (int64_t)at->program->cores[at->stream->core].spm_bytes)) {
            return 0;
        }
    }
    return 1;
}

int npu_check_vector(const context *at) {
    const void *op = at->instruction;
    switch (at->instruction->opcode) {
    case NPU_OP_POOL:
        return check_pool(at, op);
    case NPU_OP_MEAN:
        return check_mean(at, op);
    case NPU_OP_TABLE:
        return counts_are_positive(at, ((const npu_table *)op)->counts, 4);
    case NPU_OP_COPY:
        return counts_are_positive(at, ((const npu_copy *)op)->counts, 4) &&
               element_bytes(at, ((const npu_copy *)op)->element_bytes);
    case NPU_OP_FILL:
        return counts_are_positive(at, ((const npu_fill *)op)->counts, 4) &&
               element_bytes(at, ((const npu_fill *)op)->element_bytes);
    case NPU_OP_BINARY:
        return check_binary(at, op);
    case NPU_OP_SELECT:
        return check_select(at, op);
    case NPU_OP_UNARY:
        return check_unary(at, op);
    case NPU_OP_CONVERT:
        return check_convert(at, op);
    case NPU_OP_RESIZE:
        return check_resize(at, op);
    case NPU_OP_SOFTMAX:
        return check_softmax(at, op);
    case NPU_OP_REDUCE:
        return check_reduce(at, op);
    case NPU_OP_NORMALIZE:
        return check_normalize(at, op);
    case NPU_OP_ARGREDUCE:
        return check_argreduce(at, op);
    case NPU_OP_LRN:
        return check_lrn(at, op);
    case NPU_OP_KERNEL:
        return check_kernel(at, op);
    default:
        return refuse(at, "is not validated"); /* unreachable: the opcode is in the table */
    }
}
