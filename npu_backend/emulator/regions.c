/* The bytes an instruction reads and writes: used to validate it, to find races and to count energy. */
#include "gather.h"
#include "matrix.h"
#include "multicast.h"

/* CONV, DEPTHWISE and POOL begin with the same fields, so one view of them serves all three. */
_Static_assert(offsetof(npu_conv, output_zero_point) == offsetof(npu_depthwise, output_zero_point), "window fields");
_Static_assert(offsetof(npu_pool, output_zero_point) == offsetof(npu_depthwise, output_zero_point), "window fields");

/* So do all instructions on lines. */
_Static_assert(offsetof(npu_softmax, output_scale) == offsetof(npu_reduce, output_scale), "line fields");
_Static_assert(offsetof(npu_normalize, output_scale) == offsetof(npu_reduce, output_scale), "line fields");
_Static_assert(offsetof(npu_argreduce, output_scale) == offsetof(npu_reduce, output_scale), "line fields");
_Static_assert(offsetof(npu_lrn, output_scale) == offsetof(npu_reduce, output_scale), "line fields");

typedef struct {
    npu_region *regions;
    int count;
    uint32_t space;
    uint32_t core;
} region_list;

static npu_region *add(region_list *list, uint64_t base, uint64_t run_bytes, int is_write) {
    npu_region *region = &list->regions[list->count++];
    *region = (npu_region){list->space, list->core, base, {1, 1, 1, 1}, {0, 0, 0, 0}, run_bytes, is_write};
    return region;
}

/* Adds axes from the innermost outwards; an axis that continues the run or the axis inside it is merged. */
static void add_axis(npu_region *region, int *used, uint64_t count, uint64_t stride) {
    if (count == 1 || (stride == 0 && !region->is_write)) {
        return;
    }
    if (*used == 0 && stride == region->run_bytes) {
        region->run_bytes *= count;
        return;
    }
    int inner = 4 - *used;
    if (*used > 0 && stride == region->strides[inner] * region->counts[inner]) {
        region->counts[inner] *= count;
        return;
    }
    ++*used;
    region->counts[inner - 1] = count;
    region->strides[inner - 1] = stride;
}

static npu_region *add_strided(region_list *list, uint64_t base, uint64_t run_bytes, const uint32_t *counts,
                               const uint32_t *strides, int axes, int is_write) {
    npu_region *region = add(list, base, run_bytes, is_write);
    int used = 0;
    for (int axis = axes - 1; axis >= 0; --axis) {
        add_axis(region, &used, counts[axis], strides[axis]);
    }
    return region;
}

static void add_map(region_list *list, uint64_t base, uint64_t rows, uint64_t row_bytes, uint64_t columns,
                    uint64_t column_bytes, uint64_t run_bytes, int is_write) {
    npu_region *region = add(list, base, run_bytes, is_write);
    int used = 0;
    add_axis(region, &used, columns, column_bytes);
    add_axis(region, &used, rows, row_bytes);
}

static void add_in_other_space(region_list *list, uint32_t space, uint32_t core, uint64_t base, uint64_t run_bytes,
                               const uint32_t *counts, const uint32_t *strides, int is_write) {
    npu_region *region = add_strided(list, base, run_bytes, counts, strides, 4, is_write);
    region->space = space;
    region->core = core;
}

typedef struct {
    int64_t first;
    int64_t count;
    int64_t step;
} lattice;

/* The positions of one axis that a window reads: every tap's own for single taps, else all between first and last. */
static lattice window_axis(uint32_t outputs, uint32_t kernel, uint32_t stride, uint32_t dilation, int32_t pad,
                           uint32_t length) {
    lattice axis = {-(int64_t)pad, 0, 1};
    int64_t end = (int64_t)(outputs - 1) * stride - pad + (int64_t)(kernel - 1) * dilation + 1;
    end = end < (int64_t)length ? end : (int64_t)length;
    if (kernel == 1 && stride > 0) {
        axis.step = stride;
    }
    if (axis.first < 0) {
        axis.first = (-axis.first + axis.step - 1) / axis.step * axis.step + axis.first;
    }
    axis.count = axis.first < end ? (end - axis.first - 1) / axis.step + 1 : 0;
    return axis;
}

static void add_window(region_list *list, const npu_depthwise *op) {
    lattice rows = window_axis(op->output_height, op->kernel_height, op->stride_height, op->dilation_height,
                               op->pad_top, op->input_height);
    lattice columns = window_axis(op->output_width, op->kernel_width, op->stride_width, op->dilation_width,
                                  op->pad_left, op->input_width);
    if (rows.count == 0 || columns.count == 0) {
        return;
    }
    uint64_t base = op->input + (uint64_t)rows.first * op->input_row_bytes +
                    (uint64_t)columns.first * op->input_column_bytes;
    add_map(list, base, (uint64_t)rows.count, (uint64_t)rows.step * op->input_row_bytes, (uint64_t)columns.count,
            (uint64_t)columns.step * op->input_column_bytes,
            (uint64_t)op->input_channels * npu_type_bytes(op->input_type), 0);
}

static void add_window_output(region_list *list, const npu_depthwise *op) {
    add_map(list, op->output, op->output_height, op->output_row_bytes, op->output_width, op->output_column_bytes,
            (uint64_t)op->output_channels * npu_type_bytes(op->output_type), 1);
}

static uint64_t blocks_of(uint32_t channels) {
    return ((uint64_t)channels + NPU_CHANNEL_BLOCK - 1) / NPU_CHANNEL_BLOCK;
}

static void add_blocks(region_list *list, uint32_t base, uint64_t run_bytes, uint64_t blocks, uint32_t block_bytes) {
    int used = 0;
    add_axis(add(list, base, run_bytes, 0), &used, blocks, block_bytes);
}

/* Bytes of the weights of one tap and block. */
static uint64_t tap_bytes(const npu_conv *op) {
    if (op->input_type == NPU_TYPE_FLOAT16) {
        return (uint64_t)op->input_channels * NPU_CHANNEL_BLOCK * npu_type_bytes(NPU_TYPE_FLOAT16);
    }
    return npu_divide_up(op->input_channels, NPU_WEIGHT_GROUP) * NPU_CHANNEL_BLOCK * NPU_WEIGHT_GROUP;
}

static void add_conv(region_list *list, const npu_conv *op) {
    const npu_depthwise *window = (const npu_depthwise *)(const void *)op;
    uint64_t blocks = blocks_of(op->output_channels);
    uint64_t taps = (uint64_t)op->kernel_height * op->kernel_width;
    uint64_t sum_bytes = npu_conv_sum_bytes(op->input_type);
    uint64_t accumulators = sum_bytes * NPU_CHANNEL_BLOCK * blocks * op->output_height * op->output_width;
    add_window(list, window);
    add_blocks(list, op->weights, taps * tap_bytes(op), blocks, op->block_bytes);
    if (op->load_accumulators) {
        add(list, op->accumulators, accumulators, 0);
    }
    if (op->keep_accumulators) {
        add(list, op->accumulators, accumulators, 1);
        return;
    }
    add_blocks(list, op->parameters, npu_parameter_bytes(op->input_type), blocks, op->block_bytes);
    add_window_output(list, window);
}

static void add_depthwise(region_list *list, const npu_depthwise *op) {
    uint64_t blocks = blocks_of(op->output_channels);
    uint64_t weight_bytes = op->input_type == NPU_TYPE_FLOAT16 ? npu_type_bytes(NPU_TYPE_FLOAT16) : 1;
    add_window(list, op);
    add_blocks(list, op->weights, (uint64_t)op->kernel_height * op->kernel_width * NPU_CHANNEL_BLOCK * weight_bytes,
               blocks, op->block_bytes);
    add_blocks(list, op->parameters, npu_parameter_bytes(op->input_type), blocks, op->block_bytes);
    add_window_output(list, op);
}

/* The axis of the longer stride is the outer one. */
static void add_matrix(region_list *list, uint64_t base, uint32_t type, uint64_t rows, uint64_t row_bytes,
                       uint64_t columns, uint64_t column_bytes, int is_write) {
    if (row_bytes < column_bytes) {
        add_map(list, base, columns, column_bytes, rows, row_bytes, npu_type_bytes(type), is_write);
    } else {
        add_map(list, base, rows, row_bytes, columns, column_bytes, npu_type_bytes(type), is_write);
    }
}

static void add_matmul(region_list *list, const npu_matmul *op) {
    uint64_t accumulators = npu_sum_bytes(npu_sum_of(op->left_type, op->right_type)) * (uint64_t)op->rows * op->columns;
    add_matrix(list, op->left, op->left_type, op->rows, op->left_row_bytes, op->inner, op->left_column_bytes, 0);
    add_matrix(list, op->right, op->right_type, op->inner, op->right_row_bytes, op->columns, op->right_column_bytes, 0);
    if (op->load_accumulators) {
        add(list, op->accumulators, accumulators, 0);
    }
    if (op->keep_accumulators) {
        add(list, op->accumulators, accumulators, 1);
        return;
    }
    add_matrix(list, op->output, op->output_type, op->rows, op->output_row_bytes, op->columns, op->output_column_bytes,
               1);
}

static void add_mean(region_list *list, const npu_mean *op) {
    add_map(list, op->input, op->input_height, op->input_row_bytes, op->input_width, op->input_column_bytes,
            (uint64_t)op->channels * npu_type_bytes(op->input_type), 0);
    add(list, op->output, (uint64_t)op->channels * npu_type_bytes(op->output_type), 1);
}

static void add_resize(region_list *list, const npu_resize *op) {
    uint64_t pixel_bytes = (uint64_t)op->channels * npu_type_bytes(op->input_type);
    add_map(list, op->input, op->input_height, op->input_row_bytes, op->input_width, op->input_column_bytes,
            pixel_bytes, 0);
    add(list, op->row_table, (uint64_t)op->output_height * op->row_taps * NPU_RESIZE_TAP_BYTES, 0);
    add(list, op->column_table, (uint64_t)op->output_width * op->column_taps * NPU_RESIZE_TAP_BYTES, 0);
    add_map(list, op->output, op->output_height, op->output_row_bytes, op->output_width, op->output_column_bytes,
            (uint64_t)op->channels * npu_type_bytes(op->output_type), 1);
}

/* The instructions on lines share their first fields; a reduction writes one element for each line. */
static void add_lines(region_list *list, const npu_reduce *op, int reduces) {
    uint32_t written[4];
    for (int axis = 0; axis < 4; ++axis) {
        written[axis] = reduces && (op->line_axes >> axis & 1u) ? 1 : op->counts[axis];
    }
    add_strided(list, op->input, npu_type_bytes(op->input_type), op->counts, op->input_strides, 4, 0);
    add_strided(list, op->output, npu_type_bytes(op->output_type), written, op->output_strides, 4, 1);
}

static void add_softmax(region_list *list, const npu_softmax *op) {
    add_lines(list, (const npu_reduce *)(const void *)op, 0);
    if (op->function == NPU_SOFTMAX_TABLE) {
        add(list, op->table, 256 * sizeof(float), 0);
    }
}

static void add_binary(region_list *list, const npu_binary *op) {
    add_strided(list, op->left, npu_type_bytes(op->left_type), op->counts, op->left_strides, 4, 0);
    add_strided(list, op->right, npu_type_bytes(op->right_type), op->counts, op->right_strides, 4, 0);
    add_strided(list, op->output, npu_type_bytes(op->output_type), op->counts, op->output_strides, 4, 1);
}

/* An input stride below zero: the same elements from the other end. */
static void add_copy(region_list *list, const npu_copy *op) {
    uint64_t base = op->input;
    uint32_t strides[4];
    for (int axis = 0; axis < 4; ++axis) {
        int64_t stride = op->input_strides[axis];
        strides[axis] = (uint32_t)(stride < 0 ? -stride : stride);
        base -= stride < 0 ? (uint64_t)strides[axis] * (op->counts[axis] - 1) : 0;
    }
    add_strided(list, base, op->element_bytes, op->counts, strides, 4, 0);
    add_strided(list, op->output, op->element_bytes, op->counts, op->output_strides, 4, 1);
}

/* Which rows are read only data tells: any may be. */
static void add_rows(region_list *list, const npu_load_rows *op, uint64_t table, uint32_t space) {
    const uint32_t *counts = op->counts, *from = op->input_strides, *to = op->output_strides;
    const uint32_t table_counts[4] = {op->extent, counts[0], counts[1], counts[2]};
    const uint32_t table_strides[4] = {op->input_step_bytes, from[0], from[1], from[2]};
    const uint32_t row_counts[4] = {op->index_count, counts[0], counts[1], counts[2]};
    const uint32_t row_strides[4] = {op->output_step_bytes, to[0], to[1], to[2]};
    add_in_other_space(list, space, list->core, table, op->run_bytes, table_counts, table_strides, 0);
    add_strided(list, op->indices, npu_type_bytes(op->index_type), &op->index_count, &op->index_bytes, 1, 0);
    add_strided(list, op->output, op->run_bytes, row_counts, row_strides, 4, 1);
}

static void add_select(region_list *list, const npu_select *op) {
    add_strided(list, op->condition, 1, op->counts, op->condition_strides, 4, 0);
    add_strided(list, op->left, npu_type_bytes(op->left_type), op->counts, op->left_strides, 4, 0);
    add_strided(list, op->right, npu_type_bytes(op->right_type), op->counts, op->right_strides, 4, 0);
    add_strided(list, op->output, npu_type_bytes(op->output_type), op->counts, op->output_strides, 4, 1);
}

/* The elementwise instructions with one input share their first fields. */
static void add_elements(region_list *list, const npu_table *op, uint32_t input_bytes, uint32_t output_bytes) {
    add_strided(list, op->input, input_bytes, op->counts, op->input_strides, 4, 0);
    add_strided(list, op->output, output_bytes, op->counts, op->output_strides, 4, 1);
}

static void add_transfer(region_list *list, const npu_instruction *head) {
    uint32_t core = list->core;
    if (npu_plain_opcode(head) == NPU_OP_SEND) {
        const npu_send *op = (const npu_send *)(const void *)head;
        add_strided(list, op->spm, op->run_bytes, op->counts, op->spm_strides, 4, 0);
        add_in_other_space(list, NPU_SPACE_OTHER_SPM, op->destination_core, op->destination_spm, op->run_bytes,
                           op->counts, op->destination_strides, 1);
        return;
    }
    const npu_load *op = (const npu_load *)(const void *)head; /* STORE has the same fields */
    int is_store = head->opcode == NPU_OP_STORE;
    add_in_other_space(list, NPU_SPACE_DRAM, core, op->dram, op->run_bytes, op->counts, op->dram_strides, is_store);
    add_strided(list, op->spm, op->run_bytes, op->counts, op->spm_strides, 4, !is_store);
}

static void add_kernel(region_list *list, const npu_kernel *op) {
    const uint32_t *addresses = &op->operand0;
    for (uint32_t i = 0; i < op->operand_count && i < NPU_KERNEL_OPERANDS; ++i) {
        if (op->run_bytes[i] > 0) {
            add_strided(list, addresses[i], op->run_bytes[i], op->counts + 4 * (size_t)i, op->strides + 4 * (size_t)i, 4,
                        i + 1 == op->operand_count);
        }
    }
}

static void add_vector(region_list *list, const npu_instruction *head) {
    const void *op = head;
    const npu_table *elements = op;
    switch (head->opcode) {
    case NPU_OP_POOL:
        add_window(list, op);
        add_window_output(list, op);
        break;
    case NPU_OP_MEAN:
        add_mean(list, op);
        break;
    case NPU_OP_TABLE:
        add_elements(list, elements, 1, 1);
        add(list, elements->table, 256, 0);
        break;
    case NPU_OP_COPY:
        add_copy(list, op);
        break;
    case NPU_OP_FILL:
        add_strided(list, ((const npu_fill *)op)->output, ((const npu_fill *)op)->element_bytes,
                    ((const npu_fill *)op)->counts, ((const npu_fill *)op)->output_strides, 4, 1);
        break;
    case NPU_OP_BINARY:
        add_binary(list, op);
        break;
    case NPU_OP_SELECT:
        add_select(list, op);
        break;
    case NPU_OP_UNARY:
        add_elements(list, elements, npu_type_bytes(((const npu_unary *)op)->input_type),
                     npu_type_bytes(((const npu_unary *)op)->output_type));
        break;
    case NPU_OP_CONVERT:
        add_elements(list, elements, npu_type_bytes(((const npu_convert *)op)->input_type),
                     npu_type_bytes(((const npu_convert *)op)->output_type));
        break;
    case NPU_OP_RESIZE:
        add_resize(list, op);
        break;
    case NPU_OP_SOFTMAX:
        add_softmax(list, op);
        break;
    case NPU_OP_REDUCE:
    case NPU_OP_ARGREDUCE:
        add_lines(list, op, 1);
        break;
    case NPU_OP_NORMALIZE:
    case NPU_OP_LRN:
        add_lines(list, op, 0);
        break;
    case NPU_OP_KERNEL:
        add_kernel(list, op);
        break;
    case NPU_OP_GATHER:
        add_rows(list, op, ((const npu_gather *)op)->input, NPU_SPACE_SPM);
        break;
    default:
        break;
    }
}

int npu_regions(const npu_program *program, uint32_t core, const npu_instruction *instruction,
                npu_region regions[NPU_MAX_REGIONS]) {
    (void)program;
    region_list list = {regions, 0, NPU_SPACE_SPM, core};
    switch (npu_plain_opcode(instruction)) {
    case NPU_OP_LOAD_ROWS:
        add_rows(&list, npu_rows_of(instruction), npu_rows_of(instruction)->dram, NPU_SPACE_DRAM);
        break;
    case NPU_OP_LOAD:
    case NPU_OP_STORE:
    case NPU_OP_SEND:
        add_transfer(&list, instruction);
        break;
    case NPU_OP_CONV:
        add_conv(&list, (const npu_conv *)(const void *)instruction);
        break;
    case NPU_OP_DEPTHWISE:
        add_depthwise(&list, (const npu_depthwise *)(const void *)instruction);
        break;
    case NPU_OP_MATMUL:
        add_matmul(&list, (const npu_matmul *)(const void *)instruction);
        break;
    default:
        add_vector(&list, instruction);
        break;
    }
    return list.count;
}
