/* Instructions whose data decides what they read: what is wrong with it can only be told when they run. */
#include "gather.h"

#include <string.h>

static int is_present(uint32_t position, uint32_t origin, uint32_t extent) {
    return position >= origin && position - origin < extent;
}

/* A source of weight zero may be absent. */
static int tap_is_present(const uint8_t *entry, uint32_t taps, uint32_t tap, uint32_t origin, uint32_t extent) {
    uint32_t position;
    float weight;
    memcpy(&position, entry + 4 * (size_t)tap, sizeof position);
    memcpy(&weight, entry + 4 * ((size_t)taps + tap), sizeof weight);
    return weight == 0.0f || is_present(position, origin, extent);
}

static int sources_are_present(const uint8_t *table, uint32_t count, uint32_t taps, uint32_t origin, uint32_t extent) {
    for (uint32_t i = 0; i < count; ++i) {
        for (uint32_t tap = 0; tap < taps; ++tap) {
            if (!tap_is_present(table + (size_t)i * taps * NPU_RESIZE_TAP_BYTES, taps, tap, origin, extent)) {
                return 0;
            }
        }
    }
    return 1;
}

static int tables_are_valid(const npu_resize *op, const uint8_t *spm) {
    return sources_are_present(spm + op->row_table, op->output_height, op->row_taps, op->input_row_origin,
                               op->input_height) &&
           sources_are_present(spm + op->column_table, op->output_width, op->column_taps, op->input_column_origin,
                               op->input_width);
}

npu_status npu_check_data(const npu_program *program, const npu_stream *stream, const npu_instruction *instruction,
                          npu_message *message) {
    if (instruction->opcode != NPU_OP_RESIZE ||
        tables_are_valid((const npu_resize *)(const void *)instruction, program->spm[stream->core])) {
        return NPU_OK;
    }
    char description[256];
    npu_describe(program, stream, instruction, description, sizeof description);
    return npu_fail(message, NPU_TRAP, "%s: a table names a source row or column that is not in the scratchpad",
                    description);
}

npu_status npu_say_trap(const npu_program *program, const npu_stream *stream, const npu_instruction *instruction,
                        npu_status status, npu_message *message) {
    char description[256];
    npu_describe(program, stream, instruction, description, sizeof description);
    const npu_load_rows *rows = npu_rows_of(instruction);
    for (uint32_t i = 0; rows != NULL && i < rows->index_count; ++i) {
        int64_t index = npu_index_at(rows, program->spm[stream->core], i);
        if (!npu_index_is_valid(rows, index)) {
            return npu_fail(message, status, "%s: index %lld is out of range for an axis of %u positions", description,
                            (long long)index, rows->extent);
        }
    }
    return npu_fail(message, status, "%s: out of memory for its workspace", description);
}
