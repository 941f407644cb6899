/* DEPTHWISE's sums of all data types: a register's lanes are channels. Written once for both vector instruction sets,
 * which have defined what conv_sums.h names, and
 *
 *   load_lanes   as many channels as a register has 32-bit lanes: float32, or codes as int16 in the lower halves
 *   add_lanes    int64 sums in memory and the int32 lanes of a register
 *
 * The weights are arranged likewise in strip->extra, [block][tap][16] of 32 bits; the upper halves of codes' weights are
 * zero, so that whatever stands beside a code does not count. */
#ifndef NPU_DEPTHWISE_SUMS_H
#define NPU_DEPTHWISE_SUMS_H

enum {
    LANES = REGISTER_BYTES / sizeof(uint32_t),
    /* A product of 16-bit codes and int8 is at most 2^22, or of uint8 less: an int32 holds the sum of so many. */
    EXACT_PRODUCTS = 256,
    CHANNEL_PIXELS = 4
};

/* `lanes` registers' worth of a block, at its channel `first`. */
typedef struct {
    const npu_strip *strip;
    const uint8_t *weights;
    uint64_t pixel_bytes; /* from one pixel's sums to the next */
    uint64_t sums_at;
    uint32_t first;
} channel_group;

/* Adds to the sums of a pixel what an int32 can hold no more of. */
INLINE void move_words(REGISTER *sums, uint8_t *const *kept, const int pixels) {
#pragma GCC unroll 4
    for (int p = 0; p < pixels; p++) {
        add_lanes(kept[p], sums[p]);
        sums[p] = zero();
    }
}

INLINE void sum_pixels(const channel_group *group, uint32_t pixel, const int pixels, const npu_sum kind) {
    const npu_strip *strip = group->strip;
    const uint32_t type = strip->op->input_type, taps = strip->taps;
    const size_t at = (size_t)group->first * (kind == NPU_SUM_FLOAT32 ? sizeof(float) : npu_type_bytes(type));
    const uint8_t *const *inputs = strip->inputs + pixel;
    REGISTER sums[CHANNEL_PIXELS];
    uint8_t *kept[CHANNEL_PIXELS];
#pragma GCC unroll 4
    for (int p = 0; p < pixels; p++) {
        sums[p] = zero();
        kept[p] = strip->kept + (pixel + (uint32_t)p) * group->pixel_bytes + group->sums_at;
        if (kind == NPU_SUM_INT64) memset(kept[p], 0, LANES * sizeof(int64_t));
    }
    for (uint32_t tap = 0; tap < taps; tap++, inputs += strip->capacity) {
        const REGISTER weight = load_register(group->weights + (size_t)tap * NPU_CHANNEL_BLOCK * sizeof(uint32_t));
#pragma GCC unroll 4
        for (int p = 0; p < pixels; p++)
            sums[p] = multiply_add(sums[p], load_lanes(inputs[p] + at, type, kind), weight, kind == NPU_SUM_FLOAT32);
        if (kind == NPU_SUM_INT64 && tap % EXACT_PRODUCTS == EXACT_PRODUCTS - 1) move_words(sums, kept, pixels);
    }
    if (kind == NPU_SUM_INT64) {
        move_words(sums, kept, pixels);
        return;
    }
#pragma GCC unroll 4
    for (int p = 0; p < pixels; p++) store_register(kept[p], sums[p]);
}

INLINE void sum_channels(const channel_group *group, const npu_sum kind) {
    const uint32_t count = group->strip->count;
    uint32_t pixel = 0;
    for (; pixel + CHANNEL_PIXELS <= count; pixel += CHANNEL_PIXELS) sum_pixels(group, pixel, CHANNEL_PIXELS, kind);
    for (; pixel < count; pixel++) sum_pixels(group, pixel, 1, kind);
}

TARGET static void sum_floats(const channel_group *group) { sum_channels(group, NPU_SUM_FLOAT32); }
TARGET static void sum_words(const channel_group *group) { sum_channels(group, NPU_SUM_INT64); }
TARGET static void sum_bytes(const channel_group *group) { sum_channels(group, NPU_SUM_INT32); }

static void arrange_weights(const npu_strip *strip, uint32_t level) {
    const npu_conv *op = strip->op;
    const uint32_t elements = strip->taps * NPU_CHANNEL_BLOCK;
    const uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    const npu_element half = npu_element_of(NPU_TYPE_FLOAT16, 1.0f, 0, level);
    for (uint32_t block = 0; block < blocks; block++) {
        const int8_t *weights = npu_block_weights(op, strip->spm, block);
        uint32_t *arranged = (uint32_t *)(void *)strip->extra + (size_t)block * elements;
        if (op->input_type == NPU_TYPE_FLOAT16)
            half.read(&half, (const uint8_t *)weights, elements, (float *)(void *)arranged);
        else
            for (uint32_t i = 0; i < elements; i++) arranged[i] = (uint16_t)weights[i];
    }
}

static void sum_strip(const npu_strip *strip, uint32_t level) {
    static void (*const run[])(const channel_group *group) = {sum_bytes, sum_words, sum_floats};
    const npu_sum kind = npu_conv_sum_of(strip->op->input_type);
    const uint32_t sum_size = npu_conv_sum_bytes(strip->op->input_type);
    const uint32_t blocks = (uint32_t)npu_divide_up(strip->op->output_channels, NPU_CHANNEL_BLOCK);
    if (strip->first == 0) arrange_weights(strip, level);
    for (uint32_t first = 0; first < blocks * NPU_CHANNEL_BLOCK; first += LANES) {
        const uint32_t block = first / NPU_CHANNEL_BLOCK, lane = first % NPU_CHANNEL_BLOCK;
        const channel_group group = {
            .strip = strip,
            .weights = strip->extra + ((size_t)block * strip->taps * NPU_CHANNEL_BLOCK + lane) * sizeof(uint32_t),
            .pixel_bytes = (uint64_t)blocks * NPU_CHANNEL_BLOCK * sum_size,
            .sums_at = (uint64_t)first * sum_size,
            .first = first,
        };
        run[kind](&group);
    }
}

#endif
