/* Transfers as flows: each crosses the resources of its path, and concurrent flows share every resource max-min fairly.
 * Rates change only when a flow starts or ends.
 *
 * Max-min fair: no flow can be given more without taking from one that has no more than it. Found by progressive
 * filling: of all resources take the one whose capacity left, divided by its flows without a rate, is least; its flows
 * get that share; take it off everywhere; repeat.
 */
#ifndef NPU_FLOW_H
#define NPU_FLOW_H

#include "routes.h"

typedef struct {
    uint32_t tag;
    uint32_t step_count;
    const uint32_t *steps; /* resources that can limit the flow */
    double rate;           /* bytes a nanosecond since `since_ns` */
    double new_rate;       /* being solved; negative while unknown */
    double remaining_bytes;
    double since_ns;
    double finish_ns;
} npu_flow;

typedef struct {
    const npu_program *program;
    const npu_routes *routes;
    double *left; /* one a resource */
    uint32_t *users;
    uint32_t *used; /* resources that the active flows cross */
    npu_flow *flows;
    uint32_t count;
    uint32_t limit;
    int changed;
    double next_ns;
} npu_flows;

/* At most `limit` flows at a time. Whatever it returns, npu_flows_close may follow. */
npu_status npu_flows_open(npu_flows *flows, const npu_routes *routes, uint32_t limit, npu_message *message);
void npu_flows_close(npu_flows *flows);

/* A flow of bytes > 0 from now on. */
void npu_flows_start(npu_flows *flows, uint32_t route, double bytes, uint32_t tag, double now_ns);

/* When the next flow ends, INFINITY if there is none; solves the rates when the flows have changed. */
double npu_flows_next(npu_flows *flows, double now_ns);

/* Takes out one flow that has ended by now and stores its tag; 0 when there is none. */
int npu_flows_take(npu_flows *flows, double now_ns, uint32_t *tag);

#endif
