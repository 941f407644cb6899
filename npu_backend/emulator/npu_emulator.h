/* The emulator's public interface: open a program, run its meaning, run its time.
 *
 * Meaning and time are separate. npu_run executes the streams on tensor data in any order that the semaphores allow and
 * never reads a clock; npu_time replays the streams against the machine's model and never touches tensor data.
 * No global state: any number of programs may be open, and different threads may use different handles.
 */
#ifndef NPU_EMULATOR_H
#define NPU_EMULATOR_H

#include <stdint.h>

#include "npu_format.h"

#define NPU_ABI_VERSION 3u
#define NPU_MESSAGE_BYTES 1024

#if defined(__GNUC__)
#define NPU_API __attribute__((visibility("default")))
#else
#define NPU_API
#endif

typedef enum {
    NPU_OK = 0,
    NPU_BAD_PROGRAM = 1, /* the bytes are no valid program */
    NPU_BAD_ARGUMENT = 2,
    NPU_OUT_OF_MEMORY = 3,
    NPU_TRAP = 4,     /* an instruction was refused, or --check found an error */
    NPU_DEADLOCK = 5, /* every stream waits: the message says who waits for whom */
    NPU_IMBALANCE = 6 /* a semaphore is not zero at the end */
} npu_status;

typedef struct npu_program npu_program;

typedef struct {
    char text[NPU_MESSAGE_BYTES];
} npu_message;

typedef struct {
    uint32_t bytes;   /* sizeof this struct */
    uint32_t threads; /* host threads, at least 1 */
    uint32_t check;   /* 1: trap reads of unwritten bytes, races and semaphore imbalance */
    uint32_t kernels; /* 0: the fastest this processor has; 1: portable C; 2: AVX2; 3: AVX-512 VNNI */
} npu_run_options;

typedef struct { /* one instruction's place in time, for traces; streams in file order, instructions in stream order */
    double start_ns;
    double stop_ns;
} npu_span;

typedef struct {
    uint64_t dram_bytes;    /* payload bytes moved between the core and DRAM, a multicast's once, on its first core */
    uint64_t dram_read_bytes;
    uint64_t network_bytes; /* payload bytes sent to other cores, those of a multicast once */
    uint64_t macs;          /* multiply-accumulates of the arithmetic, padding lanes not counted */
    double busy_ns;         /* at least one engine working */
    double matrix_busy_ns;
    double vector_busy_ns;
    double sync_ns;         /* no engine working and at least one waiting for another core */
    double idle_ns;         /* total - busy - sync */
    double energy_pj;
} npu_core_timing;

typedef struct {
    uint32_t bytes; /* sizeof this struct */
    uint32_t core_count;
    double total_ns;
    double energy_pj; /* of all cores and of static power */
    uint64_t events;
    npu_core_timing *cores;     /* array of core_count, owned by the caller */
    npu_span *spans;            /* array of npu_instruction_count, or NULL */
    double *resource_bytes;     /* array of npu_resource_count, what each moved, whole bursts; or NULL */
} npu_timing;

NPU_API uint32_t npu_abi_version(void);

/* Validates and copies the file; *program is NULL unless NPU_OK. */
NPU_API npu_status npu_open(const uint8_t *data, uint64_t bytes, npu_program **program, npu_message *message);
NPU_API void npu_close(npu_program *program);

NPU_API uint64_t npu_instruction_count(const npu_program *program);
NPU_API uint32_t npu_core_count(const npu_program *program);
NPU_API uint32_t npu_resource_count(const npu_program *program);
NPU_API uint64_t npu_spm_peak_bytes(const npu_program *program, uint32_t core); /* highest address touched */

typedef struct { /* a tensor of the program as the host sees it, dense in row-major order */
    const char *name; /* lives as long as the program */
    uint32_t is_output;
    uint32_t data_type; /* NPU_TYPE_... */
    uint32_t rank;
    uint32_t shape[NPU_MAX_RANK];
    uint64_t bytes;
} npu_port_info;

NPU_API uint32_t npu_port_count(const npu_program *program);
NPU_API npu_status npu_port(const npu_program *program, uint32_t index, npu_port_info *info);

/* inputs and outputs: dense host arrays, each in the order of the program's ports of that direction. The memories belong
 * to the program, so one run at a time on each handle; runs on different handles are independent. `check` uses one
 * thread whatever `threads` says. */
NPU_API npu_status npu_run(npu_program *program, const npu_run_options *options, const void *const *inputs,
                           void *const *outputs, npu_message *message);

/* The native functions that a program calls, by number below npu_kernel_count. The file only names them: whoever runs the
 * program binds them first; its time needs none. A function gets the addresses of its operands' first elements, the
 * output's last, and returns 0. Several threads may call it at once. It must touch no bytes but those that the KERNEL
 * instructions say, which only its maker can promise. */
typedef int32_t (*npu_kernel_function)(void *const *operands);
NPU_API uint32_t npu_kernel_count(const npu_program *program);
NPU_API const char *npu_kernel_symbol(const npu_program *program, uint32_t kernel); /* NULL: there is no such */
NPU_API npu_status npu_bind_kernel(npu_program *program, uint32_t kernel, npu_kernel_function function);

NPU_API npu_status npu_time(const npu_program *program, npu_timing *timing, npu_message *message);

/* The cost model, shared with the compiler. Cycles of one compute instruction on a core; 0 and a message through
 * the status when the bytes are no instruction of the matrix or vector engine. */
NPU_API npu_status npu_instruction_ns(const npu_record_core *core, const uint8_t *instruction, uint64_t bytes,
                                      double *duration_ns, npu_message *message);

/* Bytes that DRAM moves for `runs` contiguous runs of `run_bytes`: each rounded up to whole bursts. */
NPU_API uint64_t npu_burst_bytes(const npu_record_machine *machine, uint64_t runs, uint64_t run_bytes);

#endif
