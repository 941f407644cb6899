/* LOAD, LOAD_ROWS, STORE and SEND: strided copies between memories. Those of a multicast move each its own part. */
#include "gather.h"
#include "multicast.h"

#include <string.h>

typedef struct {
    uint8_t *to;
    const uint8_t *from;
    size_t run_bytes;
    uint32_t counts[4];
    uint64_t to_strides[4];
    uint64_t from_strides[4];
} copy;

static void set_axes(copy *move, uint32_t run_bytes, const uint32_t *counts, const uint32_t *to_strides,
                     const uint32_t *from_strides) {
    move->run_bytes = run_bytes;
    for (int axis = 0; axis < 4; ++axis) {
        move->counts[axis] = counts[axis];
        move->to_strides[axis] = to_strides[axis];
        move->from_strides[axis] = from_strides[axis];
    }
}

/* Joins inner axes that are contiguous on both sides into one run. */
static void join_runs(copy *move) {
    for (int axis = 3; axis >= 0; --axis) {
        int contiguous = move->to_strides[axis] == move->run_bytes && move->from_strides[axis] == move->run_bytes;
        if (move->counts[axis] != 1 && !contiguous) {
            return;
        }
        move->run_bytes *= move->counts[axis];
        move->counts[axis] = 1;
    }
}

static void copy_runs(const copy *move) {
    for (uint32_t i = 0; i < move->counts[0]; ++i) {
        for (uint32_t j = 0; j < move->counts[1]; ++j) {
            for (uint32_t k = 0; k < move->counts[2]; ++k) {
                uint8_t *to = move->to + i * move->to_strides[0] + j * move->to_strides[1] + k * move->to_strides[2];
                const uint8_t *from =
                    move->from + i * move->from_strides[0] + j * move->from_strides[1] + k * move->from_strides[2];
                for (uint32_t l = 0; l < move->counts[3]; ++l) {
                    memcpy(to, from, move->run_bytes);
                    to += move->to_strides[3];
                    from += move->from_strides[3];
                }
            }
        }
    }
}

static const uint8_t *dram_source(const npu_program *program, uint64_t address) {
    return address < program->constants_bytes ? program->constants + address
                                              : program->dram + (address - program->constants_bytes);
}

npu_status npu_transfer(npu_program *program, uint32_t core, const npu_instruction *instruction) {
    copy move;
    uint32_t opcode = npu_plain_opcode(instruction);
    if (opcode == NPU_OP_LOAD_ROWS) {
        const npu_load_rows *op = (const npu_load_rows *)(const void *)instruction;
        return npu_copy_rows(op, dram_source(program, op->dram), program->spm[core]);
    }
    if (opcode == NPU_OP_SEND) {
        const npu_send *op = (const npu_send *)(const void *)instruction;
        move.to = program->spm[op->destination_core] + op->destination_spm;
        move.from = program->spm[core] + op->spm;
        set_axes(&move, op->run_bytes, op->counts, op->destination_strides, op->spm_strides);
    } else if (opcode == NPU_OP_LOAD) {
        const npu_load *op = (const npu_load *)(const void *)instruction;
        move.to = program->spm[core] + op->spm;
        move.from = dram_source(program, op->dram);
        set_axes(&move, op->run_bytes, op->counts, op->spm_strides, op->dram_strides);
    } else {
        const npu_store *op = (const npu_store *)(const void *)instruction;
        move.to = program->dram + (op->dram - program->constants_bytes);
        move.from = program->spm[core] + op->spm;
        set_axes(&move, op->run_bytes, op->counts, op->dram_strides, op->spm_strides);
    }
    join_runs(&move);
    copy_runs(&move);
    return NPU_OK;
}
