/* Copies a program's tensors between the host's order of axes and the storage order in DRAM. */
#include "internal.h"

#include <string.h>

#define TILE 64u  /* elements on each side: a tile stays in the first-level cache */
#define NARROW 8u /* planes with fewer elements on a side, such as three colours, are not tiled */

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

/* A plane of two axes: along `reads` the source is contiguous, along `writes` the target. */
typedef struct {
    uint64_t count;
    uint64_t from_stride;
    uint64_t to_stride;
} side;

/* Element (r, w) of the plane, the second loop innermost. */
#define DEFINE_DIRECT(bits)                                                                                   \
    static void direct_##bits(uint8_t *to, const uint8_t *from, const side *outer, const side *inner) {       \
        for (uint64_t i = 0; i < outer->count; ++i) {                                                         \
            uint8_t *target = to + i * outer->to_stride;                                                      \
            const uint8_t *source = from + i * outer->from_stride;                                            \
            for (uint64_t j = 0; j < inner->count; ++j) {                                                     \
                memcpy(target + j * inner->to_stride, source + j * inner->from_stride, bits / 8);             \
            }                                                                                                 \
        }                                                                                                     \
    }
DEFINE_DIRECT(8)
DEFINE_DIRECT(16)
DEFINE_DIRECT(32)
DEFINE_DIRECT(64)

static void copy_direct(uint32_t element_bytes, uint8_t *to, const uint8_t *from, const side *outer, const side *inner) {
    if (element_bytes == 1) {
        direct_8(to, from, outer, inner);
    } else if (element_bytes == 2) {
        direct_16(to, from, outer, inner);
    } else if (element_bytes == 4) {
        direct_32(to, from, outer, inner);
    } else {
        direct_64(to, from, outer, inner);
    }
}

/* Through a buffer, so that both memories only see whole runs: their strides are often multiples of the cache's. */
static void copy_tile(uint32_t element_bytes, uint8_t *to, const uint8_t *from, const side *reads, const side *writes) {
    uint8_t buffer[TILE * (TILE * 8 + 4)]; /* rows apart by no power of two */
    uint64_t row_bytes = (uint64_t)TILE * element_bytes + 4;
    for (uint64_t w = 0; w < writes->count; ++w) {
        memcpy(buffer + w * row_bytes, from + w * writes->from_stride, (size_t)(reads->count * element_bytes));
    }
    side outer = {reads->count, element_bytes, reads->to_stride};
    side inner = {writes->count, row_bytes, writes->to_stride};
    copy_direct(element_bytes, to, buffer, &outer, &inner);
}

static void copy_plane(uint32_t element_bytes, uint8_t *to, const uint8_t *from, const side *reads, const side *writes) {
    if (reads->count < NARROW || writes->count < NARROW) {
        int reads_longer = reads->count > writes->count;
        copy_direct(element_bytes, to, from, reads_longer ? writes : reads, reads_longer ? reads : writes);
        return;
    }
    for (uint64_t r = 0; r < reads->count; r += TILE) {
        for (uint64_t w = 0; w < writes->count; w += TILE) {
            side tile_reads = *reads, tile_writes = *writes;
            tile_reads.count = reads->count - r < TILE ? reads->count - r : TILE;
            tile_writes.count = writes->count - w < TILE ? writes->count - w : TILE;
            copy_tile(element_bytes, to + r * reads->to_stride + w * writes->to_stride,
                      from + r * reads->from_stride + w * writes->from_stride, &tile_reads, &tile_writes);
        }
    }
}

static side side_of(const layout *at, const axis *along) {
    return at->to_storage ? (side){along->count, along->host_stride, along->storage_stride}
                          : (side){along->count, along->storage_stride, along->host_stride};
}

/* The plane of the axis that is contiguous on the host and the one that is contiguous in storage. */
static void copy_inner_plane(const layout *at, int host_inner, uint8_t *to, const uint8_t *from) {
    side host = side_of(at, &at->axes[host_inner]), storage = side_of(at, &at->axes[at->rank - 1]);
    copy_plane(at->element_bytes, to, from, at->to_storage ? &host : &storage, at->to_storage ? &storage : &host);
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
        copy_inner_plane(at, host_inner, to, from);
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
