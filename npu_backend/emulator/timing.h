/* The state of one replay of a program's streams against the clock. */
#ifndef NPU_TIMING_H
#define NPU_TIMING_H

#include "cost.h"
#include "flow.h"
#include "internal.h"

#define NPU_NOBODY 0xFFFFFFFFu /* no core, stream or path */
#define NPU_SEVERAL 0xFFFFFFFEu

typedef enum { NPU_EVENT_DONE = 0, NPU_EVENT_FLOW = 1, NPU_EVENT_SIGNAL = 2 } npu_event_kind;

typedef struct {
    double time_ns;
    uint64_t order; /* of events at the same time: as they were added */
    uint32_t kind;  /* npu_event_kind */
    uint32_t index; /* stream, or semaphore of a signal that arrives */
} npu_event;

/* A binary heap, earliest first. */
typedef struct {
    npu_event *events;
    uint64_t count;
    uint64_t room;
    uint64_t added;
} npu_event_queue;

int npu_event_add(npu_event_queue *queue, double time_ns, npu_event_kind kind, uint32_t index); /* 0: out of memory */
npu_event npu_event_take(npu_event_queue *queue);

typedef struct {
    uint64_t next;       /* instruction at work, waiting or, at the end, the count */
    uint32_t next_waiter; /* stream that waits behind this one for the same semaphore */
    uint32_t path;       /* of the transfer at work */
    double flow_bytes;
    double start_ns;
} npu_stream_state;

typedef struct {
    uint32_t count;
    uint32_t first_waiter;
    uint32_t last_waiter;
    uint32_t waiting_core; /* core, NPU_NOBODY or NPU_SEVERAL */
    uint32_t signalling_core;
} npu_semaphore_state;

typedef struct {
    uint32_t working;        /* engines at work */
    uint32_t waiting_abroad; /* engines that wait for a signal of another core */
    double since_ns;
} npu_core_state;

typedef struct {
    const npu_program *program;
    npu_timing *timing;
    npu_message *message;
    npu_flows flows;
    npu_event_queue queue;
    npu_stream_state *streams;
    npu_semaphore_state *semaphores;
    npu_core_state *cores;
    uint32_t *paths; /* [source][destination], DRAM last */
    double now_ns;
    double last_ns; /* end of the last instruction so far */
} npu_replay;

/* Accounts (timing_account.c). */
void npu_account_state(npu_replay *replay, uint32_t core, int32_t working, int32_t waiting_abroad); /* changes */
void npu_account_span(npu_replay *replay, uint32_t stream);             /* its instruction ends now */
void npu_account_compute(npu_replay *replay, uint32_t stream, const npu_cost *cost);
void npu_account_transfer(npu_replay *replay, uint32_t stream, const npu_record_path *path, double *flow_bytes);
void npu_account_end(npu_replay *replay);

#endif
