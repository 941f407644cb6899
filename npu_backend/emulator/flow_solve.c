/* Progressive filling for flows that do not cross the tightest resource, in what the bound flows leave.
 *
 * A flow keeps its rate while its bottleneck is full and no flow there has more. So those are solved whose bottleneck
 * was touched, in what all others leave; what they cross is touched too. Should one of the others have more than they
 * get at a bottleneck of theirs, it is solved with them.
 */
#include "flow.h"

#include <math.h>

/* Rates that differ by less are equal: what is left of a resource is a sum of roundings. */
static const double EQUAL = 1 + 1e-11;

void npu_flows_touch(npu_flows *flows, const npu_flow *flow) {
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        npu_share *share = &flows->shares[flow->steps[step]];
        share->touched = flows->time;
        flows->search |= share->limited > 0;
    }
}

static void set_bottleneck(npu_flows *flows, npu_flow *flow, uint32_t bottleneck) {
    if (flow->bottleneck != NPU_NOBODY) {
        --flows->shares[flow->bottleneck].limited;
    }
    if (bottleneck != NPU_NOBODY) {
        ++flows->shares[bottleneck].limited;
    }
    flow->bottleneck = bottleneck;
}

void npu_flows_solve_again(npu_flows *flows, uint32_t tag) {
    npu_flow *flow = &flows->flows[tag];
    set_bottleneck(flows, flow, NPU_NOBODY);
    flow->solved = flows->time;
    flows->solved[flows->solved_count++] = tag;
    npu_flows_touch(flows, flow);
}

/* Adds those whose bottleneck was touched, and what they touch. */
static void find_touched(npu_flows *flows) {
    while (flows->search) {
        flows->search = 0;
        for (uint32_t index = 0; index < flows->other_count; ++index) {
            const npu_flow *flow = &flows->flows[flows->others[index]];
            if (flow->solved != flows->time && flows->shares[flow->bottleneck].touched == flows->time) {
                npu_flows_solve_again(flows, flows->others[index]);
            }
        }
    }
}

/* Whether the bound flows, whose rate has changed, change this one's too: at its bottleneck, or where they leave too
 * little now. */
static int is_affected(const npu_flows *flows, const npu_flow *flow) {
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        uint32_t resource = flow->steps[step];
        const npu_share *share = &flows->shares[resource];
        uint32_t bound = share->users - share->others;
        if (bound > 0 && (resource == flow->bottleneck ||
                          bound * flows->level + share->load > share->capacity * EQUAL)) {
            return 1;
        }
    }
    return 0;
}

static void find_affected(npu_flows *flows) {
    for (uint32_t index = 0; index < flows->other_count; ++index) {
        const npu_flow *flow = &flows->flows[flows->others[index]];
        if (flow->solved != flows->time && is_affected(flows, flow)) {
            npu_flows_solve_again(flows, flows->others[index]);
        }
    }
}

static void add_crossing(npu_flows *flows, uint32_t resource, uint32_t index, double rate) {
    npu_share *share = &flows->shares[resource];
    if (share->waiting++ == 0) {
        share->row = flows->crossed_count;
        flows->crossed[flows->crossed_count++] = resource;
        share->crossing = 0;
        share->left = -share->load;
    }
    share->crossing |= 1ull << index % 64;
    share->left += rate;
}

/* What those to be solved cross, and the rates that they have. Of what a flow has for itself only the narrowest counts:
 * on the others nobody waits. */
static void count_crossings(npu_flows *flows) {
    flows->crossed_count = 0;
    for (uint32_t index = 0; index < flows->solved_count; ++index) {
        npu_flow *flow = &flows->flows[flows->solved[index]];
        uint32_t own = NPU_NOBODY;
        flow->new_rate = -1;
        for (uint32_t step = 0; step < flow->step_count; ++step) {
            uint32_t resource = flow->steps[step];
            if (flows->shares[resource].users > 1) {
                add_crossing(flows, resource, index, flow->rate);
            } else if (own == NPU_NOBODY || flows->shares[resource].capacity < flows->shares[own].capacity) {
                own = resource;
            }
        }
        if (own != NPU_NOBODY) {
            add_crossing(flows, own, index, flow->rate);
        }
    }
}

static void find_left(npu_flows *flows) {
    for (uint32_t row = 0; row < flows->crossed_count; ++row) {
        npu_share *share = &flows->shares[flows->crossed[row]];
        double left = share->capacity - (share->users - share->others) * flows->level;
        share->members = share->waiting;
        share->left = share->others > share->members && share->left < 0 ? left + share->left : left;
        flows->share[row] = share->left * flows->part[share->waiting];
    }
}

static uint32_t find_bottleneck(const npu_flows *flows, double *least) {
    uint32_t bottleneck = 0;
    *least = INFINITY;
    for (uint32_t row = 0; row < flows->crossed_count; ++row) {
        if (flows->share[row] < *least) {
            *least = flows->share[row];
            bottleneck = row;
        }
    }
    return flows->crossed[bottleneck];
}

static void drop_row(npu_flows *flows, uint32_t row) {
    uint32_t last = --flows->crossed_count;
    flows->crossed[row] = flows->crossed[last];
    flows->share[row] = flows->share[last];
    flows->shares[flows->crossed[row]].row = row;
}

static void fix_rate(npu_flows *flows, npu_flow *flow, double rate) {
    flow->new_rate = rate;
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        npu_share *share = &flows->shares[flow->steps[step]];
        if (share->waiting == 0) {
            continue;
        }
        share->left -= rate;
        if (--share->waiting == 0) {
            drop_row(flows, share->row);
        } else {
            flows->share[share->row] = share->left * flows->part[share->waiting];
        }
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

/* Gives the rate to all that cross the resource and have none; how many. */
static uint32_t fix_rates(npu_flows *flows, uint32_t resource, double rate) {
    uint32_t fixed = 0;
    uint64_t crossing = flows->shares[resource].crossing;
    for (uint32_t first = 0; crossing != 0; ++first, crossing >>= 1) {
        for (uint32_t index = first; crossing & 1 && index < flows->solved_count; index += 64) {
            npu_flow *flow = &flows->flows[flows->solved[index]];
            if (flow->new_rate < 0 && crosses(flow, resource)) {
                set_bottleneck(flows, flow, resource);
                fix_rate(flows, flow, rate);
                ++fixed;
            }
        }
    }
    return fixed;
}

/* The least level of a bottleneck that flows cross which keep their rates. */
static double fill(npu_flows *flows) {
    double level = flows->level, share, contested = INFINITY;
    ++flows->fillings;
    count_crossings(flows);
    find_left(flows);
    for (uint32_t fixed = 0; fixed < flows->solved_count;) {
        uint32_t bottleneck = find_bottleneck(flows, &share);
        /* Shares never fall from one bottleneck to the next, but for rounding. */
        level = share > level ? share : level;
        fixed += fix_rates(flows, bottleneck, level);
        const npu_share *full = &flows->shares[bottleneck];
        flows->bottlenecks[bottleneck] = (npu_bottleneck){flows->fillings, level};
        if (full->others > full->members && level < contested) {
            contested = level;
        }
    }
    return contested;
}

static int has_more(const npu_flows *flows, const npu_flow *flow) {
    for (uint32_t step = 0; step < flow->step_count; ++step) {
        const npu_bottleneck *full = &flows->bottlenecks[flow->steps[step]];
        if (full->filling == flows->fillings && flow->rate > full->level * EQUAL) {
            return 1;
        }
    }
    return 0;
}

/* Adds those that have more than the ones solved get at a bottleneck; whether there are any. */
static int find_unfair(npu_flows *flows, double contested) {
    uint32_t before = flows->solved_count;
    for (uint32_t index = 0; contested < INFINITY && index < flows->other_count; ++index) {
        const npu_flow *flow = &flows->flows[flows->others[index]];
        if (flow->solved != flows->time && flow->rate > contested * EQUAL && has_more(flows, flow)) {
            npu_flows_solve_again(flows, flows->others[index]);
        }
    }
    return flows->solved_count > before;
}

void npu_flows_solve_others(npu_flows *flows) {
    if (flows->bound_changed) {
        find_affected(flows);
    }
    do {
        find_touched(flows);
    } while (flows->solved_count > 0 && find_unfair(flows, fill(flows)));
}
