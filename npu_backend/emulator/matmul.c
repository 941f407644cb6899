/* MATMUL: packs the right operand whole and the left one strip by strip, multiplies, scales and writes.
 *
 * npu_backend/ops/numerics_matmul.py states the arithmetic. */
#include "matmul.h"
#include "element.h"

#define ALIGNMENT 64u
/* How finished sums become elements of the output. */
typedef struct {
    npu_element output;
    npu_sum kind;
    float multiplier; /* of integer sums */
} scaling;

static scaling scaling_of(const npu_matmul_run *run) {
    const npu_matmul *op = run->op;
    const float scale = run->kind == NPU_SUM_FLOAT32 ? op->output_scale : 1.0f;
    scaling made = {npu_element_of(op->output_type, scale, op->output_zero_point, run->level), run->kind,
                    op->left_scale * op->right_scale / op->output_scale};
    return made;
}

#define SCALE(ctype)                                       \
    for (size_t i = 0; i < lanes; ++i) {                   \
        ctype sum;                                         \
        memcpy(&sum, sums + i * sizeof sum, sizeof sum);   \
        values[i] = (float)sum * multiplier;               \
    }                                                      \
    break

NPU_INLINE void scale_body(const scaling *k, const uint8_t *sums, size_t lanes, float *restrict values) {
    const float multiplier = k->multiplier;
    switch (k->kind) {
    case NPU_SUM_FLOAT32: memcpy(values, sums, lanes * sizeof *values); break;
    case NPU_SUM_INT64: SCALE(int64_t);
    default: SCALE(int32_t);
    }
}

NPU_LEVELS(scale, (const scaling *k, const uint8_t *sums, size_t lanes, float *restrict values), (k, sums, lanes, values))

static void finish_row(const scaling *k, const uint8_t *sums, size_t n, uint8_t *row, uint32_t level) {
    for (size_t first = 0; first < n; first += NPU_LANES) {
        float values[NPU_LANES];
        scale_levels[level - 1](k, sums + first * npu_sum_bytes(k->kind), npu_block_lanes(n - first), values);
        npu_write_block(&k->output, values, first, n, row);
    }
}

/* The low four bytes of every sum, as they are. */
static void copy_sums(npu_sum kind, const uint8_t *sums, size_t n, uint8_t *at) {
    const size_t sum_bytes = npu_sum_bytes(kind);
    for (size_t i = 0; i < n; i++) memcpy(at + i * sizeof(int32_t), sums + i * sum_bytes, sizeof(int32_t));
}

static void write_row(const npu_matmul_run *run, const scaling *k, const uint8_t *sums, uint64_t row) {
    const npu_matmul *op = run->op;
    uint8_t *output = run->spm + op->output + row * op->output_row_bytes;
    const int together = op->output_column_bytes == k->output.bytes || op->columns == 1;
    uint8_t *at = together ? output : run->gathered;
    if (op->output_type == NPU_TYPE_INT32 && run->kind != NPU_SUM_FLOAT32)
        copy_sums(run->kind, sums, op->columns, at);
    else
        finish_row(k, sums, op->columns, at, run->level);
    if (!together)
        npu_copy_strided(output, op->output_column_bytes, at, k->output.bytes, k->output.bytes, op->columns);
}

/* A strip's sums against the accumulators in the scratchpad, which have no padding between rows. */
static void move_sums(const npu_matmul_run *run, uint32_t first_row, uint32_t rows, int is_load) {
    const size_t sum_bytes = npu_sum_bytes(run->kind), row_bytes = run->op->columns * sum_bytes;
    const size_t pitch = (size_t)run->product.panels * NPU_PANEL_COLUMNS * sum_bytes;
    uint8_t *kept = run->spm + run->op->accumulators + first_row * row_bytes, *sums = run->product.sums;
    for (uint32_t r = 0; r < rows; r++, kept += row_bytes, sums += pitch)
        memcpy(is_load ? sums : kept, is_load ? kept : sums, row_bytes);
}

static void run_strip(npu_matmul_run *run, const scaling *k, uint32_t first_row, uint32_t rows) {
    const size_t pitch = (size_t)run->product.panels * NPU_PANEL_COLUMNS * npu_sum_bytes(run->kind);
    run->product.rows = rows;
    npu_pack_left(run, first_row, rows);
    memset(run->product.sums, 0, NPU_STRIP_ROWS * pitch);
    if (run->op->load_accumulators) move_sums(run, first_row, rows, 1);
    npu_add_products(&run->product, run->kind, run->level);
    if (run->op->keep_accumulators) {
        move_sums(run, first_row, rows, 0);
        return;
    }
    for (uint32_t r = 0; r < rows; r++)
        write_row(run, k, (const uint8_t *)run->product.sums + r * pitch, (uint64_t)first_row + r);
}

static void *take(uint8_t **space, uint64_t bytes) {
    uint8_t *taken = *space;
    *space += bytes;
    return taken;
}

static uint64_t aligned(uint64_t bytes) { return npu_divide_up(bytes, ALIGNMENT) * ALIGNMENT; }

/* Reserves the workspace; 0 when there is none. */
static int open_run(npu_matmul_run *run, npu_scratch *scratch) {
    npu_product *product = &run->product;
    const uint64_t columns = (uint64_t)product->panels * NPU_PANEL_COLUMNS;
    const uint64_t inner_bytes = product->units * (uint64_t)(run->unit_codes * sizeof(uint32_t));
    const uint64_t right = columns * product->units * sizeof(uint32_t);
    const uint64_t left = aligned(NPU_STRIP_ROWS * (uint64_t)product->units * sizeof(uint32_t));
    const uint64_t sums = NPU_STRIP_ROWS * columns * npu_sum_bytes(run->kind);
    const uint64_t line = aligned(inner_bytes > columns * sizeof(uint32_t) ? inner_bytes : columns * sizeof(uint32_t));
    uint8_t *space = npu_scratch_reserve(scratch, right + left + sums + 3 * line);
    if (space == NULL) return 0;
    product->right = take(&space, right);
    product->left = take(&space, left);
    product->sums = take(&space, sums);
    run->lines[0] = take(&space, line);
    run->lines[1] = take(&space, line);
    run->gathered = take(&space, line);
    memset(product->left, 0, left);
    memset(run->lines[0], 0, 2 * line);
    return 1;
}

npu_status npu_execute_matmul(const npu_matmul *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    npu_matmul_run run = {.op = op, .spm = spm, .kind = npu_sum_of(op->left_type, op->right_type), .level = level};
    run.unit_codes = run.kind == NPU_SUM_INT32 ? 2 : 1;
    run.product.units = (uint32_t)npu_divide_up(op->inner, run.unit_codes);
    run.product.panels = (uint32_t)npu_divide_up(op->columns, NPU_PANEL_COLUMNS);
    if (!open_run(&run, scratch)) return NPU_OUT_OF_MEMORY;
    npu_pack_right(&run);
    const scaling k = scaling_of(&run);
    for (uint32_t row = 0; row < op->rows; row += NPU_STRIP_ROWS)
        run_strip(&run, &k, row, npu_smaller(NPU_STRIP_ROWS, op->rows - row));
    return NPU_OK;
}
