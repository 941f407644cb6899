/* The native functions of kernels: TVM's code behind the emulator's calling convention.
 *
 * NPU_KERNELS names a file of lines KERNEL(symbol, operands); symbol_tir is what TVM compiled of it. NPU_KERNELS_ABI names
 * the header of a generation of TVM: NATIVE(symbol) declares such a function, CALL_NATIVE calls it.
 */
#include <stdint.h>

#define NPU_API __attribute__((visibility("default")))
#define NPU_MAX_OPERANDS 8

#include NPU_KERNELS_ABI

/* Called for arguments of a wrong type, which there are none of. */
__attribute__((visibility("hidden"))) void npu_kernel_error(void);
void npu_kernel_error(void) {}

#define KERNEL(symbol, count)                             \
    NATIVE(symbol)                                        \
    NPU_API int32_t symbol(void *const *operands);        \
    int32_t symbol(void *const *operands) {               \
        CALL_NATIVE(symbol, operands, count)              \
    }

#include NPU_KERNELS
