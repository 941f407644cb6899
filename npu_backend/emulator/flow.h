/* Transfers as flows: each crosses the resources of its route, and those under way at once share every resource max-min
 * fairly. Rates change only when a flow starts or ends.
 *
 * Max-min fair: no flow can be given more without taking from one that has no more than it. Found by progressive
 * filling: of all resources take the one whose capacity left, divided by its flows without a rate, is least; its flows
 * get that share; take it off everywhere; repeat.
 *
 * The first of these, the tightest, is as a rule the same from one change to the next and has most of the flows (DRAM,
 * or a port of it). They all have one rate, so they are not touched when it changes: how many bytes each of them has
 * been given since some time is one number for all, and a flow ends when that number reaches its own mark. Of the
 * others, those are solved again whose bottleneck a flow crosses that came, went or is solved again.
 */
#ifndef NPU_FLOW_H
#define NPU_FLOW_H

#include "routes.h"

typedef struct {
    const uint32_t *steps; /* resources that can limit the flow */
    uint32_t step_count;
    uint32_t place; /* in `bound` or `others` */
    uint64_t order; /* of starts */
    double mark;    /* of a bound flow: `given` when it ends */
    /* Of another: */
    uint64_t solved;     /* the last time its rate was */
    uint32_t bottleneck; /* NPU_NOBODY while it has no rate */
    double rate;         /* bytes a nanosecond since `since_ns` */
    double new_rate;     /* being solved; negative while unknown */
    double remaining_bytes;
    double since_ns;
} npu_flow;

typedef struct { /* a resource: a line of the cache, since solving is reading and writing these */
    double capacity;
    double load;       /* the rates of the others that cross it, added up */
    double left;       /* capacity that no rate takes */
    uint64_t touched;  /* the last time that the rate of a flow which crosses it may have changed */
    uint64_t crossing; /* bit i % 64: the i-th of those solved crosses it */
    uint32_t users;    /* flows that cross it */
    uint32_t others;   /* how many of them are not bound */
    uint32_t limited;  /* how many of those have it as their bottleneck */
    uint32_t members;  /* how many are being solved */
    uint32_t waiting;  /* and have no rate yet */
    uint32_t row;      /* in `crossed` */
} npu_share;

_Static_assert(sizeof(npu_share) == 64, "a line");

typedef struct {
    uint64_t filling; /* the last one in which the resource was a bottleneck, of flows at `level` */
    double level;
} npu_bottleneck;

typedef struct {
    const npu_routes *routes;
    npu_flow *flows; /* by tag */
    uint64_t started;
    /* Resources. */
    npu_share *shares;
    npu_bottleneck *bottlenecks;
    double *part;    /* part[n] = 1 / n */
    uint32_t *used;  /* those with users */
    uint32_t *place; /* in `used` */
    uint32_t used_count;
    /* The tightest resource, and its flows: a heap, least mark first. */
    uint32_t tightest;
    double level;    /* bytes a nanosecond that each of them has */
    double given;    /* bytes that each of them had until `since_ns` */
    double since_ns;
    double spare;    /* no other resource has a smaller share than this */
    uint32_t *bound;
    uint32_t bound_count;
    int bound_changed; /* since the last solution */
    /* All other flows; those being solved, and the resources they cross. */
    uint32_t *others;
    double *finish_ns; /* when each of them ends */
    uint32_t other_count;
    uint32_t *solved;
    uint32_t solved_count;
    uint64_t time;     /* of the solution to come */
    uint64_t fillings;
    int search;        /* a bottleneck was touched whose flows are not all being solved */
    uint32_t *crossed; /* those that flows without a rate cross, and what is left to each of them */
    double *share;
    uint32_t crossed_count;
    /* Flows that have ended and were not taken out yet, last first. */
    uint32_t *ended;
    uint32_t ended_count;
    int changed;
    double next_ns;
} npu_flows;

/* At most `limit` flows at a time, with tags below it. Whatever it returns, npu_flows_close may follow. */
npu_status npu_flows_open(npu_flows *flows, const npu_routes *routes, uint32_t limit, npu_message *message);
void npu_flows_close(npu_flows *flows);

/* A flow of bytes > 0 from now on; no other has its tag. */
void npu_flows_start(npu_flows *flows, uint32_t route, double bytes, uint32_t tag, double now_ns);

/* When the next flow ends, INFINITY if there is none; solves the rates when the flows have changed. */
double npu_flows_next(npu_flows *flows, double now_ns);

/* Takes out one flow that has ended by now and stores its tag, in the order of their starts; 0 when there is none. */
int npu_flows_take(npu_flows *flows, double now_ns, uint32_t *tag);

/* Flows that are not bound (flow_solve.c). Who comes, goes or is solved again touches what it crosses. */
void npu_flows_touch(npu_flows *flows, const npu_flow *flow);
void npu_flows_solve_again(npu_flows *flows, uint32_t tag);
void npu_flows_solve_others(npu_flows *flows); /* the new rates of all that are to be solved */

#endif
