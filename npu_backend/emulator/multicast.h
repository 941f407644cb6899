/* LOAD_MULTICAST and SEND_MULTICAST: what they mean is a LOAD or a SEND each; on the clock a group is one transfer. */
#ifndef NPU_MULTICAST_H
#define NPU_MULTICAST_H

#include "internal.h"

_Static_assert(offsetof(npu_load_multicast, group) == sizeof(npu_load), "a LOAD, then the group");
_Static_assert(offsetof(npu_send_multicast, group) == sizeof(npu_send), "a SEND, then the group");

/* The opcode of what an instruction means, whose fields it begins with. */
static inline uint32_t npu_plain_opcode(const npu_instruction *instruction) {
    switch (instruction->opcode) {
    case NPU_OP_LOAD_MULTICAST: return NPU_OP_LOAD;
    case NPU_OP_SEND_MULTICAST: return NPU_OP_SEND;
    default: return instruction->opcode;
    }
}

/* The multicast group, NPU_NOBODY of all other instructions. */
static inline uint32_t npu_group_of(const npu_instruction *instruction) {
    switch (instruction->opcode) {
    case NPU_OP_LOAD_MULTICAST: return ((const npu_load_multicast *)(const void *)instruction)->group;
    case NPU_OP_SEND_MULTICAST: return ((const npu_send_multicast *)(const void *)instruction)->group;
    default: return NPU_NOBODY;
    }
}

static inline const npu_instruction *npu_member_instruction(const npu_program *program, const npu_member *member) {
    return program->streams[member->stream].instructions[member->position];
}

#endif
