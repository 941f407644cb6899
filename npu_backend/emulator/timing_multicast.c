/* Multicasts on the clock. The loads of a group meet: their one transfer starts when the last of the cores has come to
 * it, and ends for all at once. The sends of a group follow each other in one stream and are one transfer.
 */
#include "multicast.h"
#include "timing.h"

static double max(double a, double b) {
    return a > b ? a : b;
}

static int is_load(const npu_program *program, uint32_t group) {
    return npu_member_instruction(program, &program->members[program->first_member[group]])->opcode ==
           NPU_OP_LOAD_MULTICAST;
}

/* Engines that work on the transfer: of sends the one, of loads all. */
static uint64_t end_of_engines(const npu_program *program, uint32_t group) {
    return is_load(program, group) ? program->first_member[group + 1] : program->first_member[group] + 1;
}

/* Bytes and energy, on the first member but for what the others write; the bytes that flow. */
static double account_members(npu_replay *replay, uint32_t group) {
    const npu_program *program = replay->program;
    double flow_bytes = 0;
    for (uint64_t i = program->first_member[group]; i < program->first_member[group + 1]; ++i) {
        const npu_member *member = &program->members[i];
        const npu_instruction *instruction = npu_member_instruction(program, member);
        uint32_t core = program->streams[member->stream].core;
        if (i == program->first_member[group]) {
            flow_bytes = npu_account_transfer(replay, core, instruction, replay->routes.trees[group].hops);
        } else {
            npu_account_copy(replay, core, instruction);
        }
    }
    return flow_bytes;
}

static npu_status start_group(npu_replay *replay, uint32_t group) {
    const npu_program *program = replay->program;
    uint32_t first = program->members[program->first_member[group]].stream;
    double setup_ns = 0;
    for (uint64_t i = program->first_member[group]; i < end_of_engines(program, group); ++i) {
        uint32_t stream = program->members[i].stream, core = program->streams[stream].core;
        npu_account_state(replay, core, 1, -is_load(program, group));
        replay->streams[stream].start_ns = replay->now_ns;
        setup_ns = max(setup_ns, npu_setup_ns(&program->cores[core]));
    }
    npu_stream_state *state = &replay->streams[first];
    state->group = group;
    state->route = program->path_count + group;
    state->flow_bytes = account_members(replay, group);
    double dram_ns = is_load(program, group) ? program->machine->dram_latency_ns : 0;
    return npu_add_event(replay, setup_ns + replay->routes.trees[group].latency_ns + dram_ns, NPU_EVENT_FLOW, first);
}

npu_status npu_join_group(npu_replay *replay, uint32_t stream, uint32_t group) {
    const npu_program *program = replay->program;
    if (!is_load(program, group)) {
        return start_group(replay, group);
    }
    npu_account_state(replay, program->streams[stream].core, 0, 1);
    uint64_t members = program->first_member[group + 1] - program->first_member[group];
    return ++replay->arrived[group] < members ? NPU_OK : start_group(replay, group);
}

npu_status npu_finish_group(npu_replay *replay, uint32_t group) {
    const npu_program *program = replay->program;
    npu_status status = NPU_OK;
    if (is_load(program, group)) {
        for (uint64_t i = program->first_member[group]; i < program->first_member[group + 1] && status == NPU_OK; ++i) {
            status = npu_finish_instruction(replay, program->members[i].stream);
        }
        return status;
    }
    uint32_t stream = program->members[program->first_member[group]].stream;
    for (uint64_t i = program->first_member[group] + 1; i < program->first_member[group + 1]; ++i) {
        npu_account_span(replay, stream);
        ++replay->streams[stream].next;
    }
    return npu_finish_instruction(replay, stream); /* the last of the chain */
}
