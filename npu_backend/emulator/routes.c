/* The routes of a program: what is left of its paths after pruning, and the trees of its multicasts. */
#include "routes.h"

#include <stdlib.h>
#include <string.h>

#include "multicast.h"

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
        for (uint32_t step = 0; step < record->step_count && program->path_is_used[path]; ++step) {
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

/* Only what one of its paths crosses can be crossed by all. */
static int never_limits(const pruning *prune, uint32_t resource, const npu_record_path *path) {
    const npu_record_resource *resources = prune->program->resources;
    for (uint32_t step = 0; step < path->step_count; ++step) {
        uint32_t other = prune->program->path_steps[path->first_step + step].resource;
        if (other != resource && !prune->dropped[other] &&
            resources[other].bytes_per_ns <= resources[resource].bytes_per_ns && is_covered(prune, resource, other)) {
            return 1;
        }
    }
    return 0;
}

static uint32_t first_path(const pruning *prune, uint32_t resource) {
    const uint64_t *row = prune->crosses + resource * prune->words;
    for (uint32_t path = 0; path < prune->program->path_count; ++path) {
        if (row[path / 64] == 0) {
            path |= 63; /* none of these */
        } else if (row[path / 64] >> path % 64 & 1) {
            return path;
        }
    }
    return NPU_NOBODY;
}

static void drop_resources(pruning *prune) {
    for (uint32_t resource = 0; resource < prune->program->resource_count; ++resource) {
        uint32_t path = first_path(prune, resource);
        prune->dropped[resource] =
            path == NPU_NOBODY || never_limits(prune, resource, &prune->program->paths[path]);
    }
}

static uint32_t node_index(const npu_program *program, uint32_t node) {
    return node == NPU_DRAM_NODE ? program->machine->core_count : node;
}

npu_status npu_build_paths(npu_program *program, npu_message *message) {
    size_t nodes = (size_t)program->machine->core_count + 1;
    program->path_table = malloc(nodes * nodes * sizeof *program->path_table);
    program->path_is_used = calloc((size_t)program->path_count + 1, 1);
    if (program->path_table == NULL || program->path_is_used == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for the paths of %u cores",
                        program->machine->core_count);
    }
    memset(program->path_table, 0xFF, nodes * nodes * sizeof *program->path_table);
    for (uint32_t path = program->path_count; path-- > 0;) { /* of several the first */
        size_t source = node_index(program, program->paths[path].source);
        program->path_table[source * nodes + node_index(program, program->paths[path].destination)] = path;
    }
    return NPU_OK;
}

uint32_t npu_path(const npu_program *program, uint32_t source, uint32_t destination) {
    size_t nodes = (size_t)program->machine->core_count + 1;
    return program->path_table[node_index(program, source) * nodes + node_index(program, destination)];
}

/* Moves those that can limit to the front, in their order; ends the route. */
static void keep_steps(npu_routes *routes, const uint8_t *dropped, uint32_t route, uint64_t end) {
    uint32_t *steps = routes->steps, kept = 0;
    for (uint64_t step = routes->first_step[route]; step < end; ++step) {
        uint32_t resource = steps[step];
        if (!dropped[resource]) {
            uint64_t to = routes->first_step[route] + kept++;
            steps[step] = steps[to];
            steps[to] = resource;
        }
    }
    routes->kept[route] = kept;
    routes->first_step[route + 1] = end;
}

/* The resources of a path, each once; where they end. */
static uint64_t copy_path(npu_routes *routes, uint32_t path) {
    const npu_program *program = routes->program;
    const npu_record_path *record = &program->paths[path];
    uint64_t end = routes->first_step[path];
    for (uint32_t step = 0; step < record->step_count; ++step) {
        uint32_t resource = program->path_steps[record->first_step + step].resource;
        if (routes->seen[resource] != path + 1) {
            routes->seen[resource] = path + 1;
            routes->steps[end++] = resource;
        }
    }
    return end;
}

static void keep_paths(npu_routes *routes, const uint8_t *dropped) {
    const npu_program *program = routes->program;
    routes->first_step[0] = 0;
    for (uint32_t path = 0; path < program->path_count; ++path) {
        uint64_t end = program->path_is_used[path] ? copy_path(routes, path) : routes->first_step[path];
        keep_steps(routes, dropped, path, end);
    }
    memset(routes->seen, 0, ((size_t)program->resource_count + 1) * sizeof *routes->seen);
}

/* The resources of all members' paths, each once, appended to `tree`; how many there are. `seen` keeps marks of other
 * groups. The hops of a path that joins the tree count by the share of its links that are new to the tree. */
static uint32_t join_paths(const npu_program *program, uint32_t group, uint32_t *seen, uint32_t *tree,
                           npu_tree *figures) {
    uint32_t count = 0;
    *figures = (npu_tree){0, 0};
    for (uint64_t i = program->first_member[group]; i < program->first_member[group + 1]; ++i) {
        const npu_record_path *path = &program->paths[program->members[i].path];
        uint32_t links = 0, new_links = 0, before = count;
        for (uint32_t step = 0; step < path->step_count; ++step) {
            uint32_t resource = program->path_steps[path->first_step + step].resource;
            int is_new = seen[resource] != group + 1, is_link = program->resources[resource].is_link != 0;
            links += (uint32_t)is_link;
            new_links += (uint32_t)(is_link && is_new);
            if (is_new) {
                seen[resource] = group + 1;
                tree[count++] = resource;
            }
        }
        figures->latency_ns = path->latency_ns > figures->latency_ns ? path->latency_ns : figures->latency_ns;
        figures->hops += links > 0 ? (double)path->hops * new_links / links : before == 0 ? path->hops : 0;
    }
    return count;
}

static void keep_trees(npu_routes *routes, const uint8_t *dropped) {
    const npu_program *program = routes->program;
    for (uint32_t group = 0; group < program->machine->multicast_group_count; ++group) {
        uint32_t route = program->path_count + group;
        uint64_t first = routes->first_step[route];
        uint32_t joined = join_paths(program, group, routes->seen, routes->steps + first, &routes->trees[group]);
        keep_steps(routes, dropped, route, first + joined);
    }
}

/* Fewer resources, the same rates: most of a path's are wider than another that every flow through them crosses. Only
 * the paths that the program uses count. */
static npu_status prune_resources(npu_routes *routes, npu_message *message) {
    const npu_program *program = routes->program;
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
            drop_resources(&prune);
        }
        keep_paths(routes, prune.dropped);
        keep_trees(routes, prune.dropped);
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
    for (uint64_t i = 0; i < program->first_member[program->machine->multicast_group_count]; ++i) {
        *steps += program->paths[program->members[i].path].step_count;
    }
    if (*steps > MAX_STEPS) {
        return npu_fail(message, NPU_BAD_PROGRAM, "the transfers' paths have %llu steps, more than %u",
                        (unsigned long long)*steps, MAX_STEPS);
    }
    return NPU_OK;
}

npu_status npu_routes_open(npu_routes *routes, const npu_program *program, npu_message *message) {
    size_t groups = program->machine->multicast_group_count;
    size_t resources = (size_t)program->resource_count + 1;
    memset(routes, 0, sizeof(*routes));
    uint64_t steps = 0;
    npu_status status = check_network(program, &steps, message);
    if (status != NPU_OK) {
        return status;
    }
    routes->program = program;
    routes->steps = malloc((size_t)(steps + 1) * sizeof *routes->steps);
    routes->first_step = malloc((program->path_count + groups + 1) * sizeof *routes->first_step);
    routes->kept = malloc((program->path_count + groups + 1) * sizeof *routes->kept);
    routes->trees = calloc(groups + 1, sizeof *routes->trees);
    routes->seen = calloc(resources, sizeof *routes->seen);
    if (routes->steps == NULL || routes->first_step == NULL || routes->kept == NULL || routes->trees == NULL ||
        routes->seen == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for the network's %u paths", program->path_count);
    }
    return prune_resources(routes, message);
}

void npu_routes_close(npu_routes *routes) {
    free(routes->steps);
    free(routes->first_step);
    free(routes->kept);
    free(routes->trees);
    free(routes->seen);
    memset(routes, 0, sizeof(*routes));
}

void npu_routes_add_bytes(const npu_routes *routes, const double *route_bytes, double *resource_bytes) {
    uint32_t count = routes->program->path_count + routes->program->machine->multicast_group_count;
    for (uint32_t route = 0; route < count; ++route) {
        for (uint64_t step = routes->first_step[route]; step < routes->first_step[route + 1]; ++step) {
            resource_bytes[routes->steps[step]] += route_bytes[route];
        }
    }
}
