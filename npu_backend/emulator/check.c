/* The checked run: every instruction's bytes are looked up in the shadow before it executes.
 *
 * It follows one fixed order that the semaphores allow. Clocks do not depend on the order, and while no race has been
 * found every order touches each byte alike, so a program with an error is refused whatever the order.
 */
#include "check.h"

#include <stdlib.h>

typedef struct {
    npu_program *program;
    npu_order order;
    npu_shadow shadow;
    npu_scratch scratch;
    uint32_t level;
    npu_message *message;
} checked_run;

static npu_status run_turn(checked_run *run, uint32_t s, uint64_t *next, uint32_t *row, uint64_t end) {
    const npu_stream *stream = &run->program->streams[s];
    npu_status status = NPU_OK;
    for (; *next < end && status == NPU_OK; ++*next) {
        const npu_instruction *instruction = stream->instructions[*next];
        if (instruction->opcode == NPU_OP_WAIT) {
            ++*row;
        } else if (instruction->opcode != NPU_OP_SIGNAL) {
            const uint32_t *clock = run->order.rows[s] + (size_t)*row * run->order.streams;
            status = npu_shadow_touch(&run->shadow, s, *next, clock, run->message);
            if (status == NPU_OK) {
                status = npu_execute_step(run->program, stream, instruction, &run->scratch, run->level, run->message);
            }
        }
    }
    return status;
}

static npu_status run_streams(checked_run *run) {
    uint64_t *next = calloc((size_t)run->order.streams + 1, sizeof *next);
    uint32_t *rows = calloc((size_t)run->order.streams + 1, sizeof *rows);
    npu_status status = NPU_OK;
    if (next == NULL || rows == NULL) {
        status = npu_fail(run->message, NPU_OUT_OF_MEMORY, "no memory for the checked run");
    }
    for (uint64_t turn = 0; turn < run->order.turns && status == NPU_OK; ++turn) {
        uint32_t s = run->order.order[2 * turn];
        status = run_turn(run, s, &next[s], &rows[s], run->order.order[2 * turn + 1]);
    }
    free(next);
    free(rows);
    return status;
}

static npu_status run_with_host(checked_run *run) {
    const npu_program *program = run->program;
    for (uint32_t i = 0; i < program->port_count; ++i) {
        if (!program->ports[i].is_output) {
            npu_shadow_host_writes(&run->shadow, &program->ports[i]);
        }
    }
    npu_status status = run_streams(run);
    for (uint32_t i = 0; i < program->port_count && status == NPU_OK; ++i) {
        if (program->ports[i].is_output) {
            status = npu_shadow_host_reads(&run->shadow, &program->ports[i], run->message);
        }
    }
    return status;
}

npu_status npu_interpret_checked(npu_program *program, uint32_t level, npu_message *message) {
    if (program->instruction_count >= NPU_CHECK_MAX_INSTRUCTIONS) {
        return npu_fail(message, NPU_BAD_ARGUMENT, "a checked run takes fewer than %u instructions",
                        NPU_CHECK_MAX_INSTRUCTIONS);
    }
    checked_run run = {.program = program, .level = level, .message = message};
    npu_status status = npu_order_build(program, &run.order, message);
    if (status == NPU_OK) {
        status = npu_shadow_build(program, &run.shadow, message);
    }
    if (status == NPU_OK) {
        status = run_with_host(&run);
    }
    npu_scratch_release(&run.scratch);
    npu_shadow_release(&run.shadow);
    npu_order_release(&run.order);
    return status;
}
