#include "flow.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Flows that end within this of each other end together; far below a cycle, far above rounding. */
static const double TOGETHER_NS = 1e-6;

/* Beyond these a network is kept as it is: pruning would take longer than it saves. */
#define PRUNED_RESOURCES 1024u
#define PRUNED_PATHS 65536u
#define MAX_STEPS (1u << 26)

typedef struct {
    const npu_program *program;
    size_t words;      /* a row's */
    uint64_t *crosses; /* a row of bits a resource, a bit a path */
    uint8_t *dropped;  /* a byte a resource */
} pruning;

static void fill_crosses(pruning *prune) {
    const npu_program *program = prune->program;
    for (uint32_t path = 0; path < program->path_count; ++path) {
        const npu_record_path *record = &program->paths[path];
        for (uint32_t step = 0; step < record->step_count; ++step) {
            uint32_t resource = program->path_steps[record->first_step + step].resource;
            prune->crosses[resource * prune->words + path / 64] |= 1ull << path % 64;
        }
    }
}

/* Whether every path of `resource` crosses `other` too, so that a narrower `other` always limits first. */
static int is_covered(const pruning *prune, uint32_t resource, uint32_t other) {
    const uint64_t *own = prune->crosses + resource * prune->words;
    const uint64_t *its = prune->crosses + other * prune->words;
    for (size_t word = 0; word < prune->words; ++word) {
        if (own[word] & ~its[word]) {
            return 0;
        }
    }
    return 1;
}

static int never_limits(const pruning *prune, uint32_t resource) {
    const npu_record_resource *resources = prune->program->resources;
    for (uint32_t other = 0; other < prune->program->resource_count; ++other) {
        if (other != resource && !prune->dropped[other] &&
            resources[other].bytes_per_ns <= resources[resource].bytes_per_ns && is_covered(prune, resource, other)) {
            return 1;
        }
    }
    return 0;
}

static void keep_steps(npu_flows *flows, const uint8_t *dropped) {
    const npu_program *program = flows->program;
    uint32_t count = 0;
    for (uint32_t path = 0; path < program->path_count; ++path) {
        const npu_record_path *record = &program->paths[path];
        flows->first_step[path] = count;
        for (uint32_t step = 0; step < record->step_count; ++step) {
            uint32_t resource = program->path_steps[record->first_step + step].resource;
            if (!dropped[resource]) {
                flows->steps[count++] = resource;
            }
        }
    }
    flows->first_step[program->path_count] = count;
}

/* Fewer resources, the same rates: most of a path's are wider than another that every flow through them crosses. */
static npu_status prune_resources(npu_flows *flows, npu_message *message) {
    const npu_program *program = flows->program;
    int is_small = program->resource_count <= PRUNED_RESOURCES && program->path_count <= PRUNED_PATHS;
    pruning prune = {program, is_small ? program->path_count / 64 + 1 : 0, NULL, NULL};
    prune.crosses = calloc((size_t)program->resource_count * prune.words + 1, sizeof(uint64_t));
    prune.dropped = calloc((size_t)program->resource_count + 1, 1);
    npu_status status = NPU_OK;
    if (prune.crosses == NULL || prune.dropped == NULL) {
        status = npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for the network's %u paths", program->path_count);
    } else {
        if (is_small) {
            fill_crosses(&prune);
            for (uint32_t resource = 0; resource < program->resource_count; ++resource) {
                prune.dropped[resource] = (uint8_t)never_limits(&prune, resource);
            }
        }
        keep_steps(flows, prune.dropped);
    }
    free(prune.crosses);
    free(prune.dropped);
    return status;
}

static npu_status check_network(const npu_program *program, uint64_t *steps, npu_message *message) {
    for (uint32_t resource = 0; resource < program->resource_count; ++resource) {
        if (!(program->resources[resource].bytes_per_ns > 0)) {
            return npu_fail(message, NPU_BAD_PROGRAM, "resource %u has no bandwidth", resource);
        }
    }
    for (uint32_t path = 0; path < program->path_count; ++path) {
        if (program->paths[path].step_count == 0) {
            return npu_fail(message, NPU_BAD_PROGRAM, "path %u crosses nothing, so it has no bandwidth", path);
        }
        *steps += program->paths[path].step_count; /* paths may share rows of the step table */
    }
    if (*steps > MAX_STEPS) {
        return npu_fail(message, NPU_BAD_PROGRAM, "the paths have %llu steps, more than %u",
                        (unsigned long long)*steps, MAX_STEPS);
    }
    return NPU_OK;
}

npu_status npu_flows_open(npu_flows *flows, const npu_program *program, uint32_t limit, npu_message *message) {
    size_t resources = (size_t)program->resource_count + 1;
    memset(flows, 0, sizeof(*flows));
    uint64_t steps = 0;
    npu_status status = check_network(program, &steps, message);
    if (status != NPU_OK) {
        return status;
    }
    flows->program = program;
    flows->limit = limit;
    flows->steps = malloc((size_t)(steps + 1) * sizeof(uint32_t));
    flows->first_step = malloc(((size_t)program->path_count + 1) * sizeof(uint32_t));
    flows->left = malloc(resources * sizeof(double));
    flows->users = calloc(resources, sizeof(uint32_t));
    flows->used = malloc(resources * sizeof(uint32_t));
    flows->flows = malloc(((size_t)limit + 1) * sizeof(npu_flow));
    flows->next_ns = INFINITY;
    if (flows->steps == NULL || flows->first_step == NULL || flows->left == NULL || flows->users == NULL ||
        flows->used == NULL || flows->flows == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for %u concurrent transfers", limit);
    }
    return prune_resources(flows, message);
}

void npu_flows_close(npu_flows *flows) {
    free(flows->steps);
    free(flows->first_step);
    free(flows->left);
    free(flows->users);
    free(flows->used);
    free(flows->flows);
    memset(flows, 0, sizeof(*flows));
}

void npu_flows_start(npu_flows *flows, uint32_t path, double bytes, uint32_t tag, double now_ns) {
    npu_flow *flow = &flows->flows[flows->count++];
    flow->tag = tag;
    flow->steps = flows->steps + flows->first_step[path];
    flow->step_count = flows->first_step[path + 1] - flows->first_step[path];
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
