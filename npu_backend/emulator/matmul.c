/* MATMUL: packs the right operand whole and the left one strip by strip, multiplies, scales and writes.
 *
 * npu_backend/ops/numerics_matmul.py states the arithmetic. */
#include "matmul.h"
#include "element.h"

#define ALIGNMENT 64u
#define WIDE_TYPES (1u << NPU_TYPE_INT16 | 1u << NPU_TYPE_UINT16)
#define CODE_TYPES (WIDE_TYPES | 1u << NPU_TYPE_UINT8 | 1u << NPU_TYPE_INT8)

npu_product_kind npu_product_kind_of(const npu_matmul *op) {
    const uint32_t left = 1u << (op->left_type & 31u), right = 1u << (op->right_type & 31u);
    if (!(left & CODE_TYPES) || !(right & CODE_TYPES)) return NPU_PRODUCT_FLOAT;
    return (left | right) & WIDE_TYPES ? NPU_PRODUCT_WIDE : NPU_PRODUCT_CODES;
}

uint32_t npu_sum_bytes(npu_product_kind kind) {
    return kind == NPU_PRODUCT_WIDE ? (uint32_t)sizeof(int64_t) : (uint32_t)sizeof(int32_t);
}

/* How finished sums become elements of the output. */
typedef struct {
    npu_element output;
    npu_product_kind kind;
    float multiplier; /* of integer sums */
} scaling;

static scaling scaling_of(const npu_matmul *op, npu_product_kind kind) {
    const int in_float = kind == NPU_PRODUCT_FLOAT;
    scaling made = {npu_element_of(op->output_type, in_float ? op->output_scale : 1.0f, op->output_zero_point), kind,
                    op->left_scale * op->right_scale / op->output_scale};
    return made;
}

NPU_INLINE void scale_lanes(const scaling *k, const uint8_t *sums, size_t lanes, float *restrict values) {
    const float multiplier = k->multiplier;
    for (size_t i = 0; i < lanes; ++i) {
        int32_t sum;
        int64_t wide;
        if (k->kind == NPU_PRODUCT_WIDE) {
            memcpy(&wide, sums + i * sizeof wide, sizeof wide);
            values[i] = (float)wide * multiplier;
        } else {
            memcpy(&sum, sums + i * sizeof sum, sizeof sum);
            values[i] = (float)sum * multiplier;
        }
    }
}

NPU_INLINE void finish_lanes(const scaling *k, const uint8_t *sums, size_t lanes, uint8_t *at) {
    float values[NPU_LANES];
    if (k->kind == NPU_PRODUCT_FLOAT)
        memcpy(values, sums, lanes * sizeof *values);
    else
        scale_lanes(k, sums, lanes, values);
    npu_write_lanes(&k->output, values, lanes, at);
}

NPU_INLINE void finish_body(const scaling *prepared, const uint8_t *sums, size_t n, uint8_t *at) {
    const scaling k = *prepared;
    const size_t sum_bytes = k.kind == NPU_PRODUCT_WIDE ? sizeof(int64_t) : sizeof(int32_t);
    size_t first = 0;
    for (; n - first >= NPU_LANES; first += NPU_LANES)
        finish_lanes(&k, sums + first * sum_bytes, NPU_LANES, at + first * k.output.bytes);
    finish_lanes(&k, sums + first * sum_bytes, n - first, at + first * k.output.bytes);
}

NPU_LEVELS(finish, (const scaling *prepared, const uint8_t *sums, size_t n, uint8_t *at), (prepared, sums, n, at))

/* The low four bytes of every sum, as they are. */
static void copy_sums(npu_product_kind kind, const uint8_t *sums, size_t n, uint8_t *at) {
    const size_t sum_bytes = npu_sum_bytes(kind);
    for (size_t i = 0; i < n; i++) memcpy(at + i * sizeof(int32_t), sums + i * sum_bytes, sizeof(int32_t));
}

static void scatter(uint8_t *to, uint64_t step_bytes, const uint8_t *from, uint32_t element_bytes, uint32_t n) {
    for (uint32_t i = 0; i < n; i++, to += step_bytes) memcpy(to, from + (size_t)i * element_bytes, element_bytes);
}

static void write_row(const npu_matmul_run *run, const scaling *k, const uint8_t *sums, uint64_t row) {
    const npu_matmul *op = run->op;
    uint8_t *output = run->spm + op->output + row * op->output_row_bytes;
    const int together = op->output_column_bytes == k->output.bytes || op->columns == 1;
    uint8_t *at = together ? output : run->gathered;
    if (op->output_type == NPU_TYPE_INT32 && run->kind != NPU_PRODUCT_FLOAT)
        copy_sums(run->kind, sums, op->columns, at);
    else
        finish_levels[run->level - 1](k, sums, op->columns, at);
    if (!together) scatter(output, op->output_column_bytes, at, k->output.bytes, op->columns);
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
    npu_matmul_run run = {.op = op, .spm = spm, .kind = npu_product_kind_of(op), .level = level};
    run.unit_codes = run.kind == NPU_PRODUCT_CODES ? 2 : 1;
    run.product.units = (uint32_t)npu_divide_up(op->inner, run.unit_codes);
    run.product.panels = (uint32_t)npu_divide_up(op->columns, NPU_PANEL_COLUMNS);
    if (!open_run(&run, scratch)) return NPU_OUT_OF_MEMORY;
    npu_pack_right(&run);
    const scaling k = scaling_of(op, run.kind);
    for (uint32_t row = 0; row < op->rows; row += NPU_STRIP_ROWS)
        run_strip(&run, &k, row, npu_smaller(NPU_STRIP_ROWS, op->rows - row));
    return NPU_OK;
}
