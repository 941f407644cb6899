/* How TVM's virtual machine calls a function: the packed convention of tvm-ffi. */
#include <tvm/ffi/c_api.h>

#define BOOL_TYPE {kDLBool, 8}

typedef const TVMFFIAny *npu_arguments;

#ifdef NPU_CARRIER_ABI
/* Weak, so that the library also loads where only its emulator is wanted and TVM is absent. */
extern __attribute__((weak)) void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message);

static void set_error(const char *message) {
    if (TVMFFIErrorSetRaisedFromCStr) TVMFFIErrorSetRaisedFromCStr("RuntimeError", message);
}

static const DLTensor *tensor_of(npu_arguments args, int32_t index) {
    const TVMFFIAny *value = &args[index];
    if (value->type_index == kTVMFFITensor) return (const DLTensor *)((const char *)value->v_obj + sizeof(TVMFFIObject));
    return value->type_index == kTVMFFIDLTensorPtr ? (const DLTensor *)value->v_ptr : NULL;
}

#endif

/* A kernel, compiled by TVM as a function of addresses. */
#define NATIVE(symbol) int __tvm_ffi_##symbol##_tir(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result);
#define CALL_NATIVE(symbol, arguments, argument_count)       \
    TVMFFIAny args[NPU_MAX_ARGUMENTS] = {{0}}, result = {0}; \
    for (int32_t i = 0; i < argument_count; i++) {           \
        args[i].type_index = kTVMFFIOpaquePtr;               \
        args[i].v_ptr = arguments[i];                        \
    }                                                        \
    return __tvm_ffi_##symbol##_tir((void *)0, args, argument_count, &result);

#ifdef NPU_CARRIER_ABI
#define ENTRY(symbol)                                                                                    \
    NPU_API int __tvm_ffi_##symbol(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result); \
    int __tvm_ffi_##symbol(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result) {        \
        (void)self;                                                                                      \
        result->type_index = kTVMFFINone;                                                                \
        return call(&carried_##symbol, args, count);                                                     \
    }
#endif
