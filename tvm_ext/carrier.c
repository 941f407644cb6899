/* Programs inside a TVM library: the bytes of each, and the function by which TVM's runtime calls it.
 *
 * NPU_CARRIER_PROGRAMS names a file of lines PROGRAM(symbol, "program file"). The programs' bytes are put in by the
 * assembler; each is opened at its first call, and calls of one program follow each other. NPU_CARRIER_KERNELS names one
 * of lines KERNEL(symbol), the native functions that the programs call.
 *
 * NPU_CARRIER_ABI names the header of a generation of TVM: npu_arguments, set_error, tensor_of and ENTRY.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include NPU_CARRIER_ABI

#include "npu_emulator.h"

#define MAX_PORTS 256
#define MAX_THREADS 1024

#define KERNEL(symbol) NPU_API int32_t symbol(void *const *operands);
#include NPU_CARRIER_KERNELS
#undef KERNEL

static const struct {
    const char *symbol;
    npu_kernel_function function;
} kernels[] = {
#define KERNEL(symbol) {#symbol, symbol},
#include NPU_CARRIER_KERNELS
#undef KERNEL
    {NULL, NULL},
};

static void bind_kernels(npu_program *program) {
    for (uint32_t index = 0; index < npu_kernel_count(program); index++) {
        for (size_t known = 0; kernels[known].symbol; known++) {
            if (strcmp(kernels[known].symbol, npu_kernel_symbol(program, index)) == 0) {
                npu_bind_kernel(program, index, kernels[known].function);
            }
        }
    }
}

typedef struct {
    const char *symbol;
    const uint8_t *data;
    const uint8_t *end;
    pthread_mutex_t lock;
    npu_program *program;
} npu_carried;

static int raise_error(const npu_carried *carried, const char *text) {
    char message[NPU_MESSAGE_BYTES + 256];
    snprintf(message, sizeof message, "%s: %s", carried->symbol, text);
    set_error(message);
    return -1;
}

static uint32_t thread_count(void) {
    const char *text = getenv("NPU_THREADS");
    long count = text ? strtol(text, NULL, 10) : 1;
    return count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : (uint32_t)count;
}

static uint32_t wants_check(void) {
    const char *text = getenv("NPU_CHECK");
    return text && strcmp(text, "1") == 0;
}

static int has_type(DLDataType type, uint32_t data_type) {
    static const struct { uint8_t code, bits; } types[] = {
        [NPU_TYPE_UINT8] = {kDLUInt, 8},    [NPU_TYPE_INT8] = {kDLInt, 8},       [NPU_TYPE_INT16] = {kDLInt, 16},
        [NPU_TYPE_INT32] = {kDLInt, 32},    [NPU_TYPE_FLOAT16] = {kDLFloat, 16}, [NPU_TYPE_FLOAT32] = {kDLFloat, 32},
        [NPU_TYPE_UINT16] = {kDLUInt, 16},  [NPU_TYPE_INT64] = {kDLInt, 64},     [NPU_TYPE_BOOL] = BOOL_TYPE,
        [NPU_TYPE_FLOAT64] = {kDLFloat, 64}, [NPU_TYPE_UINT32] = {kDLUInt, 32},  [NPU_TYPE_UINT64] = {kDLUInt, 64},
    };
    if (data_type >= sizeof types / sizeof types[0] || type.lanes != 1) return 0;
    return type.code == types[data_type].code && type.bits == types[data_type].bits;
}

static int has_dense_shape(const DLTensor *tensor, const npu_port_info *port) {
    int64_t step = 1;
    if ((uint32_t)tensor->ndim != port->rank) return 0;
    for (int32_t axis = tensor->ndim - 1; axis >= 0; axis--) {
        if (tensor->shape[axis] != port->shape[axis]) return 0;
        if (tensor->strides && tensor->shape[axis] != 1 && tensor->strides[axis] != step) return 0;
        step *= tensor->shape[axis];
    }
    return 1;
}

/* The tensor's data, or NULL and a message in `text`. */
static void *checked_data(const DLTensor *tensor, const npu_port_info *port, char *text, size_t size) {
    const char *wrong = !tensor                                          ? "is no tensor"
                        : tensor->device.device_type != kDLCPU           ? "is not in the host's memory"
                        : !has_type(tensor->dtype, port->data_type)      ? "has another data type than the program's port"
                        : !has_dense_shape(tensor, port)                 ? "is not dense or has another shape than the program's port"
                                                                         : NULL;
    if (!wrong) return (char *)tensor->data + tensor->byte_offset;
    snprintf(text, size, "%s '%s' %s", port->is_output ? "output" : "input", port->name, wrong);
    return NULL;
}

static int run_locked(npu_carried *carried, npu_arguments args, int32_t count) {
    npu_message message = {{0}};
    const void *inputs[MAX_PORTS];
    void *outputs[MAX_PORTS];
    uint32_t input_count = 0, output_count = 0;
    if (!carried->program) {
        if (npu_open(carried->data, (uint64_t)(carried->end - carried->data), &carried->program, &message) != NPU_OK) {
            return raise_error(carried, message.text);
        }
        bind_kernels(carried->program);
    }
    if (count < 0 || (uint32_t)count != npu_port_count(carried->program) || count > MAX_PORTS) {
        snprintf(message.text, sizeof message.text, "%d tensors passed, the program has %u ports", (int)count,
                 npu_port_count(carried->program));
        return raise_error(carried, message.text);
    }
    for (int32_t index = 0; index < count; index++) {
        npu_port_info port;
        npu_port(carried->program, (uint32_t)index, &port);
        void *data = checked_data(tensor_of(args, index), &port, message.text, sizeof message.text);
        if (!data) return raise_error(carried, message.text);
        if (port.is_output) {
            outputs[output_count++] = data;
        } else {
            inputs[input_count++] = data;
        }
    }
    npu_run_options options = {.bytes = sizeof options, .threads = thread_count(), .check = wants_check()};
    if (npu_run(carried->program, &options, inputs, outputs, &message) != NPU_OK) {
        return raise_error(carried, message.text);
    }
    return 0;
}

static int call(npu_carried *carried, npu_arguments args, int32_t count) {
    pthread_mutex_lock(&carried->lock);
    int status = run_locked(carried, args, count);
    pthread_mutex_unlock(&carried->lock);
    return status;
}

#define PROGRAM(symbol, file)                                                                         \
    __asm__(".section .rodata\n.balign 64\n.local npu_bytes_" #symbol "\nnpu_bytes_" #symbol ":\n"     \
            ".incbin \"" file "\"\n.local npu_bytes_end_" #symbol "\nnpu_bytes_end_" #symbol ":\n.byte 0\n.text\n"); \
    extern const uint8_t npu_bytes_##symbol[], npu_bytes_end_##symbol[];                               \
    static npu_carried carried_##symbol = {#symbol, npu_bytes_##symbol, npu_bytes_end_##symbol,        \
                                           PTHREAD_MUTEX_INITIALIZER, NULL};                           \
    ENTRY(symbol)                                                                                      \
    __attribute__((destructor)) static void close_##symbol(void) { npu_close(carried_##symbol.program); }

#include NPU_CARRIER_PROGRAMS
