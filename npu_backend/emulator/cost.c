/* Cycles of one instruction on one core; those of the vector engine in cost_vector.c.
 *
 * Matrix engine. The array multiplies input channels x output channels x pixels at a time, so each axis is rounded up
 * to its lanes (padding lanes are paid for), once per kernel tap. A block of sums stays in the array until it is
 * complete; array_fill is what filling the adder trees and draining the accumulators adds to every block:
 *
 *   blocks * (ceil(steps of a block / rate) + array_fill) + matrix_fill
 *
 *              blocks                                                  steps of a block
 *   CONV       ceil(output_channels / lanes) * ceil(pixels / lanes)    ceil(input_channels / lanes) * taps
 *   DEPTHWISE  ceil(channels / depthwise lanes) * ceil(pixels / ...)   taps
 *   MATMUL     as a CONV of one tap: inner for input channels, columns for output channels, rows for pixels; at the
 *              rate of the wider operand, floats and codes times floats at that of float16
 *
 * On a core that folds the kernel's width, input channels that leave lanes free share them with the next taps of the
 * same kernel row: an image of 3 channels on 16 lanes takes 5 taps at once, a 3x3 kernel then 3 steps instead of 9.
 */
#include "cost.h"

#include <string.h>

#include "matrix.h"

double npu_ceil_divide(double value, double by) {
    double quotient = value / by;
    if (!(quotient < 9007199254740992.0)) { /* 2^53: no fraction left, and no conversion to trust */
        return quotient;
    }
    double whole = (double)(uint64_t)quotient;
    return whole < quotient ? whole + 1 : whole;
}

/* Blocks of sums, and the steps of each at the int8 rate. */
typedef struct {
    double blocks;
    double steps;
} array_work;

/* Steps through the kernel and the input channels. */
static double reduction_steps(const npu_record_core *core, const npu_conv *op) {
    double rows = op->kernel_height;
    double columns = op->kernel_width;
    if (core->folds_kernel_width && op->input_channels > 0 && op->input_channels < core->lanes_input_channels) {
        return rows * npu_ceil_divide(columns, core->lanes_input_channels / op->input_channels);
    }
    return rows * columns * npu_ceil_divide(op->input_channels, core->lanes_input_channels);
}

static array_work conv_work(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_conv *op = (const npu_conv *)(const void *)instruction;
    uint64_t pixels = (uint64_t)op->output_height * op->output_width;
    cost->macs = pixels * op->output_channels * op->input_channels * op->kernel_height * op->kernel_width;
    cost->mac_type = op->input_type;
    double channels = npu_ceil_divide(op->output_channels, core->lanes_output_channels);
    return (array_work){channels * npu_ceil_divide((double)pixels, core->lanes_pixels), reduction_steps(core, op)};
}

static array_work depthwise_work(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_depthwise *op = (const npu_depthwise *)(const void *)instruction;
    uint64_t pixels = (uint64_t)op->output_height * op->output_width;
    cost->macs = pixels * op->output_channels * op->kernel_height * op->kernel_width;
    cost->mac_type = op->input_type;
    double channels = npu_ceil_divide(op->output_channels, core->depthwise_channels);
    return (array_work){channels * npu_ceil_divide((double)pixels, core->depthwise_pixels),
                        (double)op->kernel_height * op->kernel_width};
}

static uint32_t mac_type_of_product(const npu_matmul *op) {
    if (npu_sum_of(op->left_type, op->right_type) == NPU_SUM_FLOAT32) {
        return NPU_TYPE_FLOAT16;
    }
    return npu_type_bytes(op->left_type) >= npu_type_bytes(op->right_type) ? op->left_type : op->right_type;
}

static array_work matmul_work(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    const npu_matmul *op = (const npu_matmul *)(const void *)instruction;
    cost->macs = (uint64_t)op->rows * op->inner * op->columns;
    cost->mac_type = mac_type_of_product(op);
    double columns = npu_ceil_divide(op->columns, core->lanes_output_channels);
    return (array_work){columns * npu_ceil_divide(op->rows, core->lanes_pixels),
                        npu_ceil_divide(op->inner, core->lanes_input_channels)};
}

static array_work matrix_work(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost) {
    switch (instruction->opcode) {
    case NPU_OP_CONV: return conv_work(core, instruction, cost);
    case NPU_OP_MATMUL: return matmul_work(core, instruction, cost);
    default: return depthwise_work(core, instruction, cost);
    }
}

static npu_status matrix_cycles(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost,
                                double *cycles, npu_message *message) {
    array_work work = matrix_work(core, instruction, cost);
    double rate = cost->mac_type < NPU_TYPE_COUNT ? core->rate[cost->mac_type] : 0;
    if (!(rate > 0)) {
        return npu_fail(message, NPU_TRAP, "%s with inputs of type %u: the core's MAC array has no rate for it",
                        npu_opcode_name(instruction->opcode), cost->mac_type);
    }
    *cycles = work.blocks * (npu_ceil_divide(work.steps, rate) + core->array_fill_cycles) + core->matrix_fill_cycles;
    return NPU_OK;
}

npu_status npu_instruction_cost(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost,
                                npu_message *message) {
    double cycles = 0;
    *cost = (npu_cost){0, 0, 0, 0};
    if (instruction->opcode == NPU_OP_CONV || instruction->opcode == NPU_OP_DEPTHWISE ||
        instruction->opcode == NPU_OP_MATMUL) {
        npu_status status = matrix_cycles(core, instruction, cost, &cycles, message);
        if (status != NPU_OK) {
            return status;
        }
    } else {
        npu_vector_cost function = npu_vector_cost_of(instruction->opcode);
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
