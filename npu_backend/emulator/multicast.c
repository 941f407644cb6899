/* The groups of multicast instructions: found when a program is opened, and refused unless each is one transfer. */
#include "multicast.h"

#include <stdlib.h>
#include <string.h>

static uint32_t path_of(const npu_program *program, uint32_t stream, const npu_instruction *instruction) {
    uint32_t core = program->streams[stream].core;
    return npu_plain_opcode(instruction) == NPU_OP_SEND
               ? npu_path(program, core, ((const npu_send *)(const void *)instruction)->destination_core)
               : npu_path(program, NPU_DRAM_NODE, core);
}

/* Counting sort by group: the first pass (members NULL) counts, the second fills. */
static void scan_members(npu_program *program) {
    for (uint32_t s = 0; s < program->stream_count; ++s) {
        for (uint64_t i = 0; i < program->streams[s].count; ++i) {
            const npu_instruction *instruction = program->streams[s].instructions[i];
            uint32_t group = npu_group_of(instruction);
            if (group == NPU_NOBODY) {
                continue;
            }
            if (program->members == NULL) {
                ++program->first_member[group + 1];
            } else {
                program->members[program->first_member[group]++] =
                    (npu_member){s, path_of(program, s, instruction), i};
            }
        }
    }
}

static npu_status refuse(const npu_program *program, const npu_member *member, npu_message *message,
                         const char *reason) {
    const npu_instruction *instruction = npu_member_instruction(program, member);
    char text[NPU_MESSAGE_BYTES / 2];
    npu_describe(program, &program->streams[member->stream], instruction, text, sizeof text);
    return npu_fail(message, NPU_BAD_PROGRAM, "%s: multicast group %u %s", text, npu_group_of(instruction), reason);
}

/* Both begin with the source's address and the runs, and a LOAD_MULTICAST's strides of DRAM follow. */
static int loads_the_same(const void *first, const void *second) {
    const npu_load_multicast *a = first, *b = second;
    return a->dram == b->dram && a->run_bytes == b->run_bytes && !memcmp(a->counts, b->counts, sizeof a->counts) &&
           !memcmp(a->dram_strides, b->dram_strides, sizeof a->dram_strides);
}

static int sends_the_same(const void *first, const void *second) {
    const npu_send_multicast *a = first, *b = second;
    return a->spm == b->spm && a->run_bytes == b->run_bytes && !memcmp(a->counts, b->counts, sizeof a->counts) &&
           !memcmp(a->spm_strides, b->spm_strides, sizeof a->spm_strides);
}

static const char *wrong_load(const npu_program *program, const npu_member *before, const npu_member *member) {
    if (member->stream == before->stream) {
        return "is used twice by this core";
    }
    return loads_the_same(npu_member_instruction(program, before), npu_member_instruction(program, member))
               ? NULL
               : "loads other bytes of DRAM on another core";
}

static const char *wrong_send(const npu_program *program, const npu_member *first, const npu_member *member) {
    if (member->stream != first->stream) {
        return "is used by the network stream of another core too";
    }
    const npu_instruction *own = npu_member_instruction(program, member);
    if (npu_group_of(program->streams[member->stream].instructions[member->position - 1]) != npu_group_of(own)) {
        return "is split up in the stream";
    }
    if (!sends_the_same(npu_member_instruction(program, first), own)) {
        return "sends other bytes before";
    }
    for (const npu_member *other = first; other < member; ++other) {
        const npu_send_multicast *a = (const void *)npu_member_instruction(program, other), *b = (const void *)own;
        if (a->destination_core == b->destination_core) {
            return "sends to this core before";
        }
    }
    return NULL;
}

static npu_status check_group(const npu_program *program, uint32_t group, npu_message *message) {
    const npu_member *first = &program->members[program->first_member[group]];
    uint64_t count = program->first_member[group + 1] - program->first_member[group];
    if (count > program->machine->core_count) {
        return npu_fail(message, NPU_BAD_PROGRAM, "multicast group %u has %llu transfers on %u cores", group,
                        (unsigned long long)count, program->machine->core_count);
    }
    for (const npu_member *member = first + 1; member < first + count; ++member) {
        uint32_t opcode = npu_member_instruction(program, member)->opcode;
        const char *reason = opcode != npu_member_instruction(program, first)->opcode ? "both loads and sends"
                             : opcode == NPU_OP_LOAD_MULTICAST ? wrong_load(program, member - 1, member)
                                                               : wrong_send(program, first, member);
        if (reason != NULL) {
            return refuse(program, member, message, reason);
        }
    }
    return NPU_OK;
}

npu_status npu_build_groups(npu_program *program, npu_message *message) {
    uint32_t groups = program->machine->multicast_group_count;
    program->first_member = calloc((size_t)groups + 1, sizeof *program->first_member);
    if (program->first_member == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for %u multicast groups", groups);
    }
    scan_members(program);
    for (uint32_t group = 0; group < groups; ++group) {
        program->first_member[group + 1] += program->first_member[group];
    }
    program->members = calloc((size_t)program->first_member[groups] + 1, sizeof *program->members);
    if (program->members == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for %u multicast groups", groups);
    }
    scan_members(program);
    memmove(program->first_member + 1, program->first_member, groups * sizeof *program->first_member);
    program->first_member[0] = 0; /* filling moved each to its end */
    npu_status status = NPU_OK;
    for (uint32_t group = 0; group < groups && status == NPU_OK; ++group) {
        status = check_group(program, group, message);
    }
    return status;
}
