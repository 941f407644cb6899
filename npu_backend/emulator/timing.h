/* The state of one replay of a program's streams against the clock. */
#ifndef NPU_TIMING_H
#define NPU_TIMING_H

#include "cost.h"
#include "flow.h"
#include "routes.h"

#define NPU_SEVERAL 0xFFFFFFFEu

typedef enum { NPU_EVENT_DONE = 0, NPU_EVENT_FLOW = 1, NPU_EVENT_SIGNAL = 2 } npu_event_kind;

typedef struct {
    double time_ns;
    uint64_t order; /* of events at the same time: as they were added */
    uint32_t kind;  /* npu_event_kind */
    uint32_t index; /* stream, or semaphore of a signal that arrives */
} npu_event;

typedef struct {
    npu_event *events;
    uint64_t count;
    uint64_t room;
    uint64_t head; /* of a lane: the first event, in a ring */
} npu_event_list;

/* Earliest first: a binary heap, and lanes for events that all come the same time after they were added, so that each
 * lane is in order as it is. */
#define NPU_LANES 2
typedef struct {
    npu_event_list heap;
    npu_event_list lanes[NPU_LANES];
    uint64_t added;
} npu_event_queue;

/* Both: 0 when out of memory. */
int npu_event_add(npu_event_queue *queue, double time_ns, npu_event_kind kind, uint32_t index);
int npu_event_add_in_lane(npu_event_queue *queue, uint32_t lane, double time_ns, npu_event_kind kind, uint32_t index);
const npu_event *npu_event_first(const npu_event_queue *queue); /* NULL when there is none */
npu_event npu_event_take(npu_event_queue *queue);               /* the first, which must exist */
void npu_event_free(npu_event_queue *queue);

typedef struct {
    uint64_t next;       /* instruction at work, waiting or, at the end, the count */
    uint32_t next_waiter; /* stream that waits behind this one for the same semaphore */
    uint32_t route;      /* of the transfer at work */
    uint32_t group;      /* its multicast group, NPU_NOBODY if it is none */
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
    uint32_t waiting_abroad; /* engines that wait for another core */
    double since_ns;
} npu_core_state;

typedef struct {
    const npu_program *program;
    npu_timing *timing;
    npu_message *message;
    npu_routes routes;
    npu_flows flows;
    npu_event_queue queue;
    npu_stream_state *streams;
    npu_semaphore_state *semaphores;
    npu_core_state *cores;
    uint32_t *arrived;   /* members of each multicast group that have come to it */
    double *route_bytes; /* moved over each route so far */
    double now_ns;
    double last_ns; /* end of the last instruction so far */
} npu_replay;

/* Accounts (timing_account.c). */
void npu_account_state(npu_replay *replay, uint32_t core, int32_t working, int32_t waiting_abroad); /* changes */
void npu_account_span(npu_replay *replay, uint32_t stream);             /* its instruction ends now */
void npu_account_compute(npu_replay *replay, uint32_t stream, const npu_cost *cost);
/* A transfer over `hops`; the bytes that flow. */
double npu_account_transfer(npu_replay *replay, uint32_t core, const npu_instruction *instruction, double hops);
/* A member of a multicast whose bytes another one has accounted for: only what it writes. */
void npu_account_copy(npu_replay *replay, uint32_t core, const npu_instruction *instruction);
void npu_account_end(npu_replay *replay);

/* Multicasts (timing_multicast.c): a stream has come to an instruction of a group; the group's flow has ended. */
npu_status npu_join_group(npu_replay *replay, uint32_t stream, uint32_t group);
npu_status npu_finish_group(npu_replay *replay, uint32_t group);

/* What timing.c does for them. */
npu_status npu_add_event(npu_replay *replay, double delay_ns, npu_event_kind kind, uint32_t index);
npu_status npu_finish_instruction(npu_replay *replay, uint32_t stream);
double npu_setup_ns(const npu_record_core *core);

#endif
