/* Any compute instruction by its opcode. */
#include <stdlib.h>
#include <string.h>

#include "matrix.h"

/* X(name): the opcodes of the matrix and vector engines. */
#define COMPUTE_OPCODES(X) \
    X(CONV, conv) \
    X(DEPTHWISE, depthwise) \
    X(POOL, pool) \
    X(MEAN, mean) \
    X(TABLE, table) \
    X(COPY, copy) \
    X(FILL, fill) \
    X(BINARY, binary) \
    X(QUANTIZE, quantize) \
    X(DEQUANTIZE, dequantize) \
    X(RESIZE, resize) \
    X(SOFTMAX, softmax)

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

/* For tests: one instruction on a scratchpad of the caller's, refused when its regions lie outside. The scratchpad is
 * copied, as kernels may read the slack behind it, which the caller's array need not have. */
NPU_API npu_status npu_execute(const uint8_t *instruction, uint64_t bytes, uint8_t *spm, uint64_t spm_bytes,
                               uint32_t level);
npu_status npu_execute(const uint8_t *instruction, uint64_t bytes, uint8_t *spm, uint64_t spm_bytes, uint32_t level) {
    union {
        uint64_t words[64];
        npu_instruction head;
    } aligned;
    if (bytes < sizeof aligned.head || bytes > sizeof aligned.words) return NPU_BAD_ARGUMENT;
    memcpy(aligned.words, instruction, bytes);
    if (bytes != instruction_bytes(aligned.head.opcode) || !regions_fit(&aligned.head, spm_bytes))
        return NPU_BAD_ARGUMENT;
    uint8_t *copy = malloc(spm_bytes + NPU_SPM_SLACK_BYTES);
    if (copy == NULL) return NPU_OUT_OF_MEMORY;
    memcpy(copy, spm, spm_bytes);
    npu_scratch scratch = {NULL, 0};
    npu_status status = npu_execute_instruction(&aligned.head, copy, &scratch, npu_kernel_level(level));
    if (status == NPU_OK) memcpy(spm, copy, spm_bytes);
    npu_scratch_release(&scratch);
    free(copy);
    return status;
}
