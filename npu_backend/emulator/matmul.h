/* What the levels of MATMUL share: both operands packed into units of four bytes, and the product of packed operands.
 *
 * A unit holds what stands at one or two places of the inner axis:
 *   8-bit codes   two neighbours less their zero point, as int16; an odd end is filled with 0
 *   wide codes    one code less its zero point, as int32
 *   floats        one value, as float32
 */
#ifndef NPU_MATMUL_H
#define NPU_MATMUL_H

#include "matrix.h"

enum { NPU_PANEL_COLUMNS = 16, NPU_STRIP_ROWS = 12 };

typedef struct {
    uint32_t *left;  /* [NPU_STRIP_ROWS][units] */
    uint32_t *right; /* [panels][units][NPU_PANEL_COLUMNS] */
    void *sums;      /* [NPU_STRIP_ROWS][panels * NPU_PANEL_COLUMNS] int32, int64 or float32: added to */
    uint32_t units;
    uint32_t panels;
    uint32_t rows; /* to compute; whole strips are readable and writable */
} npu_product;

/* What a unit holds was stored as another type. */
static inline int32_t npu_unit(const uint32_t *unit) {
    int32_t value;
    memcpy(&value, unit, sizeof value);
    return value;
}

/* Every sum takes its products in order, floats each by one fmaf, so all levels have the same bits. */
void npu_add_products(const npu_product *product, npu_sum kind, uint32_t level);

/* One instruction under way. */
typedef struct {
    const npu_matmul *op;
    uint8_t *spm;
    npu_sum kind;
    uint32_t level;
    uint32_t unit_codes; /* places of the inner axis in a unit */
    npu_product product;
    uint8_t *lines[2]; /* of decoded elements */
    uint8_t *gathered;
} npu_matmul_run;

void npu_pack_right(const npu_matmul_run *run);
void npu_pack_left(const npu_matmul_run *run, uint32_t first_row, uint32_t rows); /* of one strip */

#if NPU_X86_KERNELS
void npu_add_products_avx2(const npu_product *product, int in_float); /* 8-bit codes or floats */
void npu_add_products_avx512(const npu_product *product, int in_float);
#endif

#endif
