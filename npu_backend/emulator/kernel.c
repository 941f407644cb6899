/* KERNEL: native functions that the program's owner has bound. */
#include "internal.h"

#include <stddef.h>

_Static_assert(offsetof(npu_kernel, operand7) - offsetof(npu_kernel, operand0) ==
                   (NPU_KERNEL_OPERANDS - 1) * sizeof(uint32_t),
               "operands lie next to each other");

uint32_t npu_kernel_count(const npu_program *program) {
    return program->kernel_count;
}

const char *npu_kernel_symbol(const npu_program *program, uint32_t kernel) {
    return kernel < program->kernel_count ? program->names + program->kernels[kernel].name : NULL;
}

npu_status npu_bind_kernel(npu_program *program, uint32_t kernel, npu_kernel_function function) {
    if (kernel >= program->kernel_count) {
        return NPU_BAD_ARGUMENT;
    }
    program->functions[kernel] = function;
    return NPU_OK;
}

npu_status npu_execute_kernel(const npu_program *program, const npu_stream *stream, const npu_instruction *instruction,
                              npu_message *message) {
    const npu_kernel *op = (const npu_kernel *)(const void *)instruction;
    const uint32_t *addresses = &op->operand0;
    npu_kernel_function function = program->functions[op->kernel];
    char description[256];
    npu_describe(program, stream, instruction, description, sizeof description);
    if (function == NULL) {
        return npu_fail(message, NPU_TRAP, "%s: its native function %.100s is not bound: run the package that holds it",
                        description, npu_kernel_symbol(program, op->kernel));
    }
    void *operands[NPU_KERNEL_OPERANDS];
    for (uint32_t i = 0; i < op->operand_count; ++i) {
        operands[i] = program->spm[stream->core] + addresses[i];
    }
    int32_t result = function(operands);
    return result == 0 ? NPU_OK : npu_fail(message, NPU_TRAP, "%s: %.100s returns %d", description,
                                           npu_kernel_symbol(program, op->kernel), (int)result);
}
