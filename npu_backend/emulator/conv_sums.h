/* CONV's sums of halves and of 16-bit codes: a tile of output pixels times registers of weights stays in registers.
 * Written once for both vector instruction sets; the file that includes this has defined the type REGISTER of
 * REGISTER_BYTES, TARGET and INLINE, the most pixels and registers of a tile, and these operations:
 *
 *   zero, load_register, store_register
 *   load_weights    16 bits a lane of int8 weights widened, or 32 bits a lane of halves as float32
 *   broadcast       one channel as float32, or a group of four 16-bit codes
 *   multiply_add    of floats; or of 16-bit codes, where two products go to each 32-bit lane (vpmaddwd: exact)
 *   add_pairs       int64 sums and pairs of int32 lanes
 *
 * A register takes half of its own bytes of weights as they lie, and holds the sums of as many outputs as it has 32-bit
 * lanes (float32), or half as many in two lanes each (codes), which become as many int64. Sums of codes are moved to
 * memory before an int32 could overflow. */
#ifndef NPU_CONV_SUMS_H
#define NPU_CONV_SUMS_H

enum {
    WEIGHT_BYTES = REGISTER_BYTES / 2,
    FLOAT_STEP_BYTES = NPU_CHANNEL_BLOCK * sizeof(uint16_t), /* of a block's weights: a channel */
    CODE_STEP_BYTES = NPU_CHANNEL_BLOCK * NPU_WEIGHT_GROUP,  /* a group of channels */
    /* A lane takes two products of at most 2^22 a step, a tap of a chunk has at most 16 steps: 15 * 16 * 2^23 < 2^31. */
    EXACT_TAPS = 15
};

typedef REGISTER tile_sums[MAX_PIXELS][MAX_REGISTERS];

/* What the tiles of the same outputs share. */
typedef struct {
    const npu_strip *strip;
    const uint8_t *weights;
    uint64_t pixel_bytes; /* from one pixel's sums to the next */
    uint64_t sums_at;     /* the outputs' place among the sums of a pixel */
    uint16_t flip;        /* makes a code an int16 */
} output_group;

/* Registers that a step of one block of outputs takes. */
#define PER_BLOCK(is_float) ((int)((is_float) ? FLOAT_STEP_BYTES : CODE_STEP_BYTES) / WEIGHT_BYTES)

INLINE void add_step(tile_sums sums, const uint8_t *const *inputs, size_t at, const uint8_t *weights,
                     size_t block_bytes, uint32_t channels_left, uint16_t flip, const int pixels, const int registers,
                     const int is_float) {
    REGISTER weight[MAX_REGISTERS];
#pragma GCC unroll 4
    for (int r = 0; r < registers; r++)
        weight[r] = load_weights(weights + (size_t)(r / PER_BLOCK(is_float)) * block_bytes +
                                     (size_t)(r % PER_BLOCK(is_float)) * WEIGHT_BYTES,
                                 channels_left, is_float);
#pragma GCC unroll 14
    for (int p = 0; p < pixels; p++) {
        REGISTER input = broadcast(inputs[p] + at, flip, is_float);
#pragma GCC unroll 4
        for (int r = 0; r < registers; r++) sums[p][r] = multiply_add(sums[p][r], input, weight[r], is_float);
    }
}

/* Adds the tile's sums to those in memory, and starts them again. */
INLINE void move_codes(tile_sums sums, const output_group *group, uint32_t pixel, uint32_t count, const int pixels,
                       const int registers) {
#pragma GCC unroll 14
    for (int p = 0; p < pixels; p++) {
        uint8_t *kept = group->strip->kept + (pixel + (uint32_t)p) * group->pixel_bytes + group->sums_at;
#pragma GCC unroll 4
        for (int r = 0; r < registers; r++) {
            if ((uint32_t)p < count)
                store_register(kept + r * REGISTER_BYTES, add_pairs(load_register(kept + r * REGISTER_BYTES), sums[p][r]));
            sums[p][r] = zero();
        }
    }
}

/* Sums of floats start in registers, those of codes in memory. */
INLINE void start_sums(tile_sums sums, const output_group *group, uint32_t pixel, uint32_t count, const int pixels,
                       const int registers, const int is_float) {
#pragma GCC unroll 14
    for (int p = 0; p < pixels; p++) {
        const uint64_t at = (pixel + (uint32_t)p) * group->pixel_bytes + group->sums_at;
#pragma GCC unroll 4
        for (int r = 0; r < registers; r++) {
            const int is_loaded = group->strip->loaded != NULL && (uint32_t)p < count;
            REGISTER start = is_loaded ? load_register(group->strip->loaded + at + r * REGISTER_BYTES) : zero();
            sums[p][r] = is_float ? start : zero();
            if (!is_float && (uint32_t)p < count) store_register(group->strip->kept + at + r * REGISTER_BYTES, start);
        }
    }
}

INLINE void store_floats(tile_sums sums, const output_group *group, uint32_t pixel, uint32_t count, const int pixels,
                         const int registers) {
#pragma GCC unroll 14
    for (int p = 0; p < pixels; p++) {
        if ((uint32_t)p >= count) break;
        uint8_t *kept = group->strip->kept + (pixel + (uint32_t)p) * group->pixel_bytes + group->sums_at;
#pragma GCC unroll 4
        for (int r = 0; r < registers; r++) store_register(kept + r * REGISTER_BYTES, sums[p][r]);
    }
}

/* `count` of the tile's `pixels` exist. */
INLINE void run_tile(const output_group *group, uint32_t pixel, uint32_t count, const int pixels, const int registers,
                     const int is_float) {
    const npu_strip *strip = group->strip;
    const uint32_t channels = strip->op->input_channels, group_channels = is_float ? 1 : NPU_WEIGHT_GROUP;
    const size_t block_bytes = strip->op->block_bytes, step_bytes = is_float ? FLOAT_STEP_BYTES : CODE_STEP_BYTES;
    const size_t element_bytes = is_float ? sizeof(float) : sizeof(uint16_t);
    const uint8_t *weights = group->weights;
    uint32_t taps_summed = 0;
    tile_sums sums;
    start_sums(sums, group, pixel, count, pixels, registers, is_float);
    for (uint32_t chunk = 0; chunk < channels; chunk += NPU_WEIGHT_CHUNK) {
        const uint32_t end = npu_smaller(channels, chunk + NPU_WEIGHT_CHUNK);
        const uint8_t *const *inputs = strip->inputs + pixel;
        for (uint32_t tap = 0; tap < strip->taps; tap++, inputs += strip->capacity) {
            for (uint32_t channel = chunk; channel < end; channel += group_channels, weights += step_bytes)
                add_step(sums, inputs, channel * element_bytes, weights, block_bytes, end - channel, group->flip, pixels,
                         registers, is_float);
            if (!is_float && ++taps_summed % EXACT_TAPS == 0)
                move_codes(sums, group, pixel, count, pixels, registers);
        }
    }
    if (is_float)
        store_floats(sums, group, pixel, count, pixels, registers);
    else
        move_codes(sums, group, pixel, count, pixels, registers);
}

typedef void tile_function(const output_group *group, uint32_t pixel, uint32_t count);

typedef struct {
    uint32_t pixels;
    tile_function *run[2]; /* by is_float */
} tile_variant;

#define TILE(pixels, registers) \
    TARGET static void codes_##pixels##x##registers(const output_group *group, uint32_t pixel, uint32_t count) { \
        run_tile(group, pixel, count, pixels, registers, 0); \
    } \
    TARGET static void floats_##pixels##x##registers(const output_group *group, uint32_t pixel, uint32_t count) { \
        run_tile(group, pixel, count, pixels, registers, 1); \
    }
#define ROW(pixels, registers) {pixels, {codes_##pixels##x##registers, floats_##pixels##x##registers}}

/* Every pixel of the strip; `variants`: largest first, ending in one pixel. The smallest that holds the pixels left. */
static void run_group(const output_group *group, const tile_variant *variants, const int is_float) {
    const uint32_t all = group->strip->count;
    for (uint32_t pixel = 0; pixel < all;) {
        const tile_variant *tile = variants;
        while (tile->pixels > 1 && tile[1].pixels >= all - pixel) tile++;
        const uint32_t count = npu_smaller(tile->pixels, all - pixel);
        tile->run[is_float](group, pixel, count);
        pixel += count;
    }
}

/* Tiles of `registers`, by how many there are left and how few pixels. */
static const tile_variant *choose_variants(uint32_t registers_left, uint32_t pixels, int is_float, uint32_t *registers);

static void run_strip(const npu_strip *strip) {
    const npu_conv *op = strip->op;
    const int is_float = op->input_type == NPU_TYPE_FLOAT16;
    const uint32_t per_block = (uint32_t)PER_BLOCK(is_float);
    const uint32_t all = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK) * per_block;
    for (uint32_t first = 0, taken; first < all; first += taken) {
        const tile_variant *variants = choose_variants(all - first, strip->count, is_float, &taken);
        const output_group group = {
            .strip = strip,
            .weights = (const uint8_t *)npu_block_weights(op, strip->spm, first / per_block) +
                       (size_t)(first % per_block) * WEIGHT_BYTES,
            .pixel_bytes = (uint64_t)all * REGISTER_BYTES,
            .sums_at = (uint64_t)first * REGISTER_BYTES,
            .flip = op->input_type == NPU_TYPE_UINT16 ? 0x8000 : 0,
        };
        run_group(&group, variants, is_float);
    }
}

#endif
