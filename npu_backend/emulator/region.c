/* The extent of a region and the runs it consists of; the sizes of data types. */
#include "internal.h"

uint64_t npu_region_bytes(const npu_region *region) {
    uint64_t bytes = region->run_bytes;
    for (int axis = 0; axis < 4; ++axis) {
        bytes *= region->counts[axis];
    }
    return bytes;
}

uint64_t npu_region_end(const npu_region *region) {
    uint64_t end = region->base + region->run_bytes;
    if (end < region->base) {
        return UINT64_MAX;
    }
    for (int axis = 0; axis < 4; ++axis) {
        uint64_t steps = region->counts[axis] - 1, stride = region->strides[axis];
        if (steps > 0 && stride > (UINT64_MAX - end) / steps) {
            return UINT64_MAX;
        }
        end += steps * stride;
    }
    return end;
}

npu_status npu_for_each_run(const npu_region *region, npu_run_visitor visit, void *context) {
    const uint64_t *counts = region->counts, *strides = region->strides;
    npu_status status = NPU_OK;
    for (uint64_t i = 0; i < counts[0]; ++i) {
        for (uint64_t j = 0; j < counts[1]; ++j) {
            for (uint64_t k = 0; k < counts[2]; ++k) {
                uint64_t start = region->base + i * strides[0] + j * strides[1] + k * strides[2];
                for (uint64_t l = 0; l < counts[3] && status == NPU_OK; ++l, start += strides[3]) {
                    status = visit(context, start, region->run_bytes);
                }
            }
        }
    }
    return status;
}

uint32_t npu_type_bytes(uint32_t data_type) {
    static const uint8_t bytes[NPU_TYPE_COUNT] = {1, 1, 2, 4, 2, 4, 2, 8, 1, 8, 4, 8};
    return data_type < NPU_TYPE_COUNT ? bytes[data_type] : 0;
}
