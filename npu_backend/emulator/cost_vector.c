/* Cycles of one instruction of the vector engine.
 *
 * It has `vector_lanes` byte lanes: an element of b bytes occupies b lanes for a cycle, at each pass.
 * It reads and writes the scratchpad by words of vector_lanes / spm_banks bytes, one word a bank a cycle, so a view in
 * short runs costs whole words. The slower of the two counts, plus the fill. Lanes of an element, per opcode:
 *
 *   POOL        taps x b for a maximum; taps x s for a sum, and 4 to scale the result; s = min(2b, 4) is its width
 *   MEAN        2b an input element (wider sums), 4 an output element
 *   TABLE       1: a look-up in each lane          COPY, FILL  b
 *   BINARY      on codes one pass for each operand (rescale and accumulate), one for the output; in float32 and of
 *               integers 4 a step: one for the function (16 for a power), one to convert each of the three that is
 *               neither float nor bool
 *   UNARY       4 a step: one for arithmetic and selections, 8 for a polynomial (exp, log, sin, ...), 16 for two
 *               (sigmoid, tanh, power, ...), and the conversions of BINARY
 *   SELECT      4, and the conversions of BINARY
 *   CONVERT     4: float32 is what it goes through
 *   RESIZE      nearest b; else b at each row times column tap, and 4 to round
 *   SOFTMAX     b for the maximum, 4 for exponential and sum, 4 to scale
 *   REDUCE      b for an extreme, s for a sum; b and 4 for a logarithm of a sum of
 *               exponentials; 4 a line
 *   ARGREDUCE   b to compare, 4 for the index
 *   NORMALIZE   s for the mean, 4 for the variance, 4 to scale; 4 a line
 *   LRN         4 for the square, 4 for each of `size` taps, 4 for the power, 4 to scale
 *   GATHER      b an element moved, 4 an index
 *   KERNEL      b an operation, 8b a division, root or exponential; or b an element loaded or stored, if that is more
 *
 * Assumptions of KERNEL: its native code keeps every lane busy, loop counters and affine indices are computed beside the
 * lanes, a special function takes the steps of UNARY's polynomial, and loads and stores share one port of the width of
 * all lanes, behind the arithmetic. No core has figures of its own for it: vector_lanes and vector_fill_cycles say all.
 */
#include "cost.h"
#include "internal.h"

/* An element-wise operand: `counts` elements with byte strides. */
typedef struct {
    const uint32_t *counts;
    const uint32_t *strides;
    int axes;
    uint32_t element_bytes;
} view;

static double product(const uint32_t *counts, int axes) {
    double result = 1;
    for (int axis = 0; axis < axes; ++axis) {
        result *= counts[axis];
    }
    return result;
}

/* Scratchpad words of a view: its contiguous runs, each in whole words. An axis with stride 0 is read once. */
static double view_words(const npu_record_core *core, const view *operand) {
    double word = core->vector_lanes > core->spm_banks ? (double)core->vector_lanes / core->spm_banks : 1;
    double run = operand->element_bytes;
    double runs = 1;
    for (int axis = operand->axes - 1; axis >= 0; --axis) {
        uint32_t count = operand->counts[axis];
        uint32_t stride = operand->strides[axis];
        if (count == 1 || stride == 0) {
            continue;
        }
        if (runs == 1 && (double)stride == run) {
            run *= count;
        } else {
            runs *= count;
        }
    }
    return runs * npu_ceil_divide(run, word);
}

static double vector_cycles(const npu_record_core *core, npu_cost *cost, double lanes, const view *views, int count) {
    double cycles = npu_ceil_divide(lanes, core->vector_lanes);
    for (int index = 0; index < count; ++index) {
        double access = npu_ceil_divide(view_words(core, &views[index]), core->spm_banks);
        cycles = access > cycles ? access : cycles;
    }
    cost->vector_operations = lanes;
    return cycles + core->vector_fill_cycles;
}

/* An element narrower than float32 is summed in twice its bytes. */
static double sum_lanes(uint32_t type) {
    uint32_t bytes = npu_type_bytes(type);
    return bytes > 2 ? 4 : 2.0 * bytes;
}

static double pool_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_pool *op = (const npu_pool *)(const void *)instruction;
    double outputs = (double)op->output_height * op->output_width * op->output_channels;
    double taps = (double)op->kernel_height * op->kernel_width;
    double lanes = op->function == NPU_POOL_MAXIMUM ? taps * npu_type_bytes(op->input_type)
                                                    : taps * sum_lanes(op->input_type) + 4;
    return vector_cycles(core, cost, outputs * lanes, NULL, 0);
}

static double mean_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_mean *op = (const npu_mean *)(const void *)instruction;
    double pixels = (double)op->input_height * op->input_width;
    double lanes = (pixels * 2 * npu_type_bytes(op->input_type) + 4) * op->channels;
    return vector_cycles(core, cost, lanes, NULL, 0);
}

static double two_views(const npu_record_core *core, npu_cost *cost, const uint32_t *counts, const uint32_t *input,
                        const uint32_t *output, uint32_t input_bytes, uint32_t output_bytes, double lanes) {
    const view views[2] = {{counts, input, 4, input_bytes}, {counts, output, 4, output_bytes}};
    return vector_cycles(core, cost, product(counts, 4) * lanes, views, 2);
}

static double table_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_table *op = (const npu_table *)(const void *)instruction;
    return two_views(core, cost, op->counts, op->input_strides, op->output_strides, 1, 1, 1);
}

/* Strides of a view that may walk backwards: words and runs are the same. */
static double copy_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_copy *op = (const npu_copy *)(const void *)instruction;
    uint32_t strides[4];
    for (int axis = 0; axis < 4; ++axis) {
        int64_t stride = op->input_strides[axis];
        strides[axis] = (uint32_t)(stride < 0 ? -stride : stride);
    }
    return two_views(core, cost, op->counts, strides, op->output_strides, op->element_bytes, op->element_bytes,
                     op->element_bytes);
}

static double gather_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_gather *op = (const npu_gather *)(const void *)instruction;
    const uint32_t *from = op->input_strides, *to = op->output_strides;
    const uint32_t counts[4] = {op->index_count, op->counts[0], op->counts[1], op->counts[2]};
    const uint32_t inputs[4] = {op->input_step_bytes, from[0], from[1], from[2]};
    const uint32_t outputs[4] = {op->output_step_bytes, to[0], to[1], to[2]};
    const view views[2] = {{counts, inputs, 4, op->run_bytes}, {counts, outputs, 4, op->run_bytes}};
    return vector_cycles(core, cost, product(counts, 4) * op->run_bytes + 4.0 * op->index_count, views, 2);
}

static double fill_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_fill *op = (const npu_fill *)(const void *)instruction;
    const view output = {op->counts, op->output_strides, 4, op->element_bytes};
    return vector_cycles(core, cost, product(op->counts, 4) * op->element_bytes, &output, 1);
}

/* A pass between codes or integers and float32; halves, floats and booleans are read and written as they pass. */
static double conversion(uint32_t type) {
    return type == NPU_TYPE_FLOAT16 || type == NPU_TYPE_FLOAT32 || type == NPU_TYPE_BOOL ? 0 : 1;
}

#define POLYNOMIAL_STEPS 8

static double unary_steps(const npu_unary *op) {
    switch (op->function) {
    case NPU_UNARY_POWER: return op->alpha == 2.0f ? 1 : op->alpha == 3.0f ? 2 : 2 * POLYNOMIAL_STEPS;
    case NPU_UNARY_SIGMOID:
    case NPU_UNARY_TANH:
    case NPU_UNARY_TAN:
    case NPU_UNARY_SINH:
    case NPU_UNARY_COSH:
    case NPU_UNARY_SOFTPLUS: return 2 * POLYNOMIAL_STEPS;
    default: return op->function >= NPU_UNARY_EXP && op->function <= NPU_UNARY_GELU_TANH ? POLYNOMIAL_STEPS : 1;
    }
}

static double binary_steps(uint32_t function) {
    return function == NPU_BINARY_POWER ? 2 * POLYNOMIAL_STEPS : 1;
}

static double binary_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_binary *op = (const npu_binary *)(const void *)instruction;
    uint32_t left = npu_type_bytes(op->left_type);
    uint32_t right = npu_type_bytes(op->right_type);
    uint32_t output = npu_type_bytes(op->output_type);
    const view views[3] = {{op->counts, op->left_strides, 4, left},
                           {op->counts, op->right_strides, 4, right},
                           {op->counts, op->output_strides, 4, output}};
    double lanes = op->function <= NPU_BINARY_MULTIPLY_CODES
                       ? (double)left + right + output
                       : 4.0 * (binary_steps(op->function) + conversion(op->left_type) + conversion(op->right_type) +
                                conversion(op->output_type));
    return vector_cycles(core, cost, product(op->counts, 4) * lanes, views, 3);
}

static double select_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_select *op = (const npu_select *)(const void *)instruction;
    const view views[4] = {{op->counts, op->condition_strides, 4, 1},
                           {op->counts, op->left_strides, 4, npu_type_bytes(op->left_type)},
                           {op->counts, op->right_strides, 4, npu_type_bytes(op->right_type)},
                           {op->counts, op->output_strides, 4, npu_type_bytes(op->output_type)}};
    double steps = 1 + conversion(op->left_type) + conversion(op->right_type) + conversion(op->output_type);
    return vector_cycles(core, cost, product(op->counts, 4) * 4 * steps, views, 4);
}

static double unary_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_unary *op = (const npu_unary *)(const void *)instruction;
    double steps = unary_steps(op) + conversion(op->input_type) + conversion(op->output_type);
    return two_views(core, cost, op->counts, op->input_strides, op->output_strides, npu_type_bytes(op->input_type),
                     npu_type_bytes(op->output_type), 4 * steps);
}

static double convert_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_convert *op = (const npu_convert *)(const void *)instruction;
    return two_views(core, cost, op->counts, op->input_strides, op->output_strides, npu_type_bytes(op->input_type),
                     npu_type_bytes(op->output_type), 4);
}

static double resize_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_resize *op = (const npu_resize *)(const void *)instruction;
    double outputs = (double)op->output_height * op->output_width * op->channels;
    double bytes = npu_type_bytes(op->input_type), taps = (double)op->row_taps * op->column_taps;
    double lanes = op->function == NPU_RESIZE_NEAREST ? bytes : taps * bytes + 4;
    return vector_cycles(core, cost, outputs * lanes, NULL, 0);
}

/* `lanes` an element, and `line_lanes` a line; `reduces`: the output has one element a line. */
static double line_cycles(const npu_record_core *core, npu_cost *cost, const npu_reduce *op, double lanes,
                          double line_lanes, int reduces) {
    uint32_t lines[4];
    for (int axis = 0; axis < 4; ++axis) {
        lines[axis] = op->line_axes >> axis & 1u ? 1 : op->counts[axis];
    }
    const view views[2] = {{op->counts, op->input_strides, 4, npu_type_bytes(op->input_type)},
                           {reduces ? lines : op->counts, op->output_strides, 4, npu_type_bytes(op->output_type)}};
    return vector_cycles(core, cost, product(op->counts, 4) * lanes + product(lines, 4) * line_lanes, views, 2);
}

static double softmax_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_reduce *op = (const npu_reduce *)(const void *)instruction;
    return line_cycles(core, cost, op, (double)npu_type_bytes(op->input_type) + 8, 0, 0);
}

static double reduce_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_reduce *op = (const npu_reduce *)(const void *)instruction;
    double compare = npu_type_bytes(op->input_type);
    double lanes = op->function == NPU_REDUCE_MAXIMUM || op->function == NPU_REDUCE_MINIMUM ? compare
                   : op->function == NPU_REDUCE_LOG_SUM_EXP                                 ? compare + 4
                                                                                            : sum_lanes(op->input_type);
    return line_cycles(core, cost, op, lanes, 4, 1);
}

static double normalize_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_normalize *op = (const npu_normalize *)(const void *)instruction;
    double lanes = op->subtract_mean ? sum_lanes(op->input_type) + 8 : 8;
    return line_cycles(core, cost, (const npu_reduce *)(const void *)op, lanes, 4, 0);
}

static double argreduce_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_reduce *op = (const npu_reduce *)(const void *)instruction;
    return line_cycles(core, cost, op, (double)npu_type_bytes(op->input_type) + 4, 0, 1);
}

static double lrn_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_lrn *op = (const npu_lrn *)(const void *)instruction;
    return line_cycles(core, cost, (const npu_reduce *)(const void *)op, 4.0 * ((double)op->size + 3), 0, 0);
}

/* Its loads and stores are counted one by one: how they lie in words is the native code's. */
static double kernel_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_kernel *op = (const npu_kernel *)(const void *)instruction;
    double lanes = (double)op->simple_bytes + (double)POLYNOMIAL_STEPS * (double)op->special_bytes;
    double access = npu_ceil_divide((double)op->access_bytes, core->vector_lanes);
    double cycles = vector_cycles(core, cost, lanes, NULL, 0), least = access + core->vector_fill_cycles;
    return cycles > least ? cycles : least;
}

npu_vector_cost npu_vector_cost_of(uint32_t opcode) {
    switch (opcode) {
    case NPU_OP_POOL: return pool_cycles;
    case NPU_OP_MEAN: return mean_cycles;
    case NPU_OP_TABLE: return table_cycles;
    case NPU_OP_COPY: return copy_cycles;
    case NPU_OP_FILL: return fill_cycles;
    case NPU_OP_BINARY: return binary_cycles;
    case NPU_OP_SELECT: return select_cycles;
    case NPU_OP_UNARY: return unary_cycles;
    case NPU_OP_CONVERT: return convert_cycles;
    case NPU_OP_RESIZE: return resize_cycles;
    case NPU_OP_SOFTMAX: return softmax_cycles;
    case NPU_OP_REDUCE: return reduce_cycles;
    case NPU_OP_NORMALIZE: return normalize_cycles;
    case NPU_OP_ARGREDUCE: return argreduce_cycles;
    case NPU_OP_LRN: return lrn_cycles;
    case NPU_OP_GATHER: return gather_cycles;
    case NPU_OP_KERNEL: return kernel_cycles;
    default: return NULL;
    }
}
