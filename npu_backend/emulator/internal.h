/* What the emulator's files share. Nothing here is visible outside the library.
 *
 * program.c, records.c, validate*.c, multicast.c  bytes to a validated npu_program
 * region*.c, overlap.c  bytes an instruction touches
 * interpret.c, traps.c, check*.c    meaning                             ports.c     tensors in and out
 * execute.c, kernel.c, conv*.c, depthwise*.c, gather.c, matmul*.c, vector_*.c  kernels  diagnose.c  messages
 * cost*.c, flow*.c, routes.c, timing*.c  time                               api.c       the public functions
 */
#ifndef NPU_INTERNAL_H
#define NPU_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "npu_emulator.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "programs are little-endian and are read in place"
#endif

/* Scratchpads are followed by this many readable bytes, so that a vector load of the last element stays in bounds. */
#define NPU_SPM_SLACK_BYTES 64u
#define NPU_MAX_REGIONS 8
#define NPU_KERNEL_OPERANDS 8u
#define NPU_NOBODY 0xFFFFFFFFu /* no core, stream, path or group */
#define NPU_RESIZE_TAP_BYTES 8u /* of the tables of a RESIZE */

/* A growable 64-byte aligned workspace, one per worker thread. */
typedef struct {
    uint8_t *data;
    size_t bytes;
} npu_scratch;

/* At least `bytes` bytes, content not kept; NULL when out of memory. */
uint8_t *npu_scratch_reserve(npu_scratch *scratch, size_t bytes);
void npu_scratch_release(npu_scratch *scratch);

/* One engine's instructions on one core. */
typedef struct {
    uint32_t core;
    uint32_t engine;
    const uint8_t *code;
    uint64_t bytes;
    const npu_instruction **instructions;
    uint64_t count;
    uint64_t first; /* index of the first instruction in file order over all streams, as in npu_timing.spans */
} npu_stream;

/* An instruction of a multicast group. */
typedef struct {
    uint32_t stream;
    uint32_t path;
    uint64_t position; /* in the stream */
} npu_member;

/* Everything below is immutable once opened, except the memories at the end, which belong to the one run at a time. */
struct npu_program {
    uint8_t *file; /* the whole file, 64-byte aligned; all pointers below but the allocated arrays point into it */
    uint64_t file_bytes;
    const npu_record_machine *machine;
    const npu_record_core *cores; /* machine->core_count */
    const npu_record_resource *resources;
    uint32_t resource_count;
    const npu_record_path *paths; /* steps inside path_steps, and those inside resources */
    uint32_t path_count;
    const npu_record_path_step *path_steps;
    uint32_t path_step_count;
    const npu_record_port *ports;
    uint32_t port_count;
    const npu_record_origin *origins;
    uint32_t origin_count;
    const npu_record_kernel *kernels;
    uint32_t kernel_count;
    npu_kernel_function *functions; /* kernel_count, NULL where none is bound yet */
    const char *names; /* zero-terminated strings; ends in a zero byte */
    uint64_t names_bytes;
    const uint8_t *constants; /* the first bytes of the DRAM image; no instruction writes them */
    uint64_t constants_bytes;
    const uint8_t *code;
    uint64_t code_bytes;
    npu_stream *streams; /* file order */
    uint32_t stream_count;
    uint64_t instruction_count;
    uint32_t *path_table;   /* see npu_path */
    uint8_t *path_is_used;  /* one a path: by an instruction */
    npu_member *members;    /* of each multicast group, in file order */
    uint64_t *first_member; /* machine->multicast_group_count + 1 */
    uint64_t *spm_peak_bytes; /* one a core: one past the highest address touched */

    uint8_t **spm; /* one a core: spm_peak_bytes[core] + NPU_SPM_SLACK_BYTES bytes, allocated at the first run */
    uint8_t *dram; /* the DRAM image after its constants: byte 0 is address constants_bytes; allocated at the first run */
};

typedef enum { NPU_SPACE_SPM = 0, NPU_SPACE_DRAM = 1, NPU_SPACE_OTHER_SPM = 2 } npu_space;

/* Bytes an instruction reads or writes: a run at base + sum(index[i] * strides[i]) for every index below counts. */
typedef struct {
    uint32_t space; /* npu_space */
    uint32_t core;  /* whose scratchpad; the issuing core for DRAM */
    uint64_t base;
    uint64_t counts[4]; /* outermost first; unused axes have count 1 */
    uint64_t strides[4];
    uint64_t run_bytes;
    int is_write;
} npu_region;

/* Every byte an instruction reads and writes; the number of regions. Works on any well-formed instruction, valid or not;
 * counts of zero never appear (an empty region is left out). */
int npu_regions(const npu_program *program, uint32_t core, const npu_instruction *instruction,
                npu_region regions[NPU_MAX_REGIONS]);
uint64_t npu_region_bytes(const npu_region *region); /* counts multiplied by run_bytes; overlaps counted twice */
uint64_t npu_region_end(const npu_region *region);   /* one past the highest address; UINT64_MAX when it overflows */
/* Calls visit for every contiguous run of a region until one does not return NPU_OK. */
typedef npu_status (*npu_run_visitor)(void *context, uint64_t start, uint64_t bytes);
npu_status npu_for_each_run(const npu_region *region, npu_run_visitor visit, void *context);
int npu_region_writes_once(const npu_region *region);
int npu_regions_overlap(const npu_region *read, const npu_region *written); /* written: one that writes once */
int npu_regions_are_equal(const npu_region *a, const npu_region *b);

uint32_t npu_type_bytes(uint32_t data_type); /* 0 for an unknown DataType */
int npu_is_integer(uint32_t data_type);      /* int32, int64 or bool */
uint32_t npu_crc32(const uint8_t *data, uint64_t bytes);

/* Opening a file, step by step; each says why when it is not NPU_OK. */
npu_status npu_validate_records(const npu_program *program, npu_message *message);
npu_status npu_build_paths(npu_program *program, npu_message *message);
npu_status npu_build_streams(npu_program *program, const npu_record_stream *records, uint32_t count,
                             npu_message *message);
npu_status npu_build_groups(npu_program *program, npu_message *message); /* refuses groups that are no one transfer */
/* The path between two nodes, cores or NPU_DRAM_NODE; NPU_NOBODY when there is none. */
uint32_t npu_path(const npu_program *program, uint32_t source, uint32_t destination);
/* Fields, bytes within the memories, no byte written twice or over an input. Raises the cores' spm_peak_bytes. */
npu_status npu_validate_instruction(npu_program *program, const npu_stream *stream, const npu_instruction *instruction,
                                    npu_message *message);

/* Ports. */
uint64_t npu_port_bytes(const npu_record_port *port); /* 0 when a dimension is zero, UINT64_MAX on overflow */
void npu_port_read(const npu_program *program, const npu_record_port *port, void *host);        /* DRAM to host */
void npu_port_write(const npu_program *program, const npu_record_port *port, const void *host); /* host to DRAM */

/* Messages. */
void npu_say(npu_message *message, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
npu_status npu_fail(npu_message *message, npu_status status, const char *format, ...) /* says it, returns status */
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;
const char *npu_engine_name(uint32_t engine);
const char *npu_opcode_name(uint32_t opcode);
const char *npu_origin_name(const npu_program *program, uint32_t origin);
/* "core 2 vector 0x1c TABLE (node conv5/relu)" into a buffer that is always terminated. */
void npu_describe(const npu_program *program, const npu_stream *stream, const npu_instruction *instruction, char *text,
                  size_t bytes);
/* Who waits for whom, given each stream's next instruction (count when finished). Returns NPU_DEADLOCK. */
npu_status npu_say_deadlock(const npu_program *program, const uint64_t *next, npu_message *message);
/* Names the first semaphore whose count is not zero. Returns NPU_IMBALANCE, or NPU_OK when all are zero. */
npu_status npu_say_imbalance(const npu_program *program, const uint32_t *semaphores, npu_message *message);

/* Kernels. Called only with instructions whose regions were validated; NPU_OK, NPU_OUT_OF_MEMORY, or NPU_TRAP for an
 * index out of range.
 * level: 1 portable C, 2 AVX2, 3 AVX-512 VNNI; already resolved, never 0. */
uint32_t npu_kernel_level(uint32_t requested);
npu_status npu_execute_conv(const npu_conv *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_depthwise(const npu_depthwise *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_matmul(const npu_matmul *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_pool(const npu_pool *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_mean(const npu_mean *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_table(const npu_table *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_copy(const npu_copy *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_fill(const npu_fill *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_binary(const npu_binary *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_convert(const npu_convert *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_resize(const npu_resize *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_select(const npu_select *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_unary(const npu_unary *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_softmax(const npu_softmax *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_reduce(const npu_reduce *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_normalize(const npu_normalize *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_argreduce(const npu_argreduce *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_lrn(const npu_lrn *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
npu_status npu_execute_gather(const npu_gather *op, uint8_t *spm, npu_scratch *scratch, uint32_t level);
/* Any instruction of the matrix or vector engine (execute.c). */
npu_status npu_execute_instruction(const npu_instruction *instruction, uint8_t *spm, npu_scratch *scratch,
                                   uint32_t level);

/* Functional execution (interpret.c) and its checked form (check.c), on memories that hold the inputs already. */
npu_status npu_interpret(npu_program *program, uint32_t threads, uint32_t level, npu_message *message);
npu_status npu_interpret_checked(npu_program *program, uint32_t level, npu_message *message);
/* Executes one instruction that is neither WAIT nor SIGNAL. */
npu_status npu_execute_step(npu_program *program, const npu_stream *stream, const npu_instruction *instruction,
                            npu_scratch *scratch, uint32_t level, npu_message *message);
/* What only data can tell, before (a RESIZE's tables) and after (why it did not end well); says why (traps.c). */
npu_status npu_check_data(const npu_program *program, const npu_stream *stream, const npu_instruction *instruction,
                          npu_message *message);
npu_status npu_say_trap(const npu_program *program, const npu_stream *stream, const npu_instruction *instruction,
                        npu_status status, npu_message *message);
/* A native function on its operands (kernel.c). */
npu_status npu_execute_kernel(const npu_program *program, const npu_stream *stream, const npu_instruction *instruction,
                              npu_message *message);
/* Any transfer (transfer.c). */
npu_status npu_transfer(npu_program *program, uint32_t core, const npu_instruction *instruction);

#endif
