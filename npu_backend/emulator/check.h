/* The checked run: which instruction happens before which, and a shadow of every memory. */
#ifndef NPU_CHECK_H
#define NPU_CHECK_H

#include "internal.h"

/* Vector clocks. A clock has one entry a stream: how many of its first instructions have happened before. It only
 * changes at a WAIT, so each stream has a table of clocks: row 0 holds zeros, row w the clock after its w-th WAIT. */
typedef struct {
    uint32_t streams;
    uint32_t **rows;  /* [stream][wait * streams] */
    uint32_t *order;  /* an order in which the program can run: stream, one past the last instruction, ... */
    uint64_t turns;   /* pairs in order */
} npu_order;

/* Finds the clocks; NPU_DEADLOCK or NPU_IMBALANCE with a message when the semaphores do not work out. */
npu_status npu_order_build(const npu_program *program, npu_order *order, npu_message *message);
void npu_order_release(npu_order *order);

/* Who touched a granule of bytes last. Identifiers: 0 nobody, 1 the host, else an instruction's index plus 2; reads may
 * also be a set of them, marked by the top bit. */
typedef struct {
    uint32_t write;
    uint32_t read; /* since that write */
} npu_cell;

typedef struct {
    uint64_t first_cell;
    uint32_t shift; /* bytes a cell: 1 << shift */
} npu_shadow_page;

typedef struct {
    npu_shadow_page *pages;
    uint64_t page_count;
    uint64_t origin; /* address of the first page */
} npu_shadow_space;

typedef struct {
    uint32_t *members; /* of all sets, one after the other: a count, then the identifiers */
    uint64_t used;
    uint64_t capacity;
} npu_read_sets;

#define NPU_CHECK_MEMO 256u
#define NPU_CHECK_MAX_INSTRUCTIONS (1u << 30) /* identifiers have 31 bits */

typedef struct { /* a cell seen before by the current instruction: what its reads become */
    npu_cell before;
    uint32_t read;
    uint32_t instruction;
} npu_memo;

typedef struct {
    const npu_program *program;
    uint32_t *stream_of; /* by instruction */
    npu_shadow_space *spaces; /* one a core, then DRAM */
    npu_cell *cells;
    uint64_t cell_count;
    npu_read_sets sets;
    npu_memo memo[NPU_CHECK_MEMO];
} npu_shadow;

npu_status npu_shadow_build(const npu_program *program, npu_shadow *shadow, npu_message *message);
void npu_shadow_release(npu_shadow *shadow);
/* The host writes an input, or reads an output. */
void npu_shadow_host_writes(npu_shadow *shadow, const npu_record_port *port);
npu_status npu_shadow_host_reads(npu_shadow *shadow, const npu_record_port *port, npu_message *message);
/* An instruction reads and writes its regions, given its stream's clock. */
npu_status npu_shadow_touch(npu_shadow *shadow, uint32_t stream, uint64_t index, const uint32_t *clock,
                            npu_message *message);

#endif
