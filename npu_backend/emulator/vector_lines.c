/* Lines between the scratchpad and buffers of floats. */
#include "lines.h"

#define APART_ELEMENTS 256u

static void add_axis(npu_view *view, const npu_line_fields *op, int axis) {
    view->counts[axis] = op->counts[axis];
    view->strides[0][axis] = op->input_strides[axis];
    view->strides[1][axis] = op->output_strides[axis];
}

static npu_view axes_of(const npu_line_fields *op, int along) {
    npu_view view = {0};
    view.operands = 2;
    for (int axis = 0; axis < 4; ++axis) {
        view.counts[axis] = 1;
        if ((int)(op->line_axes >> axis & 1u) == along) {
            add_axis(&view, op, axis);
        }
    }
    npu_view_collapse(&view);
    return view;
}

/* The axis whose neighbours are neighbours in the scratchpad comes last. */
static int find_lane_axis(npu_view *across, uint32_t bytes) {
    for (int axis = 3; axis >= 0; --axis) {
        if (across->counts[axis] > 1 && across->strides[0][axis] == (int64_t)bytes) {
            npu_view_swap(across, axis, 3);
            return 1;
        }
    }
    return 0;
}

npu_lines npu_lines_of(const npu_line_fields *op, uint8_t *spm, uint32_t level) {
    npu_lines lines = {0};
    lines.input = spm + op->input;
    lines.output = spm + op->output;
    lines.from = NPU_ELEMENT(op, input, level);
    lines.to = NPU_ELEMENT(op, output, level);
    lines.along = axes_of(op, 1);
    lines.across = axes_of(op, 0);
    lines.length = (size_t)(lines.along.counts[0] * lines.along.counts[1] * lines.along.counts[2] *
                            lines.along.counts[3]);
    lines.level = level;
    int is_contiguous = lines.along.strides[0][3] == (int64_t)lines.from.bytes;
    int side_by_side = find_lane_axis(&lines.across, lines.from.bytes);
    lines.lanes = side_by_side && !is_contiguous ? NPU_LINE_LANES : 1;
    return lines;
}

static void visit_last_axis(const npu_lines *lines, npu_line_block block, npu_block_visitor visit, void *context) {
    const uint64_t count = lines->across.counts[3];
    for (uint64_t first = 0; first < count; first += lines->lanes) {
        block.count = (size_t)(count - first < lines->lanes ? count - first : lines->lanes);
        visit(lines, block, context);
        block.input += (int64_t)lines->lanes * lines->across.strides[0][3];
        block.output += (int64_t)lines->lanes * lines->across.strides[1][3];
    }
}

static int64_t step(uint64_t i, uint64_t j, uint64_t k, const int64_t strides[4]) {
    return (int64_t)i * strides[0] + (int64_t)j * strides[1] + (int64_t)k * strides[2];
}

void npu_for_blocks(const npu_lines *lines, npu_block_visitor visit, void *context) {
    const npu_view *across = &lines->across;
    const int64_t *from = across->strides[0], *to = across->strides[1];
    for (uint64_t i = 0; i < across->counts[0]; ++i) {
        for (uint64_t j = 0; j < across->counts[1]; ++j) {
            for (uint64_t k = 0; k < across->counts[2]; ++k) {
                npu_line_block block = {lines->input + step(i, j, k, from),
                                        lines->output + step(i, j, k, to), 0};
                visit_last_axis(lines, block, visit, context);
            }
        }
    }
}

static int64_t offset_of(const npu_view *along, int operand, uint64_t element) {
    int64_t offset = 0;
    for (int axis = 3; element > 0; --axis) {
        offset += (int64_t)(element % along->counts[axis]) * along->strides[operand][axis];
        element /= along->counts[axis];
    }
    return offset;
}

/* Elements until the last axis of the line ends. */
static size_t run_length(const npu_view *along, size_t element, size_t left) {
    size_t run = (size_t)(along->counts[3] - element % along->counts[3]);
    return run < left ? run : left;
}

/* Elements that lie side by side in the scratchpad, `stride` bytes from the next such piece, and `lanes` in a buffer. */
typedef struct {
    size_t elements;
    size_t lanes;
    int64_t stride;
} piece;

static int is_whole(const npu_element *element, piece each, size_t pieces) {
    return pieces == 1 || (each.elements == each.lanes && each.stride == (int64_t)(each.lanes * element->bytes));
}

static void read_pieces(const npu_element *from, const uint8_t *at, piece each, size_t pieces, float *x) {
    if (is_whole(from, each, pieces)) {
        from->read(from, at, pieces * each.elements, x);
        return;
    }
    uint8_t together[APART_ELEMENTS * 8];
    for (size_t n; pieces > 0; pieces -= n, at += (int64_t)n * each.stride, x += n * each.lanes) {
        n = pieces < APART_ELEMENTS / each.lanes ? pieces : APART_ELEMENTS / each.lanes;
        npu_copy_strided(together, (int64_t)(each.lanes * from->bytes), at, each.stride, each.elements * from->bytes, n);
        from->read(from, together, n * each.lanes, x);
    }
}

static void write_pieces(const npu_element *to, const float *x, piece each, size_t pieces, uint8_t *at) {
    if (is_whole(to, each, pieces)) {
        to->write(to, x, pieces * each.elements, at);
        return;
    }
    uint8_t together[APART_ELEMENTS * 8];
    for (size_t n; pieces > 0; pieces -= n, at += (int64_t)n * each.stride, x += n * each.lanes) {
        n = pieces < APART_ELEMENTS / each.lanes ? pieces : APART_ELEMENTS / each.lanes;
        to->write(to, x, n * each.lanes, together);
        npu_copy_strided(at, each.stride, together, (int64_t)(each.lanes * to->bytes), each.elements * to->bytes, n);
    }
}

static piece piece_of(const npu_lines *lines, npu_line_block block, int operand) {
    piece each = {lines->lanes == 1 ? 1 : block.count, lines->lanes, lines->along.strides[operand][3]};
    return each;
}

void npu_read_lines(const npu_lines *lines, npu_line_block block, size_t first, size_t count, float *x) {
    const piece each = piece_of(lines, block, 0);
    size_t run;
    for (size_t done = 0; done < count; done += run) {
        run = run_length(&lines->along, first + done, count - done);
        read_pieces(&lines->from, block.input + offset_of(&lines->along, 0, first + done), each, run,
                    x + done * lines->lanes);
    }
}

void npu_write_across(const npu_lines *lines, npu_line_block block, const float *values) {
    const piece each = {1, 1, lines->across.strides[1][3]};
    write_pieces(&lines->to, values, each, block.count, block.output);
}

static void scatter_run(const npu_lines *lines, npu_line_block block, const float *x, size_t run) {
    const piece each = piece_of(lines, block, 1);
    if (lines->lanes == 1 || lines->across.strides[1][3] == (int64_t)lines->to.bytes) {
        write_pieces(&lines->to, x, each, run, block.output);
        return;
    }
    for (size_t r = 0; r < run; ++r, block.output += each.stride) {
        npu_write_across(lines, block, x + r * NPU_LINE_LANES);
    }
}

static void scatter(const npu_lines *lines, npu_line_block block, const float *x) {
    uint8_t *output = block.output;
    size_t run;
    for (size_t done = 0; done < lines->length; done += run) {
        run = run_length(&lines->along, done, lines->length - done);
        block.output = output + offset_of(&lines->along, 1, done);
        scatter_run(lines, block, x + done * lines->lanes, run);
    }
}

typedef struct {
    npu_line_transform transform;
    const void *context;
    float *x;
    float *spare;
} transformation;

static void transform_block(const npu_lines *lines, npu_line_block block, void *context) {
    const transformation *k = context;
    npu_read_lines(lines, block, 0, lines->length, k->x);
    k->transform(k->context, k->x, k->spare, lines->length, lines->lanes);
    scatter(lines, block, k->x);
}

npu_status npu_transform_lines(const npu_lines *lines, npu_line_transform transform, const void *context,
                               size_t spare_elements, npu_scratch *scratch) {
    const size_t floats = lines->length * lines->lanes;
    const size_t spare = spare_elements > 0 ? (lines->length + spare_elements) * lines->lanes : 0;
    float *x = (float *)(void *)npu_scratch_reserve(scratch, (floats + spare) * sizeof *x);
    if (x == NULL) {
        return NPU_OUT_OF_MEMORY;
    }
    transformation k = {transform, context, x, x + floats};
    npu_for_blocks(lines, transform_block, &k);
    return NPU_OK;
}
