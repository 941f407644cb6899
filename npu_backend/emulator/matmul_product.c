/* The product of packed operands: choice of kernel, and the plain ones, which state the arithmetic. */
#include "matmul.h"
#include "vector.h"

typedef struct {
    const uint32_t *left;
    const uint32_t *right;
    uint32_t units;
} inner_product;

static void add_codes(const inner_product *k, int32_t *sums) {
    for (uint32_t u = 0; u < k->units; u++) {
        int16_t left[2], right[2 * NPU_PANEL_COLUMNS];
        memcpy(left, k->left + u, sizeof left);
        memcpy(right, k->right + (size_t)u * NPU_PANEL_COLUMNS, sizeof right);
        for (uint32_t c = 0; c < NPU_PANEL_COLUMNS; c++)
            sums[c] = npu_add(sums[c], left[0] * right[2 * c] + left[1] * right[2 * c + 1]);
    }
}

static void add_floats(const inner_product *k, float *sums) {
    for (uint32_t u = 0; u < k->units; u++) {
        float left, right[NPU_PANEL_COLUMNS];
        memcpy(&left, k->left + u, sizeof left);
        memcpy(right, k->right + (size_t)u * NPU_PANEL_COLUMNS, sizeof right);
        for (uint32_t c = 0; c < NPU_PANEL_COLUMNS; c++) sums[c] = fmaf(left, right[c], sums[c]);
    }
}

/* A product takes 34 bits, so that the sum of 2^24 of them does not overflow. */
NPU_INLINE void add_wide_body(const inner_product *k, int64_t *restrict kept) {
    int64_t sums[NPU_PANEL_COLUMNS];
    memcpy(sums, kept, sizeof sums);
    for (uint32_t u = 0; u < k->units; u++) {
        const int32_t left = npu_unit(k->left + u);
        int32_t right[NPU_PANEL_COLUMNS];
        memcpy(right, k->right + (size_t)u * NPU_PANEL_COLUMNS, sizeof right);
        for (uint32_t c = 0; c < NPU_PANEL_COLUMNS; c++)
            sums[c] = (int64_t)((uint64_t)sums[c] + (uint64_t)((int64_t)left * right[c]));
    }
    memcpy(kept, sums, sizeof sums);
}

NPU_LEVELS(add_wide, (const inner_product *k, int64_t *restrict kept), (k, kept))

void npu_add_products(const npu_product *product, npu_sum kind, uint32_t level) {
#if NPU_X86_KERNELS
    if (kind != NPU_SUM_INT64 && level >= NPU_LEVEL_AVX2) {
        const int in_float = kind == NPU_SUM_FLOAT32;
        (level == NPU_LEVEL_AVX512 ? npu_add_products_avx512 : npu_add_products_avx2)(product, in_float);
        return;
    }
#endif
    for (uint32_t row = 0; row < product->rows; row++)
        for (uint32_t panel = 0; panel < product->panels; panel++) {
            const size_t at = ((size_t)row * product->panels + panel) * NPU_PANEL_COLUMNS, units = product->units;
            const inner_product k = {product->left + row * units,
                                     product->right + panel * units * NPU_PANEL_COLUMNS, product->units};
            if (kind == NPU_SUM_INT32)
                add_codes(&k, (int32_t *)product->sums + at);
            else if (kind == NPU_SUM_INT64)
                add_wide_levels[level - 1](&k, (int64_t *)product->sums + at);
            else
                add_floats(&k, (float *)product->sums + at);
        }
}
