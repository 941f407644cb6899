#include "flow.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Flows that end within this of each other end together; far below a cycle, far above rounding. */
static const double TOGETHER_NS = 1e-6;

npu_status npu_flows_open(npu_flows *flows, const npu_routes *routes, uint32_t limit, npu_message *message) {
    size_t resources = (size_t)routes->program->resource_count + 1;
    memset(flows, 0, sizeof(*flows));
    flows->program = routes->program;
    flows->routes = routes;
    flows->limit = limit;
    flows->left = malloc(resources * sizeof(double));
    flows->users = calloc(resources, sizeof(uint32_t));
    flows->used = malloc(resources * sizeof(uint32_t));
    flows->flows = malloc(((size_t)limit + 1) * sizeof(npu_flow));
    flows->next_ns = INFINITY;
    if (flows->left == NULL || flows->users == NULL || flows->used == NULL || flows->flows == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for %u concurrent transfers", limit);
    }
    return NPU_OK;
}

void npu_flows_close(npu_flows *flows) {
    free(flows->left);
    free(flows->users);
    free(flows->used);
    free(flows->flows);
    memset(flows, 0, sizeof(*flows));
}

void npu_flows_start(npu_flows *flows, uint32_t route, double bytes, uint32_t tag, double now_ns) {
    npu_flow *flow = &flows->flows[flows->count++];
    flow->tag = tag;
    const uint64_t *first_step = flows->routes->first_step + route;
    flow->steps = flows->routes->steps + first_step[0];
    flow->step_count = (uint32_t)(first_step[1] - first_step[0]);
    flow->rate = 0;
    flow->remaining_bytes = bytes;
    flow->since_ns = now_ns;
    flow->finish_ns = INFINITY;
    flows->changed = 1;
}

/* The resources in use, full, with their flows counted; how many there are. */
static uint32_t begin_filling(npu_flows *flows) {
    uint32_t used = 0;
    for (uint32_t index = 0; index < flows->count; ++index) {
        npu_flow *flow = &flows->flows[index];
        flow->new_rate = -1;
        for (uint32_t step = 0; step < flow->step_count; ++step) {
            uint32_t resource = flow->steps[step];
            if (flows->users[resource]++ == 0) {
                flows->used[used++] = resource;
                flows->left[resource] = flows->program->resources[resource].bytes_per_ns;
            }
        }
    }
    return used;
}

/* The resource with the least share for each of its flows without a rate; drops those that have no more such flows. */
static double find_bottleneck(npu_flows *flows, uint32_t *used, uint32_t *bottleneck) {
    double least = INFINITY;
    uint32_t kept = 0;
    for (uint32_t index = 0; index < *used; ++index) {
        uint32_t resource = flows->used[index];
        if (flows->users[resource] == 0) {
            continue;
        }
        flows->used[kept++] = resource;
        double share = flows->left[resource] / flows->users[resource];
        if (share < least) {
            least = share;
            *bottleneck = resource;
        }
    }
    *used = kept;
    return least;
}

static int crosses(const npu_flow *flow, uint32_t resource) {
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        if (flow->steps[step] == resource) {
            return 1;
        }
    }
    return 0;
}

static void fix_rate(npu_flows *flows, npu_flow *flow, double rate) {
    flow->new_rate = rate;
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        uint32_t resource = flow->steps[step];
        flows->left[resource] -= rate;
        --flows->users[resource];
    }
}

static void solve(npu_flows *flows) {
    uint32_t used = begin_filling(flows);
    uint32_t bottleneck = 0;
    double level = 0;
    for (;;) {
        double share = find_bottleneck(flows, &used, &bottleneck);
        if (used == 0) {
            return;
        }
        /* Shares never fall from one bottleneck to the next, but for rounding. */
        level = share > level ? share : level;
        for (uint32_t index = 0; index < flows->count; ++index) {
            npu_flow *flow = &flows->flows[index];
            if (flow->new_rate < 0 && crosses(flow, bottleneck)) {
                fix_rate(flows, flow, level);
            }
        }
    }
}

static void apply_rates(npu_flows *flows, double now_ns) {
    flows->next_ns = INFINITY;
    for (uint32_t index = 0; index < flows->count; ++index) {
        npu_flow *flow = &flows->flows[index];
        if (flow->new_rate != flow->rate) {
            flow->remaining_bytes -= flow->rate * (now_ns - flow->since_ns);
            flow->remaining_bytes = flow->remaining_bytes > 0 ? flow->remaining_bytes : 0;
            flow->rate = flow->new_rate;
            flow->since_ns = now_ns;
            flow->finish_ns = now_ns + flow->remaining_bytes / flow->rate;
        }
        flows->next_ns = flow->finish_ns < flows->next_ns ? flow->finish_ns : flows->next_ns;
    }
}

double npu_flows_next(npu_flows *flows, double now_ns) {
    if (flows->changed) {
        solve(flows);
        apply_rates(flows, now_ns);
        flows->changed = 0;
    }
    return flows->next_ns;
}

int npu_flows_take(npu_flows *flows, double now_ns, uint32_t *tag) {
    for (uint32_t index = 0; index < flows->count; ++index) {
        if (flows->flows[index].finish_ns <= now_ns + TOGETHER_NS) {
            *tag = flows->flows[index].tag;
            --flows->count;
            memmove(&flows->flows[index], &flows->flows[index + 1], (flows->count - index) * sizeof(npu_flow));
            flows->changed = 1;
            return 1;
        }
    }
    return 0;
}
