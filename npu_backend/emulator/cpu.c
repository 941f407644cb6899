/* Which kernels this processor can run. */
#include "matrix.h"

#if NPU_X86_KERNELS
#include <cpuid.h>

/* Compilers of before 2022 do not know this feature by name. */
static int has_f16c(void) {
    unsigned int a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}
#endif

static uint32_t fastest_level(void) {
#if NPU_X86_KERNELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni"))
        return NPU_LEVEL_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
        return NPU_LEVEL_AVX2;
#endif
    return NPU_LEVEL_PORTABLE;
}

uint32_t npu_kernel_level(uint32_t requested) {
    uint32_t fastest = fastest_level();
    return requested == 0 ? fastest : npu_smaller(requested, fastest);
}
