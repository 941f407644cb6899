/* Any compute instruction by its opcode. */
#include <stdlib.h>
#include <string.h>

#include "matrix.h"

#define MAX_INSTRUCTION_WORDS 64

/* X(name): the opcodes of the matrix and vector engines. */
#define COMPUTE_OPCODES(X) \
    X(CONV, conv) \
    X(DEPTHWISE, depthwise) \
    X(MATMUL, matmul) \
    X(POOL, pool) \
    X(MEAN, mean) \
    X(TABLE, table) \
    X(COPY, copy) \
    X(FILL, fill) \
    X(BINARY, binary) \
    X(CONVERT, convert) \
    X(RESIZE, resize) \
    X(SELECT, select) \
    X(UNARY, unary) \
    X(SOFTMAX, softmax) \
    X(REDUCE, reduce) \
    X(NORMALIZE, normalize) \
    X(ARGREDUCE, argreduce) \
    X(LRN, lrn) \
    X(GATHER, gather)

npu_status npu_execute_instruction(const npu_instruction *instruction, uint8_t *spm, npu_scratch *scratch,
                                   uint32_t level) {
    switch (instruction->opcode) {
#define CASE(NAME, name) \
    case NPU_OP_##NAME: \
        return npu_execute_##name((const npu_##name *)(const void *)instruction, spm, scratch, level);
        COMPUTE_OPCODES(CASE)
#undef CASE
    }
    return NPU_BAD_ARGUMENT;
}

static uint64_t instruction_bytes(uint32_t opcode) {
    switch (opcode) {
#define CASE(NAME, name) \
    case NPU_OP_##NAME: \
        return sizeof(npu_##name);
        COMPUTE_OPCODES(CASE)
#undef CASE
    }
    return 0;
}

static int regions_fit(const npu_instruction *instruction, uint64_t spm_bytes) {
    npu_region regions[NPU_MAX_REGIONS];
    int count = npu_regions(NULL, 0, instruction, regions);
    for (int i = 0; i < count; i++)
        if (npu_region_end(&regions[i]) > spm_bytes) return 0;
    return 1;
}

static npu_status execute_one(const uint8_t *code, uint64_t bytes, uint8_t *spm, uint64_t spm_bytes,
                              npu_scratch *scratch, uint32_t level, uint64_t *taken) {
    union {
        uint64_t words[MAX_INSTRUCTION_WORDS]; /* aligns the instruction */
        npu_instruction head;
    } copy;
    if (bytes < sizeof copy.head) return NPU_BAD_ARGUMENT;
    memcpy(&copy.head, code, sizeof copy.head);
    *taken = instruction_bytes(copy.head.opcode);
    if (*taken == 0 || *taken > bytes || *taken > sizeof copy) return NPU_BAD_ARGUMENT;
    memcpy(&copy, code, *taken);
    if (!regions_fit(&copy.head, spm_bytes)) return NPU_BAD_ARGUMENT;
    return npu_execute_instruction(&copy.head, spm, scratch, level);
}

/* For tests and benchmarks: instructions one after another on a scratchpad of the caller's, which stays as it was when
 * one is refused. Only the bytes they touch are checked, not their fields. The scratchpad is copied, as kernels may
 * read the slack behind it, which the caller's array need not have. */
NPU_API npu_status npu_execute(const uint8_t *instructions, uint64_t bytes, uint8_t *spm, uint64_t spm_bytes,
                               uint32_t level);
npu_status npu_execute(const uint8_t *instructions, uint64_t bytes, uint8_t *spm, uint64_t spm_bytes, uint32_t level) {
    uint8_t *copy = malloc(spm_bytes + NPU_SPM_SLACK_BYTES);
    if (copy == NULL) return NPU_OUT_OF_MEMORY;
    memcpy(copy, spm, spm_bytes);
    npu_scratch scratch = {NULL, 0};
    npu_status status = NPU_OK;
    for (uint64_t at = 0, taken = 0; at < bytes && status == NPU_OK; at += taken)
        status = execute_one(instructions + at, bytes - at, copy, spm_bytes, &scratch, npu_kernel_level(level), &taken);
    if (status == NPU_OK) memcpy(spm, copy, spm_bytes);
    npu_scratch_release(&scratch);
    free(copy);
    return status;
}
