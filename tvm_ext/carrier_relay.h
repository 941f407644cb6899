/* How the executors of Relay's TVM call a function: the packed convention of its C runtime. */
#include <tvm/runtime/c_runtime_api.h>

/* This generation's DLPack has no truth values; TVM's own are unsigned integers of one bit. */
#define BOOL_TYPE {kDLUInt, 1}

typedef struct {
    const TVMValue *values;
    const int *types;
} npu_arguments;

#ifdef NPU_CARRIER_ABI
/* Weak, so that the library also loads where only its emulator is wanted and TVM is absent. */
extern __attribute__((weak)) void TVMAPISetLastError(const char *message);

static void set_error(const char *message) {
    if (TVMAPISetLastError) TVMAPISetLastError(message);
}

static const DLTensor *tensor_of(npu_arguments args, int32_t index) {
    int type = args.types[index];
    if (type != kTVMDLTensorHandle && type != kTVMNDArrayHandle) return NULL;
    return (const DLTensor *)args.values[index].v_handle;
}

#endif

/* A kernel, compiled by TVM as a function of addresses. */
#define NATIVE(symbol) \
    int32_t symbol##_tir(TVMValue *args, int *types, int count, TVMValue *result, int *result_type, void *self);
#define CALL_NATIVE(symbol, arguments, argument_count) \
    TVMValue args[NPU_MAX_ARGUMENTS], result;          \
    int types[NPU_MAX_ARGUMENTS], result_type;         \
    for (int32_t i = 0; i < argument_count; i++) {     \
        args[i].v_handle = arguments[i];               \
        types[i] = kTVMOpaqueHandle;                   \
    }                                                  \
    return symbol##_tir(args, types, argument_count, &result, &result_type, (void *)0);

#ifdef NPU_CARRIER_ABI
#define ENTRY(symbol)                                                                                               \
    NPU_API int32_t symbol(TVMValue *args, int *types, int count, TVMValue *result, int *result_type, void *self); \
    int32_t symbol(TVMValue *args, int *types, int count, TVMValue *result, int *result_type, void *self) {        \
        (void)result, (void)result_type, (void)self;                                                               \
        return call(&carried_##symbol, (npu_arguments){args, types}, count);                                       \
    }
#endif
