/* Time: an event-driven replay of the streams. No tensor is touched, and nothing here decides what a program means.
 *
 * Every engine takes its instructions in order, one at a time. Compute takes its cost; a transfer its set-up and the
 * latency of its path, then a flow of whole DRAM bursts; WAIT and SIGNAL take nothing, but a signal travels.
 */
#include "timing.h"

#include "multicast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Who uses a semaphore: nobody yet, this core, or more than one. */
static void add_user(uint32_t *user, uint32_t core) {
    if (*user != core) {
        *user = *user == NPU_NOBODY ? core : NPU_SEVERAL;
    }
}

static void find_semaphore_users(npu_replay *replay) {
    const npu_program *program = replay->program;
    for (uint32_t index = 0; index < program->stream_count; ++index) {
        const npu_stream *stream = &program->streams[index];
        for (uint64_t position = 0; position < stream->count; ++position) {
            const npu_wait *wait = (const npu_wait *)(const void *)stream->instructions[position];
            if (wait->head.opcode == NPU_OP_WAIT) {
                add_user(&replay->semaphores[wait->semaphore].waiting_core, stream->core);
            } else if (wait->head.opcode == NPU_OP_SIGNAL) {
                add_user(&replay->semaphores[wait->semaphore].signalling_core, stream->core);
            }
        }
    }
}

static void fill_tables(npu_replay *replay) {
    const npu_program *program = replay->program;
    for (uint32_t index = 0; index < program->machine->semaphore_count; ++index) {
        replay->semaphores[index] = (npu_semaphore_state){0, NPU_NOBODY, NPU_NOBODY, NPU_NOBODY, NPU_NOBODY};
    }
    find_semaphore_users(replay);
}

static npu_status open_replay(npu_replay *replay) {
    const npu_program *program = replay->program;
    size_t groups = program->machine->multicast_group_count;
    npu_status status = npu_routes_open(&replay->routes, program, replay->message);
    if (status == NPU_OK) {
        status = npu_flows_open(&replay->flows, &replay->routes, program->stream_count, replay->message);
    }
    for (uint32_t core = 0; core < program->machine->core_count && status == NPU_OK; ++core) {
        status = npu_check_core(&program->cores[core], replay->message);
    }
    if (status != NPU_OK) {
        return status;
    }
    replay->streams = calloc((size_t)program->stream_count + 1, sizeof(npu_stream_state));
    replay->semaphores = calloc((size_t)program->machine->semaphore_count + 1, sizeof(npu_semaphore_state));
    replay->cores = calloc(program->machine->core_count, sizeof(npu_core_state));
    replay->arrived = calloc(groups + 1, sizeof(uint32_t));
    replay->route_bytes = calloc(program->path_count + groups + 1, sizeof(double));
    if (replay->streams == NULL || replay->semaphores == NULL || replay->cores == NULL || replay->arrived == NULL ||
        replay->route_bytes == NULL) {
        return npu_fail(replay->message, NPU_OUT_OF_MEMORY, "no memory to replay %u streams", program->stream_count);
    }
    fill_tables(replay);
    return NPU_OK;
}

static void close_replay(npu_replay *replay) {
    npu_flows_close(&replay->flows);
    npu_routes_close(&replay->routes);
    npu_event_free(&replay->queue);
    free(replay->streams);
    free(replay->semaphores);
    free(replay->cores);
    free(replay->arrived);
    free(replay->route_bytes);
}

npu_status npu_add_event(npu_replay *replay, double delay_ns, npu_event_kind kind, uint32_t index) {
    return npu_event_add(&replay->queue, replay->now_ns + delay_ns, kind, index)
               ? NPU_OK
               : npu_fail(replay->message, NPU_OUT_OF_MEMORY, "no memory for more events");
}

static int is_abroad(const npu_semaphore_state *semaphore, uint32_t core) {
    return semaphore->signalling_core != core && semaphore->signalling_core != NPU_NOBODY;
}

/* Takes one from the semaphore, or queues up behind those that wait already; whether it was taken. */
static int try_wait(npu_replay *replay, uint32_t stream, uint32_t index) {
    npu_semaphore_state *semaphore = &replay->semaphores[index];
    uint32_t core = replay->program->streams[stream].core;
    if (semaphore->count > 0) {
        --semaphore->count;
        npu_account_span(replay, stream);
        return 1;
    }
    replay->streams[stream].next_waiter = NPU_NOBODY;
    if (semaphore->first_waiter == NPU_NOBODY) {
        semaphore->first_waiter = stream;
    } else {
        replay->streams[semaphore->last_waiter].next_waiter = stream;
    }
    semaphore->last_waiter = stream;
    npu_account_state(replay, core, 0, is_abroad(semaphore, core));
    return 0;
}

static npu_status send_signal(npu_replay *replay, uint32_t stream, uint32_t index) {
    const npu_record_machine *machine = replay->program->machine;
    uint32_t waiting = replay->semaphores[index].waiting_core;
    int stays = waiting == replay->program->streams[stream].core || waiting == NPU_NOBODY;
    double time_ns = replay->now_ns + (stays ? machine->signal_ns : machine->cross_signal_ns);
    npu_account_span(replay, stream);
    return npu_event_add_in_lane(&replay->queue, (uint32_t)stays, time_ns, NPU_EVENT_SIGNAL, index)
               ? NPU_OK
               : npu_fail(replay->message, NPU_OUT_OF_MEMORY, "no memory for more signals");
}

static npu_status refuse(npu_replay *replay, uint32_t stream, const npu_instruction *instruction, npu_status status,
                         const char *reason) {
    char text[NPU_MESSAGE_BYTES / 2];
    npu_describe(replay->program, &replay->program->streams[stream], instruction, text, sizeof text);
    return npu_fail(replay->message, status, "%s: %s", text, reason);
}

static npu_status start_compute(npu_replay *replay, uint32_t stream, const npu_instruction *instruction) {
    const npu_stream *place = &replay->program->streams[stream];
    npu_message reason;
    npu_cost cost;
    npu_status status = npu_instruction_cost(&replay->program->cores[place->core], instruction, &cost, &reason);
    if (status != NPU_OK) {
        return refuse(replay, stream, instruction, status, reason.text);
    }
    npu_account_compute(replay, stream, &cost);
    npu_account_state(replay, place->core, 1, 0);
    return npu_add_event(replay, cost.duration_ns, NPU_EVENT_DONE, stream);
}

double npu_setup_ns(const npu_record_core *core) {
    return core->dma_setup_cycles * 1000.0 / core->clock_mhz;
}

static uint32_t transfer_path(const npu_program *program, uint32_t core, const npu_instruction *instruction) {
    switch (instruction->opcode) {
    case NPU_OP_LOAD_ROWS:
    case NPU_OP_LOAD: return npu_path(program, NPU_DRAM_NODE, core);
    case NPU_OP_STORE: return npu_path(program, core, NPU_DRAM_NODE);
    default: return npu_path(program, core, ((const npu_send *)(const void *)instruction)->destination_core);
    }
}

static npu_status start_transfer(npu_replay *replay, uint32_t stream, const npu_instruction *instruction) {
    const npu_program *program = replay->program;
    uint32_t core = program->streams[stream].core;
    npu_stream_state *state = &replay->streams[stream];
    state->group = NPU_NOBODY;
    state->route = transfer_path(program, core, instruction);
    const npu_record_path *path = &program->paths[state->route];
    state->flow_bytes = npu_account_transfer(replay, core, instruction, path->hops);
    npu_account_state(replay, core, 1, 0);
    double delay_ns = npu_setup_ns(&program->cores[core]) + path->latency_ns +
                      (instruction->opcode == NPU_OP_SEND ? 0 : program->machine->dram_latency_ns);
    return npu_add_event(replay, delay_ns, NPU_EVENT_FLOW, stream);
}

/* What a stream comes to next lies far from what the others do: fetched while it works, it need not be waited for. */
static void prefetch_next(const npu_stream *stream, uint64_t position) {
#if defined(__GNUC__)
    for (uint64_t next = position + 1; next < stream->count && next <= position + 3; ++next) {
        __builtin_prefetch(stream->instructions[next]);
    }
#else
    (void)stream;
    (void)position;
#endif
}

/* Goes on with a stream until an engine works, a semaphore holds it up or it ends. */
static npu_status advance(npu_replay *replay, uint32_t index) {
    const npu_stream *stream = &replay->program->streams[index];
    npu_stream_state *state = &replay->streams[index];
    npu_status status = NPU_OK;
    prefetch_next(stream, state->next);
    for (; state->next < stream->count && status == NPU_OK; ++state->next) {
        const npu_instruction *instruction = stream->instructions[state->next];
        state->start_ns = replay->now_ns;
        switch (instruction->opcode) {
        case NPU_OP_WAIT:
            if (!try_wait(replay, index, ((const npu_wait *)(const void *)instruction)->semaphore)) {
                return NPU_OK;
            }
            break;
        case NPU_OP_SIGNAL:
            status = send_signal(replay, index, ((const npu_signal *)(const void *)instruction)->semaphore);
            break;
        case NPU_OP_LOAD:
        case NPU_OP_LOAD_ROWS:
        case NPU_OP_STORE:
        case NPU_OP_SEND: return start_transfer(replay, index, instruction);
        case NPU_OP_LOAD_MULTICAST:
        case NPU_OP_SEND_MULTICAST: return npu_join_group(replay, index, npu_group_of(instruction));
        default: return start_compute(replay, index, instruction);
        }
    }
    return status;
}

npu_status npu_finish_instruction(npu_replay *replay, uint32_t stream) {
    npu_account_state(replay, replay->program->streams[stream].core, -1, 0);
    npu_account_span(replay, stream);
    ++replay->streams[stream].next;
    return advance(replay, stream);
}

static npu_status receive_signal(npu_replay *replay, uint32_t index) {
    npu_semaphore_state *semaphore = &replay->semaphores[index];
    uint32_t stream = semaphore->first_waiter;
    if (stream == NPU_NOBODY) {
        ++semaphore->count;
        return NPU_OK;
    }
    uint32_t core = replay->program->streams[stream].core;
    semaphore->first_waiter = replay->streams[stream].next_waiter;
    npu_account_state(replay, core, 0, -is_abroad(semaphore, core));
    npu_account_span(replay, stream);
    ++replay->streams[stream].next;
    return advance(replay, stream);
}

static npu_status finish_transfer(npu_replay *replay, uint32_t stream) {
    uint32_t group = replay->streams[stream].group;
    return group == NPU_NOBODY ? npu_finish_instruction(replay, stream) : npu_finish_group(replay, group);
}

static npu_status start_flow(npu_replay *replay, uint32_t stream) {
    const npu_stream_state *state = &replay->streams[stream];
    if (!(state->flow_bytes > 0)) {
        return finish_transfer(replay, stream);
    }
    replay->route_bytes[state->route] += state->flow_bytes;
    npu_flows_start(&replay->flows, state->route, state->flow_bytes, stream, replay->now_ns);
    return NPU_OK;
}

static npu_status handle_event(npu_replay *replay) {
    npu_event event = npu_event_take(&replay->queue);
    ++replay->timing->events;
    replay->now_ns = event.time_ns;
    switch (event.kind) {
    case NPU_EVENT_DONE: return npu_finish_instruction(replay, event.index);
    case NPU_EVENT_FLOW: return start_flow(replay, event.index);
    default: return receive_signal(replay, event.index);
    }
}

static npu_status finish_flows(npu_replay *replay, double time_ns) {
    npu_status status = NPU_OK;
    uint32_t stream;
    replay->now_ns = time_ns;
    while (status == NPU_OK && npu_flows_take(&replay->flows, time_ns, &stream)) {
        ++replay->timing->events;
        status = finish_transfer(replay, stream);
    }
    return status;
}

/* One event, or the flows that end at one time. `*ended` when nothing is under way any more. */
static npu_status step(npu_replay *replay, int *ended) {
    const npu_event *event = npu_event_first(&replay->queue);
    double event_ns = event != NULL ? event->time_ns : INFINITY;
    if (event_ns <= replay->now_ns) { /* all that happens now comes before the rates are solved again */
        return handle_event(replay);
    }
    double flow_ns = npu_flows_next(&replay->flows, replay->now_ns);
    *ended = event_ns == INFINITY && flow_ns == INFINITY;
    if (*ended) {
        return NPU_OK;
    }
    return flow_ns <= event_ns ? finish_flows(replay, flow_ns) : handle_event(replay);
}

static npu_status check_finished(npu_replay *replay) {
    const npu_program *program = replay->program;
    uint64_t *next = calloc((size_t)program->stream_count + 1, sizeof(uint64_t));
    int finished = 1;
    if (next == NULL) {
        return npu_fail(replay->message, NPU_OUT_OF_MEMORY, "no memory for %u streams", program->stream_count);
    }
    for (uint32_t index = 0; index < program->stream_count; ++index) {
        next[index] = replay->streams[index].next;
        finished = finished && next[index] == program->streams[index].count;
    }
    npu_status status = finished ? NPU_OK : npu_say_deadlock(program, next, replay->message);
    free(next);
    return status;
}

static npu_status run_replay(npu_replay *replay) {
    npu_status status = open_replay(replay);
    int ended = 0;
    for (uint32_t stream = 0; stream < replay->program->stream_count && status == NPU_OK; ++stream) {
        status = advance(replay, stream);
    }
    while (status == NPU_OK && !ended) {
        status = step(replay, &ended);
    }
    if (status == NPU_OK) {
        status = check_finished(replay);
    }
    return status;
}

npu_status npu_time(const npu_program *program, npu_timing *timing, npu_message *message) {
    if (program == NULL || timing == NULL || timing->bytes != sizeof(npu_timing) || timing->cores == NULL ||
        timing->core_count != program->machine->core_count) {
        return npu_fail(message, NPU_BAD_ARGUMENT, "npu_time needs a program and an npu_timing of %zu bytes with a row "
                        "for each of its cores", sizeof(npu_timing));
    }
    npu_replay replay = {.program = program, .timing = timing, .message = message};
    memset(timing->cores, 0, timing->core_count * sizeof(npu_core_timing));
    timing->total_ns = timing->energy_pj = 0;
    timing->events = 0;
    if (timing->resource_bytes != NULL) {
        memset(timing->resource_bytes, 0, program->resource_count * sizeof(double));
    }
    npu_status status = run_replay(&replay);
    if (status == NPU_OK) {
        npu_account_end(&replay);
    }
    close_replay(&replay);
    return status;
}
