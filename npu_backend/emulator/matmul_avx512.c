/* MATMUL with AVX-512 VNNI: a tile of 12 rows times two panels of 16 columns in registers. */
#include "matmul.h"

#if NPU_X86_KERNELS
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define VECTOR __m512i
#define MAX_ROWS 12
#define LOAD(units) _mm512_loadu_si512(units)
#define STORE(units, sums) _mm512_storeu_si512(units, sums)
#define BROADCAST(unit) _mm512_set1_epi32(npu_unit(unit))
#define APART(units) ((units)*NPU_PANEL_COLUMNS)

INLINE __m512i step(__m512i sums, __m512i left, __m512i right, const int in_float) {
    if (in_float)
        return _mm512_castps_si512(_mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right),
                                                   _mm512_castsi512_ps(sums)));
    return _mm512_dpwssd_epi32(sums, left, right);
}

#include "matmul_tile.h"

void npu_add_products_avx512(const npu_product *product, int in_float) { run_columns(product, in_float); }
#endif

/* An empty translation unit is not C. */
typedef int npu_matmul_avx512_unit;
