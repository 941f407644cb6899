/* The native functions of kernels: TVM's code behind the emulator's calling convention.
 *
 * NPU_KERNELS names a file of lines KERNEL(symbol, operands, places); symbol_tir is what TVM compiled of it, a function of
 * the operands' addresses and those of places for single elements of its own, which TVM would ask its runtime for.
 * NPU_KERNELS_ABI names the header of a generation of TVM: NATIVE(symbol) declares such a function, CALL_NATIVE calls it.
 */
#include <stdint.h>

#define NPU_API __attribute__((visibility("default")))
#define NPU_MAX_OPERANDS 8
#define NPU_MAX_PLACES 2
#define NPU_MAX_ARGUMENTS (NPU_MAX_OPERANDS + NPU_MAX_PLACES)

#include NPU_KERNELS_ABI

/* Called for arguments of a wrong type, which there are none of. */
__attribute__((visibility("hidden"))) void npu_kernel_error(void);
void npu_kernel_error(void) {}

#define KERNEL(symbol, operand_count, place_count)                                       \
    NATIVE(symbol)                                                                       \
    NPU_API int32_t symbol(void *const *operands);                                       \
    int32_t symbol(void *const *operands) {                                              \
        uint64_t places[NPU_MAX_PLACES];                                                 \
        void *addresses[NPU_MAX_ARGUMENTS];                                              \
        for (int i = 0; i < operand_count; i++) addresses[i] = operands[i];              \
        for (int i = 0; i < place_count; i++) addresses[operand_count + i] = &places[i]; \
        CALL_NATIVE(symbol, addresses, (operand_count + place_count))                    \
    }

#include NPU_KERNELS
