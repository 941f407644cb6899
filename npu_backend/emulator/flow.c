#include "flow.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Flows that end within this of each other end together; far below a cycle, far above rounding. */
static const double TOGETHER_NS = 1e-6;

/* Shares that differ by less are equal. */
static const double EQUAL = 1 + 1e-12;

/* Beyond this `given` starts anew, so that it keeps the digits of a flow's last bytes. */
static const double MAX_GIVEN = 1e6;

static int allocate(npu_flows *flows, size_t resources, size_t limit) {
    flows->flows = malloc(limit * sizeof(npu_flow));
    flows->bound = malloc(limit * sizeof(uint32_t));
    flows->others = malloc(limit * sizeof(uint32_t));
    flows->ended = malloc(limit * sizeof(uint32_t));
    flows->part = malloc(limit * sizeof(double));
    flows->shares = aligned_alloc(sizeof(npu_share), resources * sizeof(npu_share));
    flows->bottlenecks = calloc(resources, sizeof(npu_bottleneck));
    flows->used = malloc(resources * sizeof(uint32_t));
    flows->place = malloc(resources * sizeof(uint32_t));
    flows->finish_ns = malloc(limit * sizeof(double));
    flows->solved = malloc(limit * sizeof(uint32_t));
    flows->crossed = malloc(resources * sizeof(uint32_t));
    flows->share = malloc(resources * sizeof(double));
    return flows->flows != NULL && flows->bound != NULL && flows->others != NULL && flows->ended != NULL &&
           flows->part != NULL && flows->shares != NULL && flows->bottlenecks != NULL && flows->used != NULL &&
           flows->place != NULL && flows->finish_ns != NULL && flows->solved != NULL && flows->crossed != NULL &&
           flows->share != NULL;
}

npu_status npu_flows_open(npu_flows *flows, const npu_routes *routes, uint32_t limit, npu_message *message) {
    const npu_program *program = routes->program;
    memset(flows, 0, sizeof(*flows));
    if (!allocate(flows, (size_t)program->resource_count + 1, (size_t)limit + 1)) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for %u concurrent transfers", limit);
    }
    flows->routes = routes;
    flows->time = 1;
    flows->tightest = NPU_NOBODY;
    flows->next_ns = INFINITY;
    for (uint32_t resource = 0; resource < program->resource_count; ++resource) {
        flows->shares[resource] = (npu_share){.capacity = program->resources[resource].bytes_per_ns};
    }
    for (uint32_t count = 0; count <= limit; ++count) {
        flows->part[count] = 1.0 / count;
    }
    return NPU_OK;
}

void npu_flows_close(npu_flows *flows) {
    free(flows->flows);
    free(flows->bound);
    free(flows->others);
    free(flows->ended);
    free(flows->part);
    free(flows->shares);
    free(flows->bottlenecks);
    free(flows->used);
    free(flows->place);
    free(flows->finish_ns);
    free(flows->solved);
    free(flows->crossed);
    free(flows->share);
    memset(flows, 0, sizeof(*flows));
}

static int is_before(const npu_flows *flows, uint32_t a, uint32_t b) {
    return flows->flows[a].mark < flows->flows[b].mark;
}

static void put_bound(npu_flows *flows, uint32_t place, uint32_t tag) {
    flows->bound[place] = tag;
    flows->flows[tag].place = place;
}

static void add_bound(npu_flows *flows, uint32_t tag) {
    uint32_t hole = flows->bound_count++;
    while (hole > 0 && is_before(flows, tag, flows->bound[(hole - 1) / 2])) {
        put_bound(flows, hole, flows->bound[(hole - 1) / 2]);
        hole = (hole - 1) / 2;
    }
    put_bound(flows, hole, tag);
}

static uint32_t take_bound(npu_flows *flows) {
    uint32_t first = flows->bound[0], last = flows->bound[--flows->bound_count], hole = 0;
    for (;;) {
        uint32_t child = 2 * hole + 1;
        if (child >= flows->bound_count) {
            break;
        }
        if (child + 1 < flows->bound_count && is_before(flows, flows->bound[child + 1], flows->bound[child])) {
            ++child;
        }
        if (!is_before(flows, flows->bound[child], last)) {
            break;
        }
        put_bound(flows, hole, flows->bound[child]);
        hole = child;
    }
    put_bound(flows, hole, last);
    return first;
}

static void add_other(npu_flows *flows, uint32_t tag, double bytes, double now_ns) {
    npu_flow *flow = &flows->flows[tag];
    flow->place = flows->other_count;
    flow->bottleneck = NPU_NOBODY;
    flow->rate = 0;
    flow->remaining_bytes = bytes;
    flow->since_ns = now_ns;
    flows->finish_ns[flows->other_count] = INFINITY;
    flows->others[flows->other_count++] = tag;
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        ++flows->shares[flow->steps[step]].others;
    }
    npu_flows_solve_again(flows, tag);
}

static void remove_other(npu_flows *flows, uint32_t tag) {
    const npu_flow *flow = &flows->flows[tag];
    uint32_t last = flows->others[--flows->other_count];
    flows->others[flow->place] = last;
    flows->finish_ns[flow->place] = flows->finish_ns[flows->other_count];
    flows->flows[last].place = flow->place;
    --flows->shares[flow->bottleneck].limited;
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        npu_share *share = &flows->shares[flow->steps[step]];
        share->load = --share->others > 0 ? share->load - flow->rate : 0; /* rounding does not pile up */
    }
}

static int crosses(const npu_flow *flow, uint32_t resource) {
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        if (flow->steps[step] == resource) {
            return 1;
        }
    }
    return 0;
}

/* Brings `given` up to now. */
static void give(npu_flows *flows, double now_ns) {
    flows->given += flows->level * (now_ns - flows->since_ns);
    flows->since_ns = now_ns;
    if (flows->given > MAX_GIVEN || flows->bound_count == 0) {
        for (uint32_t i = 0; i < flows->bound_count; ++i) {
            flows->flows[flows->bound[i]].mark -= flows->given;
        }
        flows->given = 0;
    }
}

static double share_of(const npu_flows *flows, uint32_t resource) {
    return flows->shares[resource].capacity * flows->part[flows->shares[resource].users];
}

static void add_users(npu_flows *flows, const npu_flow *flow) {
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        uint32_t resource = flow->steps[step];
        if (flows->shares[resource].users++ == 0) {
            flows->place[resource] = flows->used_count;
            flows->used[flows->used_count++] = resource;
        }
        double share = share_of(flows, resource);
        if (share < flows->spare && resource != flows->tightest) {
            flows->spare = share;
        }
    }
}

static void remove_users(npu_flows *flows, const npu_flow *flow) {
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        uint32_t resource = flow->steps[step];
        if (--flows->shares[resource].users == 0) {
            uint32_t last = flows->used[--flows->used_count];
            flows->used[flows->place[resource]] = last;
            flows->place[last] = flows->place[resource];
        }
    }
}

void npu_flows_start(npu_flows *flows, uint32_t route, double bytes, uint32_t tag, double now_ns) {
    npu_flow *flow = &flows->flows[tag];
    flow->steps = flows->routes->steps + flows->routes->first_step[route];
    flow->step_count = flows->routes->kept[route];
    flow->order = flows->started++;
    add_users(flows, flow);
    if (crosses(flow, flows->tightest)) {
        give(flows, now_ns);
        flow->mark = flows->given + bytes;
        add_bound(flows, tag);
        flows->bound_changed = 1;
        npu_flows_touch(flows, flow);
    } else {
        add_other(flows, tag, bytes, now_ns);
    }
    flows->changed = 1;
}

/* The used resource with the least share, the one before where there is no smaller; `spare` is that of the next one. */
static uint32_t find_tightest(npu_flows *flows) {
    uint32_t before = flows->tightest, tightest = NPU_NOBODY;
    double least = INFINITY;
    if (before != NPU_NOBODY && flows->shares[before].users > 0) {
        tightest = before;
        least = share_of(flows, before);
    }
    flows->spare = INFINITY;
    for (uint32_t index = 0; index < flows->used_count; ++index) {
        uint32_t resource = flows->used[index];
        double share = share_of(flows, resource);
        if (share * EQUAL < least) {
            flows->spare = least;
            least = share;
            tightest = resource;
        } else if (share < flows->spare && resource != tightest) {
            flows->spare = share;
        }
    }
    return tightest;
}

/* Divides all flows anew into those that cross the tightest resource and the others. */
static void bind_flows(npu_flows *flows, uint32_t tightest, double now_ns) {
    uint32_t *all = flows->ended, count = 0; /* nothing has ended while rates are solved */
    for (uint32_t index = 0; index < flows->bound_count; ++index) {
        npu_flow *flow = &flows->flows[all[count++] = flows->bound[index]];
        flow->remaining_bytes = flow->mark - flows->given;
    }
    for (uint32_t index = 0; index < flows->other_count; ++index) {
        npu_flow *flow = &flows->flows[all[count++] = flows->others[index]];
        flow->remaining_bytes -= flow->rate * (now_ns - flow->since_ns);
        for (uint32_t step = 0; step < flow->step_count; ++step) {
            npu_share *share = &flows->shares[flow->steps[step]];
            share->others = share->limited = 0;
            share->load = 0;
        }
    }
    flows->tightest = tightest;
    flows->bound_changed = 1;
    flows->given = 0;
    flows->bound_count = flows->other_count = flows->solved_count = 0;
    for (uint32_t index = 0; index < count; ++index) {
        npu_flow *flow = &flows->flows[all[index]];
        double bytes = flow->remaining_bytes > 0 ? flow->remaining_bytes : 0;
        if (crosses(flow, tightest)) {
            flow->mark = bytes;
            add_bound(flows, all[index]);
        } else {
            add_other(flows, all[index], bytes, now_ns);
        }
    }
}

static void solve_bound(npu_flows *flows, double now_ns) {
    give(flows, now_ns);
    if (flows->bound_count == 0 || share_of(flows, flows->tightest) > flows->spare * EQUAL) {
        uint32_t tightest = find_tightest(flows);
        if (tightest != flows->tightest) {
            bind_flows(flows, tightest, now_ns);
        }
    }
    flows->level = flows->bound_count > 0 ? share_of(flows, flows->tightest) : 0;
}

static void apply_rate(npu_flows *flows, npu_flow *flow, double now_ns) {
    if (flow->new_rate == flow->rate) {
        return;
    }
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        flows->shares[flow->steps[step]].load += flow->new_rate - flow->rate;
    }
    flow->remaining_bytes -= flow->rate * (now_ns - flow->since_ns);
    flow->remaining_bytes = flow->remaining_bytes > 0 ? flow->remaining_bytes : 0;
    flow->rate = flow->new_rate;
    flow->since_ns = now_ns;
    flows->finish_ns[flow->place] = now_ns + flow->remaining_bytes / flow->rate;
}

/* The others' new rates; when the first of all flows ends. */
static double apply_rates(npu_flows *flows, double now_ns) {
    double next_ns = INFINITY;
    if (flows->bound_count > 0) {
        next_ns = now_ns + (flows->flows[flows->bound[0]].mark - flows->given) / flows->level;
    }
    for (uint32_t index = 0; index < flows->solved_count; ++index) {
        apply_rate(flows, &flows->flows[flows->solved[index]], now_ns);
    }
    for (uint32_t index = 0; index < flows->other_count; ++index) {
        next_ns = flows->finish_ns[index] < next_ns ? flows->finish_ns[index] : next_ns;
    }
    flows->solved_count = 0;
    return next_ns;
}

double npu_flows_next(npu_flows *flows, double now_ns) {
    if (flows->changed) {
        solve_bound(flows, now_ns);
        npu_flows_solve_others(flows);
        flows->next_ns = apply_rates(flows, now_ns);
        flows->changed = flows->bound_changed = 0;
        ++flows->time;
    }
    return flows->next_ns;
}

/* Sorted by insertion, the latest start first: few end at the same time, as a rule one. */
static void add_ended(npu_flows *flows, uint32_t tag) {
    uint32_t hole = flows->ended_count++;
    for (; hole > 0 && flows->flows[flows->ended[hole - 1]].order < flows->flows[tag].order; --hole) {
        flows->ended[hole] = flows->ended[hole - 1];
    }
    flows->ended[hole] = tag;
    remove_users(flows, &flows->flows[tag]);
    npu_flows_touch(flows, &flows->flows[tag]);
    flows->changed = 1;
}

static void find_ended(npu_flows *flows, double now_ns) {
    double until_ns = now_ns + TOGETHER_NS;
    if (flows->next_ns > until_ns) {
        return;
    }
    double given = flows->given + flows->level * (until_ns - flows->since_ns);
    while (flows->bound_count > 0 && flows->flows[flows->bound[0]].mark <= given) {
        add_ended(flows, take_bound(flows));
        flows->bound_changed = 1;
    }
    for (uint32_t index = 0; index < flows->other_count;) {
        uint32_t tag = flows->others[index];
        if (flows->finish_ns[index] <= until_ns) {
            remove_other(flows, tag);
            add_ended(flows, tag);
        } else {
            ++index;
        }
    }
    flows->next_ns = INFINITY; /* until the rates are solved again */
}

int npu_flows_take(npu_flows *flows, double now_ns, uint32_t *tag) {
    if (flows->ended_count == 0) {
        find_ended(flows, now_ns);
    }
    if (flows->ended_count == 0) {
        return 0;
    }
    *tag = flows->ended[--flows->ended_count];
    return 1;
}
