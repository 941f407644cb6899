/* Walks strided operands in rows of contiguous elements. */
#include "vector.h"

#define CHUNK_ELEMENTS 1024u

npu_view npu_view_of(const uint32_t counts[4]) {
    npu_view view = {0};
    for (int axis = 0; axis < 4; ++axis) {
        view.counts[axis] = counts[axis];
    }
    return view;
}

void npu_view_operand(npu_view *view, uint8_t *base, uint32_t element_bytes, const uint32_t strides[4]) {
    uint32_t operand = view->operands++;
    view->base[operand] = base;
    view->element_bytes[operand] = element_bytes;
    for (int axis = 0; axis < 4; ++axis) {
        view->strides[operand][axis] = strides[axis];
    }
}

static int can_merge(const npu_view *view, int outer, int inner) {
    for (uint32_t operand = 0; operand < view->operands; ++operand) {
        const int64_t *strides = view->strides[operand];
        if (strides[outer] != strides[inner] * (int64_t)view->counts[inner]) {
            return 0;
        }
    }
    return 1;
}

static void move_axis(npu_view *view, int from, int to) {
    view->counts[to] = view->counts[from];
    for (uint32_t operand = 0; operand < view->operands; ++operand) {
        view->strides[operand][to] = view->strides[operand][from];
    }
}

static void clear_axis(npu_view *view, int axis) {
    view->counts[axis] = 1;
    for (uint32_t operand = 0; operand < view->operands; ++operand) {
        view->strides[operand][axis] = 0;
    }
}

void npu_view_collapse(npu_view *view) {
    int last = 4; /* axes last..3 are done */
    for (int axis = 3; axis >= 0; --axis) {
        if (view->counts[axis] == 1) {
            continue;
        }
        if (last < 4 && can_merge(view, axis, last)) {
            view->counts[last] *= view->counts[axis];
            continue;
        }
        move_axis(view, axis, --last);
    }
    while (last > 0) {
        clear_axis(view, --last);
    }
}

/* Rows cost a call each, elements that lie apart a copy each, and a scattered output more than a gathered input. */
static double cost_with_inner(const npu_view *view, int axis) {
    double elements = 1.0, apart = 0.125;
    for (int other = 0; other < 4; ++other) {
        elements *= (double)view->counts[other];
    }
    for (uint32_t operand = 0; operand < view->operands; ++operand) {
        if (view->strides[operand][axis] != view->element_bytes[operand]) {
            apart += operand + 1 == view->operands ? 2.0 : 1.0;
        }
    }
    return elements * apart + elements / (double)view->counts[axis] * 8.0;
}

void npu_view_swap(npu_view *view, int a, int b) {
    uint64_t count = view->counts[a];
    view->counts[a] = view->counts[b];
    view->counts[b] = count;
    for (uint32_t operand = 0; operand < view->operands; ++operand) {
        int64_t stride = view->strides[operand][a];
        view->strides[operand][a] = view->strides[operand][b];
        view->strides[operand][b] = stride;
    }
}

static void choose_inner_axis(npu_view *view) {
    int best = 3;
    for (int axis = 0; axis < 3; ++axis) {
        if (view->counts[axis] > 1 && cost_with_inner(view, axis) < cost_with_inner(view, best)) {
            best = axis;
        }
    }
    npu_view_swap(view, best, 3);
}

#define COPY(size)                                               \
    for (; n > 0; --n, to += to_stride, from += from_stride) {   \
        memcpy(to, from, size);                                  \
    }                                                            \
    break

void npu_copy_strided(uint8_t *to, int64_t to_stride, const uint8_t *from, int64_t from_stride, size_t bytes, size_t n) {
    switch (bytes) {
    case 1: COPY(1);
    case 2: COPY(2);
    case 4: COPY(4);
    case 8: COPY(8);
    case 16: COPY(16);
    case 32: COPY(32);
    case 64: COPY(64);
    default: COPY(bytes);
    }
}

/* A row whose elements lie apart goes through contiguous buffers, a chunk at a time. */
static void apart_row(const npu_view *view, uint8_t *const at[], npu_row row, const void *context) {
    uint8_t buffers[NPU_VIEW_OPERANDS][CHUNK_ELEMENTS * 8 + NPU_LANES];
    uint32_t last = view->operands - 1;
    for (uint64_t done = 0; done < view->counts[3]; done += CHUNK_ELEMENTS) {
        uint64_t left = view->counts[3] - done;
        size_t n = left < CHUNK_ELEMENTS ? (size_t)left : CHUNK_ELEMENTS;
        uint8_t *contiguous[NPU_VIEW_OPERANDS] = {0};
        for (uint32_t operand = 0; operand <= last; ++operand) {
            int64_t stride = view->strides[operand][3];
            uint32_t element = view->element_bytes[operand];
            uint8_t *source = at[operand] + (int64_t)done * stride;
            contiguous[operand] = stride == element ? source : buffers[operand];
            if (operand < last && stride != element && (stride != 0 || done == 0)) {
                npu_copy_strided(buffers[operand], element, source, stride, element, n);
            }
        }
        row(context, contiguous, n);
        if (contiguous[last] == buffers[last]) {
            int64_t stride = view->strides[last][3];
            uint32_t element = view->element_bytes[last];
            npu_copy_strided(at[last] + (int64_t)done * stride, stride, buffers[last], element, element, n);
        }
    }
}

void npu_view_for_rows(npu_view *view, npu_row row, const void *context) {
    npu_view_collapse(view);
    choose_inner_axis(view);
    int together = 1;
    for (uint32_t operand = 0; operand < view->operands; ++operand) {
        together &= view->strides[operand][3] == view->element_bytes[operand] || view->counts[3] == 1;
    }
    for (uint64_t i = 0; i < view->counts[0]; ++i) {
        for (uint64_t j = 0; j < view->counts[1]; ++j) {
            for (uint64_t k = 0; k < view->counts[2]; ++k) {
                uint8_t *at[NPU_VIEW_OPERANDS] = {0};
                for (uint32_t operand = 0; operand < view->operands; ++operand) {
                    const int64_t *strides = view->strides[operand];
                    at[operand] = view->base[operand] + (int64_t)i * strides[0] + (int64_t)j * strides[1] +
                                  (int64_t)k * strides[2];
                }
                if (together) {
                    row(context, at, (size_t)view->counts[3]);
                } else {
                    apart_row(view, at, row, context);
                }
            }
        }
    }
}
