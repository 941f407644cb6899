/* SELECT: Select.reference of npu_backend/ops/binary.py. */
#include "element.h"

typedef struct {
    npu_element left;
    npu_element right;
    npu_element output;
} selection;

NPU_INLINE void select_body(const void *context, uint8_t *const at[], size_t n) {
    const selection k = *(const selection *)context;
    for (size_t first = 0; first < n; first += NPU_LANES) {
        const size_t lanes = n - first < NPU_LANES ? n - first : NPU_LANES;
        const uint8_t *condition = at[0] + first;
        float left[NPU_LANES], right[NPU_LANES];
        npu_read_block(&k.left, at[1], first, n, left);
        npu_read_block(&k.right, at[2], first, n, right);
        for (size_t i = 0; i < lanes; ++i) {
            left[i] = condition[i] != 0 ? left[i] : right[i];
        }
        npu_write_block(&k.output, left, first, n, at[3]);
    }
}

NPU_LEVELS(select, (const void *context, uint8_t *const at[], size_t n), (context, at, n))

/* Elements of one type and code move as they are: integers that float32 cannot hold, too. */
#define MOVE(ctype)                                                                       \
    for (size_t i = 0; i < n; ++i) {                                                      \
        ctype left, right;                                                                \
        memcpy(&left, at[1] + i * sizeof left, sizeof left);                              \
        memcpy(&right, at[2] + i * sizeof right, sizeof right);                           \
        left = at[0][i] != 0 ? left : right;                                              \
        memcpy(at[3] + i * sizeof left, &left, sizeof left);                              \
    }                                                                                     \
    break

NPU_INLINE void move_body(const void *context, uint8_t *const at[], size_t n) {
    switch (*(const uint32_t *)context) {
    case 1: MOVE(uint8_t);
    case 2: MOVE(uint16_t);
    case 4: MOVE(uint32_t);
    default: MOVE(uint64_t);
    }
}

NPU_LEVELS(move, (const void *context, uint8_t *const at[], size_t n), (context, at, n))

static int is_same(const npu_element *a, const npu_element *b) {
    return a->type == b->type && a->zero_point == b->zero_point && a->scale == b->scale;
}

npu_status npu_execute_select(const npu_select *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    const selection k = {NPU_ELEMENT(op, left, level), NPU_ELEMENT(op, right, level), NPU_ELEMENT(op, output, level)};
    npu_view view = npu_view_of(op->counts);
    npu_view_operand(&view, spm + op->condition, 1, op->condition_strides);
    npu_view_operand(&view, spm + op->left, k.left.bytes, op->left_strides);
    npu_view_operand(&view, spm + op->right, k.right.bytes, op->right_strides);
    npu_view_operand(&view, spm + op->output, k.output.bytes, op->output_strides);
    if (is_same(&k.left, &k.output) && is_same(&k.right, &k.output)) {
        npu_view_for_rows(&view, move_levels[level - 1], &k.output.bytes);
    } else {
        npu_view_for_rows(&view, select_levels[level - 1], &k);
    }
    return NPU_OK;
}
