/* How the fields of an instruction are checked: each check is true, or says what is wrong and is false. */
#ifndef NPU_VALIDATE_H
#define NPU_VALIDATE_H

#include <math.h>
#include <stdio.h>

#include "internal.h"

#define MAX_EXTENT (1 << 24)  /* rows, columns, channels */
#define MAX_PIXELS (1 << 26)  /* rows times columns: bounds the work of one instruction */
#define MAX_KERNEL 65535      /* taps, strides and dilations of one axis */
#define MAX_POSITION (1 << 30) /* of any tap */
#define MAX_DESCRIPTION 256

typedef struct {
    npu_program *program;
    const npu_stream *stream;
    const npu_instruction *instruction;
    npu_message *message;
} context;

static inline int refuse(const context *at, const char *what) {
    char description[MAX_DESCRIPTION];
    npu_describe(at->program, at->stream, at->instruction, description, sizeof description);
    npu_say(at->message, "%s: %s", description, what);
    return 0;
}

static inline int between(const context *at, const char *field, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) {
        return 1;
    }
    char what[160];
    snprintf(what, sizeof what, "%s is %lld, not in %lld..%lld", field, (long long)value, (long long)low,
             (long long)high);
    return refuse(at, what);
}

static inline int finite_and_positive(const context *at, const char *field, float value) {
    if (isfinite(value) && value > 0.0f) {
        return 1;
    }
    char what[160];
    snprintf(what, sizeof what, "%s is %g, not finite and positive", field, (double)value);
    return refuse(at, what);
}

static inline int scales_are_valid(const context *at, float input_scale, float output_scale) {
    return finite_and_positive(at, "input_scale", input_scale) && finite_and_positive(at, "output_scale", output_scale);
}

static inline int one_of_types(const context *at, const char *field, uint32_t type, uint32_t mask) {
    if (type < NPU_TYPE_COUNT && (mask >> type & 1u)) {
        return 1;
    }
    char what[160];
    snprintf(what, sizeof what, "%s is data type %u, which this instruction does not take", field, type);
    return refuse(at, what);
}

#define BYTE_TYPES (1u << NPU_TYPE_UINT8 | 1u << NPU_TYPE_INT8)
#define COMPUTED_TYPES ((1u << (NPU_TYPE_BOOL + 1)) - 1) /* engines only move the others */
#define CODE_TYPES (BYTE_TYPES | 1u << NPU_TYPE_INT16 | 1u << NPU_TYPE_UINT16)
#define FLOAT_TYPES (1u << NPU_TYPE_FLOAT16 | 1u << NPU_TYPE_FLOAT32)

static inline int64_t lowest(uint32_t type) {
    switch (type) {
    case NPU_TYPE_INT8: return INT8_MIN;
    case NPU_TYPE_INT16: return INT16_MIN;
    default: return 0;
    }
}

static inline int64_t highest(uint32_t type) {
    switch (type) {
    case NPU_TYPE_UINT8: return UINT8_MAX;
    case NPU_TYPE_INT8: return INT8_MAX;
    case NPU_TYPE_UINT16: return UINT16_MAX;
    case NPU_TYPE_INT16: return INT16_MAX;
    default: return 0;
    }
}

static inline int code(const context *at, const char *field, int32_t value, uint32_t type) {
    return between(at, field, value, lowest(type), highest(type));
}

/* An element of npu_element: codes have a zero point in their range, all others have none. */
static inline int check_element(const context *at, const char *field, uint32_t type, float scale, int32_t zero_point) {
    return one_of_types(at, field, type, COMPUTED_TYPES) && code(at, "zero_point", zero_point, type) &&
           finite_and_positive(at, "scale", scale) &&
           ((CODE_TYPES >> type & 1u) || scale == 1.0f || refuse(at, "a scale other than 1 without codes"));
}

static inline int counts_are_positive(const context *at, const uint32_t *counts, int axes) {
    for (int axis = 0; axis < axes; ++axis) {
        if (!between(at, "a count", counts[axis], 1, UINT32_MAX)) {
            return 0;
        }
    }
    return 1;
}

static inline int aligned(const context *at, const char *field, uint32_t address) {
    return address % 4 == 0 || refuse(at, field);
}

static inline int window_axis(const context *at, uint32_t input, uint32_t output, uint32_t kernel, uint32_t stride,
                       uint32_t dilation, int32_t pad) {
    return between(at, "an input extent", input, 1, MAX_EXTENT) &&
           between(at, "an output extent", output, 1, MAX_EXTENT) &&
           between(at, "a kernel extent", kernel, 1, MAX_KERNEL) &&
           between(at, "a stride", stride, 1, MAX_KERNEL) && between(at, "a dilation", dilation, 1, MAX_KERNEL) &&
           between(at, "a pad", pad, -MAX_EXTENT, MAX_EXTENT) &&
           between(at, "the last tap's position",
                   (int64_t)(output - 1) * stride + (int64_t)(kernel - 1) * dilation - pad, -MAX_POSITION, MAX_POSITION);
}

static inline int check_pixels(const context *at, uint32_t height, uint32_t width) {
    return between(at, "height times width", (int64_t)((uint64_t)height * width), 1, MAX_PIXELS);
}

static inline int check_window(const context *at, const npu_depthwise *op, uint32_t input_types,
                               uint32_t output_types) {
    return window_axis(at, op->input_height, op->output_height, op->kernel_height, op->stride_height,
                       op->dilation_height, op->pad_top) &&
           window_axis(at, op->input_width, op->output_width, op->kernel_width, op->stride_width, op->dilation_width,
                       op->pad_left) &&
           check_pixels(at, op->input_height, op->input_width) &&
           check_pixels(at, op->output_height, op->output_width) &&
           between(at, "input_channels", op->input_channels, 1, MAX_EXTENT) &&
           between(at, "output_channels", op->output_channels, 1, MAX_EXTENT) &&
           one_of_types(at, "input_type", op->input_type, input_types) &&
           one_of_types(at, "output_type", op->output_type, output_types) &&
           code(at, "input_zero_point", op->input_zero_point, op->input_type) &&
           code(at, "output_zero_point", op->output_zero_point, op->output_type);
}

/* Any instruction of the vector engine (validate_vector.c). */
int npu_check_vector(const context *at);

#endif
