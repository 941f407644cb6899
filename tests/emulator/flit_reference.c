/* A network flit by flit: time advances in equal steps, and in each step every resource serves at most one flit.
 *
 * A transfer has a channel of its own at every resource that it crosses: a buffer of some flits, which the channel
 * before it may fill as long as it holds credits. A resource that is free takes a flit from the next channel, in turn,
 * that has one and whose followers have room; where a multicast tree branches, all branches must have room, and each
 * gets a copy. A flit served in a step can be served by the next resource in a later step only, so the order in which a
 * step looks at the resources does not matter.
 *
 * Turns go around the ports of a resource, then around the channels of the port. With a port for every channel that is
 * round robin among transfers; with a port for every resource that feeds it, round robin among a router's inputs.
 */
#include <stdint.h>
#include <stdlib.h>

#define NOBODY UINT32_MAX

typedef struct {
    double flits_per_step; /* at most 1 */
    uint32_t first_port;
    uint32_t port_count;
} flit_resource;

typedef struct {
    uint32_t first_member; /* in the table of channels by port */
    uint32_t member_count;
} flit_port;

typedef struct {
    uint32_t first_child; /* channels that this one feeds stand in a row; none: the flit has arrived */
    uint32_t child_count;
    uint32_t transfer;
    uint32_t is_first;     /* fed by the transfer's source, which holds all of its flits */
    uint32_t buffer_flits; /* those on their way to it included */
    uint32_t delay_steps;  /* from being served to lying in the next buffer; >= 1 */
    uint32_t credit_steps; /* from being served to the feeding channel's knowing of the room; >= 1 */
} flit_channel;

typedef struct {
    uint32_t release_step;
    uint32_t flits;
    uint32_t first_channel;
    uint32_t channel_count;
    uint32_t finish_step; /* written: when the last flit has arrived at the last destination */
} flit_transfer;

typedef struct {
    uint32_t waiting; /* flits in its buffer */
    uint32_t room;    /* credits of the channel that feeds it */
    uint32_t served;
} channel_state;

typedef struct {
    double budget; /* flits that it may serve by now */
    uint32_t next_port;
} resource_state;

typedef struct {
    const flit_resource *resources;
    const flit_port *ports;
    const uint32_t *members;
    const flit_channel *channels;
    flit_transfer *transfers;
    uint32_t resource_count, port_count, channel_count, transfer_count;
    uint32_t line_steps; /* more than any delay */
    uint32_t step;
    channel_state *channel_states;
    resource_state *resource_states;
    uint32_t *next_members; /* one a port */
    uint8_t *arriving;      /* flits on their way, [step % line_steps][channel] */
    uint8_t *returning;     /* credits on their way */
    uint32_t *missing;      /* destinations that a transfer has not reached with its last flit */
} network;

static uint8_t *line(const network *net, uint8_t *lines, uint32_t delay_steps) {
    return lines + (size_t)((net->step + delay_steps) % net->line_steps) * net->channel_count;
}

static void take_arrivals(network *net) {
    uint8_t *arriving = line(net, net->arriving, 0);
    uint8_t *returning = line(net, net->returning, 0);
    for (uint32_t index = 0; index < net->transfer_count; ++index) {
        const flit_transfer *transfer = &net->transfers[index];
        if (net->step < transfer->release_step || net->missing[index] == 0) {
            continue;
        }
        if (net->step == transfer->release_step) {
            net->channel_states[transfer->first_channel].waiting = transfer->flits;
        }
        for (uint32_t place = 0; place < transfer->channel_count; ++place) {
            uint32_t channel = transfer->first_channel + place;
            net->channel_states[channel].waiting += arriving[channel];
            net->channel_states[channel].room += returning[channel];
            arriving[channel] = returning[channel] = 0;
        }
    }
}

static int may_serve(const network *net, uint32_t index) {
    const flit_channel *channel = &net->channels[index];
    if (net->channel_states[index].waiting == 0) {
        return 0;
    }
    for (uint32_t child = 0; child < channel->child_count; ++child) {
        if (net->channel_states[channel->first_child + child].room == 0) {
            return 0;
        }
    }
    return 1;
}

static void serve(network *net, uint32_t index) {
    const flit_channel *channel = &net->channels[index];
    channel_state *state = &net->channel_states[index];
    flit_transfer *transfer = &net->transfers[channel->transfer];
    --state->waiting;
    ++state->served;
    if (!channel->is_first) {
        ++line(net, net->returning, channel->credit_steps)[index];
    }
    for (uint32_t child = channel->first_child; child < channel->first_child + channel->child_count; ++child) {
        --net->channel_states[child].room;
        ++line(net, net->arriving, channel->delay_steps)[child];
    }
    if (channel->child_count == 0 && state->served == transfer->flits) {
        --net->missing[channel->transfer];
        uint32_t arrival = net->step + channel->delay_steps;
        transfer->finish_step = arrival > transfer->finish_step ? arrival : transfer->finish_step;
    }
}

/* The next channel of the port, in turn, that can be served. */
static uint32_t choose_member(network *net, uint32_t index) {
    const flit_port *port = &net->ports[index];
    uint32_t place = net->next_members[index];
    for (uint32_t tried = 0; tried < port->member_count; ++tried) {
        uint32_t following = place + 1 < port->member_count ? place + 1 : 0;
        uint32_t channel = net->members[port->first_member + place];
        if (may_serve(net, channel)) {
            net->next_members[index] = following;
            return channel;
        }
        place = following;
    }
    return NOBODY;
}

static uint32_t choose(network *net, uint32_t index) {
    const flit_resource *resource = &net->resources[index];
    uint32_t place = net->resource_states[index].next_port;
    for (uint32_t tried = 0; tried < resource->port_count; ++tried) {
        uint32_t following = place + 1 < resource->port_count ? place + 1 : 0;
        uint32_t channel = choose_member(net, resource->first_port + place);
        if (channel != NOBODY) {
            net->resource_states[index].next_port = following;
            return channel;
        }
        place = following;
    }
    return NOBODY;
}

/* A resource slower than a flit a step skips steps; one that had nothing to serve has saved up no more than a slot. */
static void run_resource(network *net, uint32_t index) {
    resource_state *state = &net->resource_states[index];
    state->budget += net->resources[index].flits_per_step;
    if (state->budget < 1 - 1e-9) {
        return;
    }
    uint32_t channel = choose(net, index);
    if (channel == NOBODY) {
        state->budget = 1;
    } else {
        state->budget -= 1;
        serve(net, channel);
    }
}

static int run(network *net, uint32_t step_limit) {
    for (uint32_t left = net->transfer_count; left > 0; ++net->step) {
        if (net->step == step_limit) {
            return 0;
        }
        take_arrivals(net);
        for (uint32_t index = 0; index < net->resource_count; ++index) {
            run_resource(net, index);
        }
        left = 0;
        for (uint32_t index = 0; index < net->transfer_count; ++index) {
            left += net->missing[index] > 0;
        }
    }
    return 1;
}

static void prepare(network *net) {
    for (uint32_t index = 0; index < net->channel_count; ++index) {
        const flit_channel *channel = &net->channels[index];
        net->channel_states[index] = (channel_state){0, channel->buffer_flits, 0};
        net->missing[channel->transfer] += channel->child_count == 0;
    }
    for (uint32_t index = 0; index < net->resource_count; ++index) {
        net->resource_states[index] = (resource_state){1, 0};
    }
}

/* Writes every transfer's finish_step. 0: out of memory, or not over by `step_limit`. */
int flit_simulate(const flit_resource *resources, uint32_t resource_count, const flit_port *ports, uint32_t port_count,
                  const uint32_t *members, const flit_channel *channels, uint32_t channel_count,
                  flit_transfer *transfers, uint32_t transfer_count, uint32_t line_steps, uint32_t step_limit) {
    size_t line_bytes = (size_t)line_steps * channel_count + 1;
    network net = {
        resources, ports, members, channels, transfers, resource_count, port_count, channel_count, transfer_count,
        line_steps, 0, malloc((channel_count + 1) * sizeof(channel_state)),
        malloc((resource_count + 1) * sizeof(resource_state)), calloc(port_count + 1, sizeof(uint32_t)),
        calloc(line_bytes, 1), calloc(line_bytes, 1), calloc(transfer_count + 1, sizeof(uint32_t)),
    };
    int is_over = 0;
    if (net.channel_states != NULL && net.resource_states != NULL && net.next_members != NULL &&
        net.arriving != NULL && net.returning != NULL && net.missing != NULL) {
        prepare(&net);
        is_over = run(&net, step_limit);
    }
    free(net.channel_states);
    free(net.resource_states);
    free(net.next_members);
    free(net.arriving);
    free(net.returning);
    free(net.missing);
    return is_over;
}
