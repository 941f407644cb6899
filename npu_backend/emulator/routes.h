/* What the transfers of a program cross, every resource once. Route i is path i, empty if no instruction uses it; after
 * the paths comes a route for each multicast group, the union of its members' paths. */
#ifndef NPU_ROUTES_H
#define NPU_ROUTES_H

#include "internal.h"

typedef struct { /* of a multicast group */
    double latency_ns; /* the largest of the members' paths */
    double hops;       /* for energy: links of the tree, of one member those of its path */
} npu_tree;

typedef struct {
    const npu_program *program;
    uint32_t *steps;      /* of all routes: first those that can limit a flow, then those that never do */
    uint64_t *first_step; /* routes + 1 */
    uint32_t *kept;       /* how many of each route's can limit */
    npu_tree *trees;      /* one a group */
    uint32_t *seen;       /* marks, one a resource */
} npu_routes;

/* Whatever it returns, npu_routes_close may follow. */
npu_status npu_routes_open(npu_routes *routes, const npu_program *program, npu_message *message);
void npu_routes_close(npu_routes *routes);

/* Adds each route's bytes to all the resources that it crosses. */
void npu_routes_add_bytes(const npu_routes *routes, const double *route_bytes, double *resource_bytes);

#endif
