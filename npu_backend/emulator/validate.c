/* Validation of one instruction: fields, then the bytes it touches. What passes here no kernel needs to check again,
 * and its positions fit in 32-bit signed integers. */
#include "multicast.h"
#include "validate.h"

#define MATRIX_INPUTS (CODE_TYPES | 1u << NPU_TYPE_FLOAT16)

/* Raw sums only of codes: those of halves are no integers. */
static int check_matrix(const context *at, const npu_depthwise *op) {
    uint32_t sums = op->input_type == NPU_TYPE_FLOAT16 ? 0 : 1u << NPU_TYPE_INT32;
    return check_window(at, op, MATRIX_INPUTS, CODE_TYPES | FLOAT_TYPES | sums) && code(at, "clamp_low", op->clamp_low, op->output_type) &&
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

/* Steps of a whole element along the summed axis keep it inside the scratchpad, and with it the work. */
static int check_inner(const context *at, const char *field, uint32_t stride, uint32_t inner, uint32_t type) {
    return inner == 1 || between(at, field, stride, npu_type_bytes(type), UINT32_MAX);
}

static int check_factors(const context *at, const npu_matmul *op) {
    return one_of_types(at, "left_type", op->left_type, CODE_TYPES | FLOAT_TYPES) &&
           one_of_types(at, "right_type", op->right_type, CODE_TYPES | FLOAT_TYPES) &&
           check_element(at, "left_type", op->left_type, op->left_scale, op->left_zero_point) &&
           check_element(at, "right_type", op->right_type, op->right_scale, op->right_zero_point) &&
           check_inner(at, "left_column_bytes", op->left_column_bytes, op->inner, op->left_type) &&
           check_inner(at, "right_row_bytes", op->right_row_bytes, op->inner, op->right_type);
}

static int check_matmul(const context *at, const npu_matmul *op) {
    return between(at, "rows", op->rows, 1, MAX_EXTENT) && between(at, "inner", op->inner, 1, MAX_EXTENT) &&
           between(at, "columns", op->columns, 1, MAX_EXTENT) && check_pixels(at, op->rows, op->columns) &&
           check_pixels(at, op->inner, op->columns) && check_factors(at, op) &&
           one_of_types(at, "output_type", op->output_type, CODE_TYPES | FLOAT_TYPES | 1u << NPU_TYPE_INT32) &&
           check_element(at, "output_type", op->output_type, op->output_scale, op->output_zero_point) &&
           aligned(at, "accumulators are not 4-byte aligned", op->accumulators) &&
           between(at, "load_accumulators", op->load_accumulators, 0, 1) &&
           between(at, "keep_accumulators", op->keep_accumulators, 0, 1);
}

static int has_path(const context *at, uint32_t source, uint32_t destination) {
    uint32_t path = npu_path(at->program, source, destination);
    if (path == NPU_NOBODY) {
        return refuse(at, "the machine has no path for this transfer");
    }
    at->program->path_is_used[path] = 1;
    return 1;
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

static int check_rows(const context *at, const npu_load_rows *op) {
    return counts_are_positive(at, op->counts, 3) && between(at, "run_bytes", op->run_bytes, 1, UINT32_MAX) &&
           between(at, "index_count", op->index_count, 1, MAX_PIXELS) &&
           between(at, "extent", op->extent, 1, INT32_MAX) &&
           one_of_types(at, "index_type", op->index_type, 1u << NPU_TYPE_INT32 | 1u << NPU_TYPE_INT64);
}

static int check_group(const context *at) {
    return npu_plain_opcode(at->instruction) == at->instruction->opcode ||
           between(at, "group", npu_group_of(at->instruction), 0,
                   (int64_t)at->program->machine->multicast_group_count - 1);
}

static int check_fields(const context *at) {
    const void *op = at->instruction;
    switch (npu_plain_opcode(at->instruction)) {
    case NPU_OP_WAIT:
    case NPU_OP_SIGNAL:
        return between(at, "semaphore", ((const npu_wait *)op)->semaphore, 0,
                       (int64_t)at->program->machine->semaphore_count - 1);
    case NPU_OP_LOAD:
        return check_group(at) && check_transfer(at, op, NPU_DRAM_NODE, at->stream->core);
    case NPU_OP_LOAD_ROWS:
        return check_rows(at, op) && has_path(at, NPU_DRAM_NODE, at->stream->core);
    case NPU_OP_GATHER:
        return check_rows(at, (const npu_load_rows *)op);
    case NPU_OP_STORE:
        return check_transfer(at, op, at->stream->core, NPU_DRAM_NODE);
    case NPU_OP_SEND:
        return check_group(at) && check_send(at, op);
    case NPU_OP_CONV:
        return check_conv(at, op);
    case NPU_OP_DEPTHWISE:
        return check_depthwise(at, op);
    case NPU_OP_MATMUL:
        return check_matmul(at, op);
    default:
        return npu_check_vector(at);
    }
}

/* Element by element, or accumulators that are loaded and kept. */
static int may_be_in_place(const npu_instruction *instruction) {
    return instruction->opcode == NPU_OP_TABLE || instruction->opcode == NPU_OP_BINARY ||
           (instruction->opcode == NPU_OP_CONV && ((const npu_conv *)(const void *)instruction)->keep_accumulators) ||
           (instruction->opcode == NPU_OP_MATMUL && ((const npu_matmul *)(const void *)instruction)->keep_accumulators);
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
