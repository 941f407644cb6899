/* Validation of one instruction: fields, then the bytes it touches. What passes here no kernel needs to check again,
 * and its positions fit in 32-bit signed integers. */
#include "internal.h"

#include <math.h>
#include <stdio.h>

#define MAX_EXTENT (1 << 24)  /* rows, columns, channels */
#define MAX_PIXELS (1 << 26)  /* rows times columns: bounds the work of one instruction */
#define MAX_KERNEL 65535      /* taps, strides and dilations of one axis */
#define MAX_POSITION (1 << 30) /* of any tap */
#define MAX_DESCRIPTION 256

typedef struct {
    npu_program *program;
    const npu_stream *stream;
    const npu_instruction *instruction;
    npu_message *message;
} context;

static int refuse(const context *at, const char *what) {
    char description[MAX_DESCRIPTION];
    npu_describe(at->program, at->stream, at->instruction, description, sizeof description);
    npu_say(at->message, "%s: %s", description, what);
    return 0;
}

static int between(const context *at, const char *field, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) {
        return 1;
    }
    char what[160];
    snprintf(what, sizeof what, "%s is %lld, not in %lld..%lld", field, (long long)value, (long long)low,
             (long long)high);
    return refuse(at, what);
}

static int finite_and_positive(const context *at, const char *field, float value) {
    if (isfinite(value) && value > 0.0f) {
        return 1;
    }
    char what[160];
    snprintf(what, sizeof what, "%s is %g, not finite and positive", field, (double)value);
    return refuse(at, what);
}

static int scales_are_valid(const context *at, float input_scale, float output_scale) {
    return finite_and_positive(at, "input_scale", input_scale) && finite_and_positive(at, "output_scale", output_scale);
}

static int one_of_types(const context *at, const char *field, uint32_t type, uint32_t mask) {
    if (type < NPU_TYPE_COUNT && (mask >> type & 1u)) {
        return 1;
    }
    char what[160];
    snprintf(what, sizeof what, "%s is data type %u, which this instruction does not take", field, type);
    return refuse(at, what);
}

#define BYTE_TYPES (1u << NPU_TYPE_UINT8 | 1u << NPU_TYPE_INT8)
#define ALL_TYPES ((1u << NPU_TYPE_COUNT) - 1)
#define CODE_TYPES (BYTE_TYPES | 1u << NPU_TYPE_INT16 | 1u << NPU_TYPE_UINT16)
#define FLOAT_TYPES (1u << NPU_TYPE_FLOAT16 | 1u << NPU_TYPE_FLOAT32)

static int64_t lowest(uint32_t type) {
    switch (type) {
    case NPU_TYPE_INT8: return INT8_MIN;
    case NPU_TYPE_INT16: return INT16_MIN;
    default: return 0;
    }
}

static int64_t highest(uint32_t type) {
    switch (type) {
    case NPU_TYPE_UINT8: return UINT8_MAX;
    case NPU_TYPE_INT8: return INT8_MAX;
    case NPU_TYPE_UINT16: return UINT16_MAX;
    case NPU_TYPE_INT16: return INT16_MAX;
    default: return 0;
    }
}

static int code(const context *at, const char *field, int32_t value, uint32_t type) {
    return between(at, field, value, lowest(type), highest(type));
}

/* An element of npu_element: codes have a zero point in their range, all others have none. */
static int check_element(const context *at, const char *field, uint32_t type, float scale, int32_t zero_point) {
    return one_of_types(at, field, type, ALL_TYPES) && code(at, "zero_point", zero_point, type) &&
           finite_and_positive(at, "scale", scale) &&
           ((CODE_TYPES >> type & 1u) || scale == 1.0f || refuse(at, "a scale other than 1 without codes"));
}

static int counts_are_positive(const context *at, const uint32_t *counts, int axes) {
    for (int axis = 0; axis < axes; ++axis) {
        if (!between(at, "a count", counts[axis], 1, UINT32_MAX)) {
            return 0;
        }
    }
    return 1;
}

static int aligned(const context *at, const char *field, uint32_t address) {
    return address % 4 == 0 || refuse(at, field);
}

static int window_axis(const context *at, uint32_t input, uint32_t output, uint32_t kernel, uint32_t stride,
                       uint32_t dilation, int32_t pad) {
    return between(at, "an input extent", input, 1, MAX_EXTENT) &&
           between(at, "an output extent", output, 1, MAX_EXTENT) &&
           between(at, "a kernel extent", kernel, 1, MAX_KERNEL) &&
           between(at, "a stride", stride, 1, MAX_KERNEL) && between(at, "a dilation", dilation, 1, MAX_KERNEL) &&
           between(at, "a pad", pad, -MAX_EXTENT, MAX_EXTENT) &&
           between(at, "the last tap's position",
                   (int64_t)(output - 1) * stride + (int64_t)(kernel - 1) * dilation - pad, -MAX_POSITION, MAX_POSITION);
}

static int check_pixels(const context *at, uint32_t height, uint32_t width) {
    return between(at, "height times width", (int64_t)((uint64_t)height * width), 1, MAX_PIXELS);
}

static int check_window(const context *at, const npu_depthwise *op) {
    return window_axis(at, op->input_height, op->output_height, op->kernel_height, op->stride_height,
                       op->dilation_height, op->pad_top) &&
           window_axis(at, op->input_width, op->output_width, op->kernel_width, op->stride_width, op->dilation_width,
                       op->pad_left) &&
           check_pixels(at, op->input_height, op->input_width) &&
           check_pixels(at, op->output_height, op->output_width) &&
           between(at, "input_channels", op->input_channels, 1, MAX_EXTENT) &&
           between(at, "output_channels", op->output_channels, 1, MAX_EXTENT) &&
           one_of_types(at, "input_type", op->input_type, BYTE_TYPES) &&
           one_of_types(at, "output_type", op->output_type, BYTE_TYPES) &&
           code(at, "input_zero_point", op->input_zero_point, op->input_type) &&
           code(at, "output_zero_point", op->output_zero_point, op->output_type);
}

static int check_matrix(const context *at, const npu_depthwise *op) {
    return check_window(at, op) && code(at, "clamp_low", op->clamp_low, op->output_type) &&
           code(at, "clamp_high", op->clamp_high, op->output_type) &&
           between(at, "clamp_low", op->clamp_low, op->clamp_low, op->clamp_high) &&
           aligned(at, "parameters are not 4-byte aligned", op->parameters) &&
           aligned(at, "block_bytes is no multiple of 4", op->block_bytes);
}

static int check_conv(const context *at, const npu_conv *op) {
    return check_matrix(at, (const npu_depthwise *)(const void *)op) &&
           aligned(at, "accumulators are not 4-byte aligned", op->accumulators) &&
           between(at, "load_accumulators", op->load_accumulators, 0, 1) &&
           between(at, "keep_accumulators", op->keep_accumulators, 0, 1);
}

static int check_depthwise(const context *at, const npu_depthwise *op) {
    return check_matrix(at, op) &&
           between(at, "output_channels", op->output_channels, op->input_channels, op->input_channels);
}

static int check_pool(const context *at, const npu_pool *op) {
    return check_window(at, (const npu_depthwise *)(const void *)op) &&
           between(at, "output_channels", op->output_channels, op->input_channels, op->input_channels) &&
           between(at, "function", op->function, 0, NPU_POOL_COUNT - 1) &&
           (op->function == NPU_POOL_MAXIMUM || scales_are_valid(at, op->input_scale, op->output_scale));
}

static int check_mean(const context *at, const npu_mean *op) {
    return between(at, "input_height", op->input_height, 1, MAX_EXTENT) &&
           between(at, "input_width", op->input_width, 1, MAX_EXTENT) &&
           check_pixels(at, op->input_height, op->input_width) && between(at, "channels", op->channels, 1, MAX_EXTENT) &&
           one_of_types(at, "input_type", op->input_type, BYTE_TYPES) &&
           one_of_types(at, "output_type", op->output_type, BYTE_TYPES) &&
           code(at, "input_zero_point", op->input_zero_point, op->input_type) &&
           code(at, "output_zero_point", op->output_zero_point, op->output_type) &&
           scales_are_valid(at, op->input_scale, op->output_scale) &&
           between(at, "float_mean", op->float_mean, 0, 1);
}

static int element_bytes(const context *at, uint32_t bytes) {
    return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8 || refuse(at, "element_bytes is not 1, 2, 4 or 8");
}

static int check_binary(const context *at, const npu_binary *op) {
    uint32_t types = op->function >= NPU_BINARY_FLOAT_ADD ? BYTE_TYPES | 1u << NPU_TYPE_FLOAT32 : BYTE_TYPES;
    return counts_are_positive(at, op->counts, 4) &&
           between(at, "function", op->function, 0, NPU_BINARY_COUNT - 1) &&
           one_of_types(at, "left_type", op->left_type, types) &&
           one_of_types(at, "right_type", op->right_type, types) &&
           one_of_types(at, "output_type", op->output_type, BYTE_TYPES) &&
           code(at, "left_zero_point", op->left_zero_point, op->left_type) &&
           code(at, "right_zero_point", op->right_zero_point, op->right_type) &&
           code(at, "output_zero_point", op->output_zero_point, op->output_type) &&
           scales_are_valid(at, op->left_scale, op->output_scale) &&
           finite_and_positive(at, "right_scale", op->right_scale);
}

static int check_convert(const context *at, const npu_convert *op) {
    return counts_are_positive(at, op->counts, 4) &&
           check_element(at, "input_type", op->input_type, op->input_scale, op->input_zero_point) &&
           check_element(at, "output_type", op->output_type, op->output_scale, op->output_zero_point);
}

static int check_bilinear(const context *at, const npu_resize *op) {
    return code(at, "input_zero_point", op->input_zero_point, op->data_type) &&
           code(at, "output_zero_point", op->output_zero_point, op->data_type) &&
           scales_are_valid(at, op->input_scale, op->output_scale);
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
           one_of_types(at, "data_type", op->data_type, op->function == NPU_RESIZE_NEAREST ? ALL_TYPES : BYTE_TYPES) &&
           (op->function == NPU_RESIZE_NEAREST || check_bilinear(at, op));
}

static int check_softmax(const context *at, const npu_softmax *op) {
    return counts_are_positive(at, op->counts, 3) && between(at, "length", op->length, 1, MAX_EXTENT) &&
           aligned(at, "table is not 4-byte aligned", op->table) &&
           one_of_types(at, "input_type", op->input_type, BYTE_TYPES) &&
           one_of_types(at, "output_type", op->output_type, BYTE_TYPES) &&
           code(at, "output_zero_point", op->output_zero_point, op->output_type) &&
           finite_and_positive(at, "output_scale", op->output_scale);
}

static int has_path(const context *at, uint32_t source, uint32_t destination) {
    for (uint32_t i = 0; i < at->program->path_count; ++i) {
        if (at->program->paths[i].source == source && at->program->paths[i].destination == destination) {
            return 1;
        }
    }
    return refuse(at, "the machine has no path for this transfer");
}

static int check_transfer(const context *at, const npu_load *op, uint32_t source, uint32_t destination) {
    return counts_are_positive(at, op->counts, 4) && between(at, "run_bytes", op->run_bytes, 1, UINT32_MAX) &&
           has_path(at, source, destination);
}

static int check_send(const context *at, const npu_send *op) {
    return between(at, "destination_core", op->destination_core, 0, (int64_t)at->program->machine->core_count - 1) &&
           (op->destination_core != at->stream->core || refuse(at, "sends to its own core")) &&
           counts_are_positive(at, op->counts, 4) && between(at, "run_bytes", op->run_bytes, 1, UINT32_MAX) &&
           has_path(at, at->stream->core, op->destination_core);
}

static int check_fields(const context *at) {
    const void *op = at->instruction;
    switch (at->instruction->opcode) {
    case NPU_OP_WAIT:
    case NPU_OP_SIGNAL:
        return between(at, "semaphore", ((const npu_wait *)op)->semaphore, 0,
                       (int64_t)at->program->machine->semaphore_count - 1);
    case NPU_OP_LOAD:
        return check_transfer(at, op, NPU_DRAM_NODE, at->stream->core);
    case NPU_OP_STORE:
        return check_transfer(at, op, at->stream->core, NPU_DRAM_NODE);
    case NPU_OP_SEND:
        return check_send(at, op);
    case NPU_OP_CONV:
        return check_conv(at, op);
    case NPU_OP_DEPTHWISE:
        return check_depthwise(at, op);
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
    case NPU_OP_CONVERT:
        return check_convert(at, op);
    case NPU_OP_RESIZE:
        return check_resize(at, op);
    case NPU_OP_SOFTMAX:
        return check_softmax(at, op);
    default:
        return refuse(at, "is not validated"); /* unreachable: the opcode is in the table */
    }
}

/* Element by element, or accumulators that are loaded and kept. */
static int may_be_in_place(const npu_instruction *instruction) {
    return instruction->opcode == NPU_OP_TABLE || instruction->opcode == NPU_OP_BINARY ||
           (instruction->opcode == NPU_OP_CONV && ((const npu_conv *)(const void *)instruction)->keep_accumulators);
}

static int check_bounds(const context *at, const npu_region *region, uint64_t limit) {
    uint64_t end = npu_region_end(region);
    if (end <= limit) {
        return 1;
    }
    char what[160];
    snprintf(what, sizeof what, "%s 0x%llx+%llu > %llu", region->space == NPU_SPACE_DRAM ? "dram" : "spm",
             (unsigned long long)region->base, (unsigned long long)(end - region->base), (unsigned long long)limit);
    return refuse(at, what);
}

static int check_dram(const context *at, const npu_region *region) {
    uint64_t constants = at->program->constants_bytes;
    if (!check_bounds(at, region, at->program->machine->dram_bytes)) {
        return 0;
    }
    if (region->base < constants && (region->is_write || npu_region_end(region) > constants)) {
        return refuse(at, region->is_write ? "writes into the constants" : "reads across the end of the constants");
    }
    return 1;
}

static int check_spm(const context *at, const npu_region *region) {
    if (!check_bounds(at, region, at->program->cores[region->core].spm_bytes)) {
        return 0;
    }
    uint64_t *peak = &at->program->spm_peak_bytes[region->core], end = npu_region_end(region);
    *peak = *peak > end ? *peak : end;
    return 1;
}

static int check_writes(const context *at, const npu_region *regions, int count) {
    for (int w = 0; w < count; ++w) {
        if (!regions[w].is_write) {
            continue;
        }
        if (!npu_region_writes_once(&regions[w])) {
            return refuse(at, "writes a byte twice: its output strides overlap");
        }
        for (int r = 0; r < count; ++r) {
            int in_place = may_be_in_place(at->instruction) && npu_regions_are_equal(&regions[r], &regions[w]);
            if (!regions[r].is_write && !in_place && npu_regions_overlap(&regions[r], &regions[w])) {
                return refuse(at, "its output overlaps its input");
            }
        }
    }
    return 1;
}

npu_status npu_validate_instruction(npu_program *program, const npu_stream *stream, const npu_instruction *instruction,
                                    npu_message *message) {
    context at = {program, stream, instruction, message};
    npu_region regions[NPU_MAX_REGIONS];
    if (!check_fields(&at)) {
        return NPU_BAD_PROGRAM;
    }
    int count = npu_regions(program, stream->core, instruction, regions);
    for (int i = 0; i < count; ++i) {
        if (!(regions[i].space == NPU_SPACE_DRAM ? check_dram(&at, &regions[i]) : check_spm(&at, &regions[i]))) {
            return NPU_BAD_PROGRAM;
        }
    }
    return check_writes(&at, regions, count) ? NPU_OK : NPU_BAD_PROGRAM;
}
