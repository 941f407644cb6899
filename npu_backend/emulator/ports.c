/* Copies a program's tensors between the host's order of axes and the storage order in DRAM. */
#include "internal.h"

#include <string.h>

#define TILE 32u /* elements; a tile of both sides stays in the first-level cache */

typedef struct {
    uint64_t count;
    uint64_t host_stride; /* bytes; the storage side is walked densely in this order, outermost first */
    uint64_t storage_stride;
} axis;

typedef struct {
    axis axes[NPU_MAX_RANK + 2];
    int rank;
    uint32_t element_bytes;
    int to_storage;
} layout;

uint64_t npu_port_bytes(const npu_record_port *port) {
    uint64_t bytes = npu_type_bytes(port->data_type);
    for (uint32_t i = 0; i < port->rank && bytes > 0; ++i) {
        if (port->host_shape[i] > 0 && bytes > UINT64_MAX / port->host_shape[i]) {
            return UINT64_MAX;
        }
        bytes *= port->host_shape[i];
    }
    return bytes;
}

static void set_strides(layout *to, const npu_record_port *port) {
    uint64_t stride = to->element_bytes;
    for (int i = (int)port->rank - 1; i >= 0; --i) {
        to->axes[port->storage_axes[i]].count = port->host_shape[i];
        to->axes[port->storage_axes[i]].host_stride = stride;
        stride *= port->host_shape[i];
    }
    stride = to->element_bytes;
    for (int i = (int)port->rank - 1; i >= 0; --i) {
        to->axes[i].storage_stride = stride;
        stride *= to->axes[i].count;
    }
}

/* Drops axes of one element and joins neighbours that are neighbours on both sides. */
static void collapse(layout *at) {
    int kept = 0;
    for (int i = 0; i < at->rank; ++i) {
        axis inner = at->axes[i];
        if (inner.count == 1) {
            continue;
        }
        if (kept > 0 && at->axes[kept - 1].host_stride == inner.host_stride * inner.count) {
            inner.count *= at->axes[kept - 1].count;
            --kept;
        }
        at->axes[kept++] = inner;
    }
    at->rank = kept;
}

static layout layout_of(const npu_record_port *port, int to_storage) {
    layout made = {.rank = (int)port->rank, .element_bytes = npu_type_bytes(port->data_type), .to_storage = to_storage};
    set_strides(&made, port);
    collapse(&made);
    return made;
}

/* The plane of two axes, `rows` contiguous on the host and `columns` contiguous in storage, tile by tile. */
#define DEFINE_PLANE(bits)                                                                                          \
    static void plane_##bits(uint8_t *to, uint64_t to_row, uint64_t to_column, const uint8_t *from,                 \
                             uint64_t from_row, uint64_t from_column, uint64_t rows, uint64_t columns) {            \
        for (uint64_t row = 0; row < rows; ++row) {                                                                 \
            for (uint64_t column = 0; column < columns; ++column) {                                                 \
                memcpy(to + row * to_row + column * to_column, from + row * from_row + column * from_column,        \
                       bits / 8);                                                                                   \
            }                                                                                                       \
        }                                                                                                           \
    }
DEFINE_PLANE(8)
DEFINE_PLANE(16)
DEFINE_PLANE(32)

static void copy_plane(const layout *at, uint8_t *to, const uint8_t *from, const axis *rows, const axis *columns) {
    uint64_t to_row = at->to_storage ? rows->storage_stride : rows->host_stride;
    uint64_t to_column = at->to_storage ? columns->storage_stride : columns->host_stride;
    uint64_t from_row = at->to_storage ? rows->host_stride : rows->storage_stride;
    uint64_t from_column = at->to_storage ? columns->host_stride : columns->storage_stride;
    void (*copy)(uint8_t *, uint64_t, uint64_t, const uint8_t *, uint64_t, uint64_t, uint64_t, uint64_t) =
        at->element_bytes == 1 ? plane_8 : at->element_bytes == 2 ? plane_16 : plane_32;
    for (uint64_t row = 0; row < rows->count; row += TILE) {
        for (uint64_t column = 0; column < columns->count; column += TILE) {
            uint64_t rows_left = rows->count - row, columns_left = columns->count - column;
            copy(to + row * to_row + column * to_column, to_row, to_column,
                 from + row * from_row + column * from_column, from_row, from_column,
                 rows_left < TILE ? rows_left : TILE, columns_left < TILE ? columns_left : TILE);
        }
    }
}

static int innermost_on_host(const layout *at) {
    int found = 0;
    for (int i = 1; i < at->rank; ++i) {
        found = at->axes[i].host_stride < at->axes[found].host_stride ? i : found;
    }
    return found;
}

/* Walks all axes but the plane's (or, when one axis is contiguous on both sides, all but that one). */
static void copy_axes(const layout *at, int depth, int host_inner, uint8_t *to, const uint8_t *from) {
    int last = at->rank - 1;
    if (depth == last && host_inner == last) {
        memcpy(to, from, (size_t)(at->axes[last].count * at->element_bytes));
    } else if (depth == last) {
        copy_plane(at, to, from, &at->axes[host_inner], &at->axes[last]);
    } else if (depth == host_inner) {
        copy_axes(at, depth + 1, host_inner, to, from);
    } else {
        const axis *over = &at->axes[depth];
        for (uint64_t i = 0; i < over->count; ++i) {
            copy_axes(at, depth + 1, host_inner, to + i * (at->to_storage ? over->storage_stride : over->host_stride),
                      from + i * (at->to_storage ? over->host_stride : over->storage_stride));
        }
    }
}

static void copy_tensor(const layout *at, uint8_t *to, const uint8_t *from) {
    if (at->rank == 0) {
        memcpy(to, from, at->element_bytes);
        return;
    }
    copy_axes(at, 0, innermost_on_host(at), to, from);
}

void npu_port_read(const npu_program *program, const npu_record_port *port, void *host) {
    layout at = layout_of(port, 0);
    const uint8_t *storage = port->dram < program->constants_bytes
                                 ? program->constants + port->dram
                                 : program->dram + (port->dram - program->constants_bytes);
    copy_tensor(&at, host, storage);
}

void npu_port_write(const npu_program *program, const npu_record_port *port, const void *host) {
    layout at = layout_of(port, 1);
    copy_tensor(&at, program->dram + (port->dram - program->constants_bytes), host);
}
