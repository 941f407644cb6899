/* GATHER and LOAD_ROWS: rows that indices in the scratchpad name, out of the scratchpad or out of DRAM. */
#include <string.h>

#include "gather.h"

_Static_assert(offsetof(npu_gather, output) == offsetof(npu_load_rows, output) &&
                   sizeof(npu_gather) == sizeof(npu_load_rows),
               "one view of both");

const npu_load_rows *npu_rows_of(const npu_instruction *instruction) {
    int gathers = instruction->opcode == NPU_OP_GATHER || instruction->opcode == NPU_OP_LOAD_ROWS;
    return gathers ? (const npu_load_rows *)(const void *)instruction : NULL;
}

int64_t npu_index_at(const npu_load_rows *op, const uint8_t *spm, uint32_t position) {
    const uint8_t *at = spm + op->indices + (size_t)position * op->index_bytes;
    int64_t wide;
    int32_t narrow;
    if (op->index_type == NPU_TYPE_INT64) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&narrow, at, sizeof narrow);
    return narrow;
}

int npu_index_is_valid(const npu_load_rows *op, int64_t index) {
    return index >= -(int64_t)op->extent && index < (int64_t)op->extent;
}

static void copy_row(const npu_load_rows *op, const uint8_t *from, uint8_t *to) {
    for (uint32_t i = 0; i < op->counts[0]; ++i) {
        for (uint32_t j = 0; j < op->counts[1]; ++j) {
            const uint8_t *source = from + (size_t)i * op->input_strides[0] + (size_t)j * op->input_strides[1];
            uint8_t *target = to + (size_t)i * op->output_strides[0] + (size_t)j * op->output_strides[1];
            for (uint32_t k = 0; k < op->counts[2]; ++k) {
                memcpy(target, source, op->run_bytes);
                source += op->input_strides[2];
                target += op->output_strides[2];
            }
        }
    }
}

npu_status npu_copy_rows(const npu_load_rows *op, const uint8_t *source, uint8_t *spm) {
    for (uint32_t position = 0; position < op->index_count; ++position) {
        int64_t index = npu_index_at(op, spm, position);
        if (!npu_index_is_valid(op, index)) {
            return NPU_TRAP;
        }
        uint64_t row = (uint64_t)(index < 0 ? index + (int64_t)op->extent : index);
        copy_row(op, source + row * op->input_step_bytes, spm + op->output + (size_t)position * op->output_step_bytes);
    }
    return NPU_OK;
}

npu_status npu_execute_gather(const npu_gather *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    (void)level;
    return npu_copy_rows((const npu_load_rows *)(const void *)op, spm + op->input, spm);
}

npu_region npu_rows_read(const npu_load_rows *op, const npu_region *table) {
    npu_region rows = *table;
    rows.counts[0] = op->index_count;
    rows.strides[0] = op->input_step_bytes;
    for (int axis = 0; axis < 3; ++axis) {
        rows.counts[axis + 1] = op->counts[axis];
        rows.strides[axis + 1] = op->input_strides[axis];
    }
    rows.run_bytes = op->run_bytes;
    return rows;
}
