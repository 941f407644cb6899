/* Cycles of one instruction on one core.
 *
 * Matrix engine. The array multiplies input channels x output channels x pixels at a time, so each axis is rounded up
 * to its lanes (padding lanes are paid for), once per kernel tap:
 *
 *   CONV       ceil(input_channels / lanes) * ceil(output_channels / lanes) * ceil(pixels / lanes) * taps / rate + fill
 *   DEPTHWISE  ceil(channels / depthwise lanes) * ceil(pixels / depthwise lanes) * taps / rate + fill
 *
 * On a core that folds the kernel's width, input channels that leave lanes free share them with the next taps of the
 * same kernel row: an image of 3 channels on 16 lanes takes 5 taps at once, a 3x3 kernel then 3 steps instead of 9.
 *
 * Vector engine. It has `vector_lanes` byte lanes: an element of b bytes occupies b lanes for a cycle, at each pass.
 * It reads and writes the scratchpad by words of vector_lanes / spm_banks bytes, one word a bank a cycle, so a view in
 * short runs costs whole words. The slower of the two counts, plus the fill. Lanes of an element, per opcode:
 *
 *   POOL        taps x b for a maximum; taps x 2b for an average, whose sums are wider, and 4 to scale the result
 *   MEAN        2b an input element (wider sums), 4 an output element
 *   TABLE       1: a look-up in each lane          COPY, FILL  b
 *   BINARY      one pass for each operand (rescale and accumulate), one for the output
 *   CONVERT     4: float32 is what it goes through
 *   RESIZE      nearest b; bilinear 4 taps of b and 4 to round
 *   SOFTMAX     b for the maximum, 4 for exponential and sum, 4 to scale
 */
#include "cost.h"

#include <string.h>

#include "internal.h"

/* An element-wise operand: `counts` elements with byte strides. */
typedef struct {
    const uint32_t *counts;
    const uint32_t *strides;
    int axes;
    uint32_t element_bytes;
} view;

static double ceil_divide(double value, double by) {
    double quotient = value / by;
    if (!(quotient < 9007199254740992.0)) { /* 2^53: no fraction left, and no conversion to trust */
        return quotient;
    }
    double whole = (double)(uint64_t)quotient;
    return whole < quotient ? whole + 1 : whole;
}

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
    return runs * ceil_divide(run, word);
}

static double vector_cycles(const npu_record_core *core, npu_cost *cost, double lanes, const view *views, int count) {
    double cycles = ceil_divide(lanes, core->vector_lanes);
    for (int index = 0; index < count; ++index) {
        double access = ceil_divide(view_words(core, &views[index]), core->spm_banks);
        cycles = access > cycles ? access : cycles;
    }
    cost->vector_operations = lanes;
    return cycles + core->vector_fill_cycles;
}

/* Steps through the kernel and the input channels. */
static double reduction_steps(const npu_record_core *core, const npu_conv *op) {
    double rows = op->kernel_height;
    double columns = op->kernel_width;
    if (core->folds_kernel_width && op->input_channels > 0 && op->input_channels < core->lanes_input_channels) {
        return rows * ceil_divide(columns, core->lanes_input_channels / op->input_channels);
    }
    return rows * columns * ceil_divide(op->input_channels, core->lanes_input_channels);
}

static double conv_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_conv *op = (const npu_conv *)(const void *)instruction;
    uint64_t pixels = (uint64_t)op->output_height * op->output_width;
    cost->macs = pixels * op->output_channels * op->input_channels * op->kernel_height * op->kernel_width;
    cost->mac_type = op->input_type;
    return reduction_steps(core, op) * ceil_divide(op->output_channels, core->lanes_output_channels) *
           ceil_divide((double)pixels, core->lanes_pixels);
}

static double depthwise_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_depthwise *op = (const npu_depthwise *)(const void *)instruction;
    uint64_t pixels = (uint64_t)op->output_height * op->output_width;
    cost->macs = pixels * op->output_channels * op->kernel_height * op->kernel_width;
    cost->mac_type = op->input_type;
    return ceil_divide(op->output_channels, core->depthwise_channels) *
           ceil_divide((double)pixels, core->depthwise_pixels) * op->kernel_height * op->kernel_width;
}

static npu_status matrix_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost,
                                double *cycles, npu_message *message) {
    double steps = instruction->opcode == NPU_OP_CONV ? conv_cycles(core, instruction, cost)
                                                      : depthwise_cycles(core, instruction, cost);
    double rate = cost->mac_type < NPU_TYPE_COUNT ? core->rate[cost->mac_type] : 0;
    if (!(rate > 0)) {
        return npu_fail(message, NPU_TRAP, "%s with inputs of type %u: the core's MAC array has no rate for it",
                        npu_opcode_name(instruction->opcode), cost->mac_type);
    }
    *cycles = ceil_divide(steps, rate) + core->matrix_fill_cycles;
    return NPU_OK;
}

static double pool_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_pool *op = (const npu_pool *)(const void *)instruction;
    double outputs = (double)op->output_height * op->output_width * op->output_channels;
    double taps = (double)op->kernel_height * op->kernel_width;
    double bytes = npu_type_bytes(op->input_type);
    double lanes = op->function == NPU_POOL_MAXIMUM ? taps * bytes : taps * 2 * bytes + 4;
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

static double copy_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_copy *op = (const npu_copy *)(const void *)instruction;
    return two_views(core, cost, op->counts, op->input_strides, op->output_strides, op->element_bytes,
                     op->element_bytes, op->element_bytes);
}

static double fill_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_fill *op = (const npu_fill *)(const void *)instruction;
    const view output = {op->counts, op->output_strides, 4, op->element_bytes};
    return vector_cycles(core, cost, product(op->counts, 4) * op->element_bytes, &output, 1);
}

static double binary_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_binary *op = (const npu_binary *)(const void *)instruction;
    uint32_t left = npu_type_bytes(op->left_type);
    uint32_t right = npu_type_bytes(op->right_type);
    uint32_t output = npu_type_bytes(op->output_type);
    const view views[3] = {{op->counts, op->left_strides, 4, left},
                           {op->counts, op->right_strides, 4, right},
                           {op->counts, op->output_strides, 4, output}};
    double lanes = (double)left + right + output;
    if (op->function >= NPU_BINARY_FLOAT_ADD) {
        /* Both operands to float32, the function, and back: four bytes wide each. */
        lanes = 4.0 * (2 + (op->left_type != NPU_TYPE_FLOAT32) + (op->right_type != NPU_TYPE_FLOAT32));
    }
    return vector_cycles(core, cost, product(op->counts, 4) * lanes, views, 3);
}

static double convert_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_convert *op = (const npu_convert *)(const void *)instruction;
    return two_views(core, cost, op->counts, op->input_strides, op->output_strides, npu_type_bytes(op->input_type),
                     npu_type_bytes(op->output_type), 4);
}

static double resize_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_resize *op = (const npu_resize *)(const void *)instruction;
    double outputs = (double)op->output_height * op->output_width * op->channels;
    double bytes = npu_type_bytes(op->data_type);
    double lanes = op->function == NPU_RESIZE_NEAREST ? bytes : 4 * bytes + 4;
    return vector_cycles(core, cost, outputs * lanes, NULL, 0);
}

static double softmax_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_softmax *op = (const npu_softmax *)(const void *)instruction;
    double lanes = (double)npu_type_bytes(op->input_type) + 8;
    return vector_cycles(core, cost, product(op->counts, 3) * op->length * lanes, NULL, 0);
}

typedef double (*vector_cost)(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost);

static vector_cost vector_cost_of(uint32_t opcode) {
    switch (opcode) {
    case NPU_OP_POOL: return pool_cycles;
    case NPU_OP_MEAN: return mean_cycles;
    case NPU_OP_TABLE: return table_cycles;
    case NPU_OP_COPY: return copy_cycles;
    case NPU_OP_FILL: return fill_cycles;
    case NPU_OP_BINARY: return binary_cycles;
    case NPU_OP_CONVERT: return convert_cycles;
    case NPU_OP_RESIZE: return resize_cycles;
    case NPU_OP_SOFTMAX: return softmax_cycles;
    default: return NULL;
    }
}

npu_status npu_instruction_cost(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost,
                                npu_message *message) {
    double cycles = 0;
    *cost = (npu_cost){0, 0, 0, 0};
    if (instruction->opcode == NPU_OP_CONV || instruction->opcode == NPU_OP_DEPTHWISE) {
        npu_status status = matrix_cycles(core, instruction, cost, &cycles, message);
        if (status != NPU_OK) {
            return status;
        }
    } else {
        vector_cost function = vector_cost_of(instruction->opcode);
        if (function == NULL) {
            return npu_fail(message, NPU_BAD_ARGUMENT, "opcode %u is no instruction of the matrix or vector engine",
                            instruction->opcode);
        }
        cycles = function(core, instruction, cost);
    }
    cost->duration_ns = cycles * 1000 / core->clock_mhz;
    return NPU_OK;
}

npu_status npu_check_core(const npu_record_core *core, npu_message *message) {
    if (!(core->clock_mhz > 0) || core->vector_lanes == 0 || core->spm_banks == 0 || core->lanes_input_channels == 0 ||
        core->lanes_output_channels == 0 || core->lanes_pixels == 0 || core->depthwise_channels == 0 ||
        core->depthwise_pixels == 0) {
        return npu_fail(message, NPU_BAD_ARGUMENT, "a core's clock, lanes and banks must all be positive");
    }
    return NPU_OK;
}

/* Bytes of an opcode of the matrix or vector engine, 0 for all others. */
static size_t compute_bytes(uint32_t opcode) {
    switch (opcode) {
#define NPU_CASE(upper, lower, engine) \
    case NPU_OP_##upper: return (engine) >= NPU_ENGINE_MATRIX ? sizeof(npu_##lower) : 0;
        NPU_OPCODES(NPU_CASE)
#undef NPU_CASE
    default: return 0;
    }
}

npu_status npu_instruction_ns(const npu_record_core *core, const uint8_t *instruction, uint64_t bytes,
                              double *duration_ns, npu_message *message) {
    union {
        npu_instruction head;
        npu_conv conv; /* for its alignment */
        uint8_t bytes[512];
    } copy;
    npu_cost cost;
    *duration_ns = 0;
    npu_status status = npu_check_core(core, message);
    if (status != NPU_OK) {
        return status;
    }
    if (bytes < sizeof(npu_instruction) || bytes > sizeof(copy)) {
        return npu_fail(message, NPU_BAD_ARGUMENT, "%llu bytes are no instruction", (unsigned long long)bytes);
    }
    memcpy(copy.bytes, instruction, bytes);
    if (compute_bytes(copy.head.opcode) != bytes) {
        return npu_fail(message, NPU_BAD_ARGUMENT, "opcode %u of %llu bytes is no instruction of the matrix or vector "
                        "engine", copy.head.opcode, (unsigned long long)bytes);
    }
    status = npu_instruction_cost(core, &copy.head, &cost, message);
    *duration_ns = cost.duration_ns;
    return status;
}

uint64_t npu_burst_bytes(const npu_record_machine *machine, uint64_t runs, uint64_t run_bytes) {
    uint64_t burst = machine->burst_bytes > 0 ? machine->burst_bytes : 1;
    return runs * ((run_bytes + burst - 1) / burst * burst);
}
