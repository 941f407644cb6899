/* Whether regions share bytes with themselves or each other. */
#include "internal.h"

#include <string.h>

/* A region's axes of more than one step, shortest stride first. */
typedef struct {
    uint64_t run_bytes;
    uint64_t counts[4];
    uint64_t strides[4];
    int axes;
} nest;

static nest sorted(const npu_region *region) {
    nest made = {.run_bytes = region->run_bytes};
    for (int axis = 0; axis < 4; ++axis) {
        if (region->counts[axis] == 1) {
            continue;
        }
        int at = made.axes++;
        for (; at > 0 && made.strides[at - 1] > region->strides[axis]; --at) {
            made.counts[at] = made.counts[at - 1];
            made.strides[at] = made.strides[at - 1];
        }
        made.counts[at] = region->counts[axis];
        made.strides[at] = region->strides[axis];
    }
    return made;
}

/* Sufficient, not necessary: every axis steps over all that the axes inside it cover. */
int npu_region_writes_once(const npu_region *region) {
    nest within = sorted(region);
    uint64_t covered = within.run_bytes;
    for (int axis = 0; axis < within.axes; ++axis) {
        if (within.strides[axis] < covered) {
            return 0;
        }
        covered += within.strides[axis] * (within.counts[axis] - 1);
    }
    return 1;
}

/* Whether the bytes first..end - 1, counted from the nest's base, meet the innermost `axes` axes of it. */
static int nest_meets(const nest *within, int axes, int64_t first, int64_t end) {
    if (first <= 0 || axes == 0) {
        return end > 0 && first < (int64_t)within->run_bytes;
    }
    int64_t stride = (int64_t)within->strides[axes - 1], last = (int64_t)within->counts[axes - 1] - 1;
    int64_t step = first / stride < last ? first / stride : last;
    return (step < last && (step + 1) * stride < end) ||
           nest_meets(within, axes - 1, first - step * stride, end - step * stride);
}

typedef struct {
    nest written;
    int64_t base;
} overlap_search;

static npu_status visit_run(void *context, uint64_t start, uint64_t bytes) {
    const overlap_search *search = context;
    int64_t first = (int64_t)start - search->base;
    return nest_meets(&search->written, search->written.axes, first, first + (int64_t)bytes) ? NPU_TRAP : NPU_OK;
}

int npu_regions_overlap(const npu_region *read, const npu_region *written) {
    int same_memory = (read->space == NPU_SPACE_DRAM) == (written->space == NPU_SPACE_DRAM) &&
                      (read->space == NPU_SPACE_DRAM || read->core == written->core);
    if (!same_memory || npu_region_end(read) <= written->base || npu_region_end(written) <= read->base) {
        return 0;
    }
    overlap_search search = {sorted(written), (int64_t)written->base};
    return npu_for_each_run(read, visit_run, &search) != NPU_OK;
}

int npu_regions_are_equal(const npu_region *a, const npu_region *b) {
    return a->space == b->space && a->core == b->core && a->base == b->base && a->run_bytes == b->run_bytes &&
           memcmp(a->counts, b->counts, sizeof a->counts) == 0 &&
           memcmp(a->strides, b->strides, sizeof a->strides) == 0;
}
