/* MATMUL with AVX2: a tile of 6 rows times one panel of 16 columns in registers. */
#include "matmul.h"

#if NPU_X86_KERNELS
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define VECTOR __m256i
#define MAX_ROWS 6
#define LOAD(units) _mm256_loadu_si256((const __m256i *)(const void *)(units))
#define STORE(units, sums) _mm256_storeu_si256((__m256i *)(void *)(units), sums)
#define BROADCAST(unit) _mm256_set1_epi32(npu_unit(unit))
#define APART(units) LANES

INLINE __m256i step(__m256i sums, __m256i left, __m256i right, const int in_float) {
    if (in_float)
        return _mm256_castps_si256(_mm256_fmadd_ps(_mm256_castsi256_ps(left), _mm256_castsi256_ps(right),
                                                   _mm256_castsi256_ps(sums)));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(left, right));
}

#include "matmul_tile.h"

void npu_add_products_avx2(const npu_product *product, int in_float) { run_columns(product, in_float); }
#endif

/* An empty translation unit is not C. */
typedef int npu_matmul_avx2_unit;
