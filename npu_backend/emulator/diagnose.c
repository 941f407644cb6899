/* Messages: every one names the core, the engine, the byte in the stream, the opcode and the ONNX node. */
#include "multicast.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DESCRIPTION_BYTES 256
#define NAME_CHARACTERS 120

void npu_say(npu_message *message, const char *format, ...) {
    if (message == NULL) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message->text, sizeof message->text, format, arguments);
    va_end(arguments);
}

npu_status npu_fail(npu_message *message, npu_status status, const char *format, ...) {
    if (message != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(message->text, sizeof message->text, format, arguments);
        va_end(arguments);
    }
    return status;
}

const char *npu_engine_name(uint32_t engine) {
    static const char *const names[NPU_ENGINE_COUNT] = {"load", "store", "network", "matrix", "vector"};
    return engine < NPU_ENGINE_COUNT ? names[engine] : "unknown engine";
}

const char *npu_opcode_name(uint32_t opcode) {
    switch (opcode) {
#define ROW(name, lower, engine) \
    case NPU_OP_##name:          \
        return #name;
        NPU_OPCODES(ROW)
#undef ROW
    default:
        return "unknown opcode";
    }
}

const char *npu_origin_name(const npu_program *program, uint32_t origin) {
    return origin < program->origin_count ? program->names + program->origins[origin].name : "none";
}

void npu_describe(const npu_program *program, const npu_stream *stream, const npu_instruction *instruction, char *text,
                  size_t bytes) {
    size_t offset = (size_t)((const uint8_t *)instruction - stream->code);
    snprintf(text, bytes, "core %u %s 0x%zx %s (node %.*s)", stream->core, npu_engine_name(stream->engine), offset,
             npu_opcode_name(instruction->opcode), NAME_CHARACTERS, npu_origin_name(program, instruction->origin));
}

/* Appends a line unless it does not fit whole with room for a closing remark; 0 when it did not fit. */
static int append(npu_message *message, const char *line) {
    size_t used = strlen(message->text), needed = strlen(line);
    if (used + needed + 40 > sizeof message->text) {
        return 0;
    }
    memcpy(message->text + used, line, needed + 1);
    return 1;
}

static uint32_t semaphore_of(const npu_instruction *instruction) {
    return ((const npu_signal *)instruction)->semaphore;
}

/* The next SIGNAL of a semaphore that has not happened yet, in the first stream that has one. */
static const npu_instruction *next_signal(const npu_program *program, const uint64_t *next, uint32_t semaphore,
                                          const npu_stream **signaller) {
    for (uint32_t s = 0; s < program->stream_count; ++s) {
        const npu_stream *stream = &program->streams[s];
        for (uint64_t i = next[s]; i < stream->count; ++i) {
            const npu_instruction *instruction = stream->instructions[i];
            if (instruction->opcode == NPU_OP_SIGNAL && semaphore_of(instruction) == semaphore) {
                *signaller = stream;
                return instruction;
            }
        }
    }
    return NULL;
}

static void describe_wait(const npu_program *program, const uint64_t *next, uint32_t s, char *line, size_t bytes) {
    const npu_stream *stream = &program->streams[s], *signaller = NULL;
    const npu_instruction *wait = stream->instructions[next[s]];
    char waiter[DESCRIPTION_BYTES], other[DESCRIPTION_BYTES] = "nobody: no SIGNAL of it is left";
    npu_describe(program, stream, wait, waiter, sizeof waiter);
    const npu_instruction *signal = next_signal(program, next, semaphore_of(wait), &signaller);
    if (signal != NULL) {
        npu_describe(program, signaller, signal, other, sizeof other);
    }
    snprintf(line, bytes, "\n  %s waits on semaphore %u for %s", waiter, semaphore_of(wait), other);
}

/* The first of a group's instructions that the streams have not come to. */
static void describe_rendezvous(const npu_program *program, const uint64_t *next, uint32_t s, char *line, size_t bytes) {
    const npu_stream *stream = &program->streams[s];
    const npu_instruction *own = stream->instructions[next[s]];
    uint32_t group = npu_group_of(own);
    char waiter[DESCRIPTION_BYTES], other[DESCRIPTION_BYTES] = "nobody";
    npu_describe(program, stream, own, waiter, sizeof waiter);
    for (uint64_t i = program->first_member[group]; i < program->first_member[group + 1]; ++i) {
        const npu_member *member = &program->members[i];
        if (next[member->stream] < member->position) {
            const npu_stream *its = &program->streams[member->stream];
            npu_describe(program, its, its->instructions[member->position], other, sizeof other);
            break;
        }
    }
    snprintf(line, bytes, "\n  %s of multicast group %u waits for %s", waiter, group, other);
}

npu_status npu_say_deadlock(const npu_program *program, const uint64_t *next, npu_message *message) {
    uint32_t waiting = 0, left_out = 0;
    for (uint32_t s = 0; s < program->stream_count; ++s) {
        waiting += next[s] < program->streams[s].count;
    }
    npu_say(message, "deadlock: %u of %u streams wait and none can go on", waiting, program->stream_count);
    for (uint32_t s = 0; message != NULL && s < program->stream_count; ++s) {
        if (next[s] < program->streams[s].count) {
            char line[2 * DESCRIPTION_BYTES + 64];
            int meets = npu_group_of(program->streams[s].instructions[next[s]]) != NPU_NOBODY;
            (meets ? describe_rendezvous : describe_wait)(program, next, s, line, sizeof line);
            left_out += left_out > 0 || !append(message, line);
        }
    }
    if (left_out > 0) {
        char line[40];
        snprintf(line, sizeof line, "\n  and %u more", left_out);
        size_t used = strlen(message->text);
        snprintf(message->text + used, sizeof message->text - used, "%s", line);
    }
    return NPU_DEADLOCK;
}

/* "core 0 load 0x40 LOAD (node a)" of the first and the number of all instructions of an opcode on a semaphore. */
static uint64_t find_users(const npu_program *program, uint32_t opcode, uint32_t semaphore, char *text, size_t bytes) {
    uint64_t found = 0;
    snprintf(text, bytes, "nobody");
    for (uint32_t s = 0; s < program->stream_count; ++s) {
        const npu_stream *stream = &program->streams[s];
        for (uint64_t i = 0; i < stream->count; ++i) {
            const npu_instruction *instruction = stream->instructions[i];
            if (instruction->opcode == opcode && semaphore_of(instruction) == semaphore && found++ == 0) {
                npu_describe(program, stream, instruction, text, bytes);
            }
        }
    }
    return found;
}

npu_status npu_say_imbalance(const npu_program *program, const uint32_t *semaphores, npu_message *message) {
    for (uint32_t semaphore = 0; semaphore < program->machine->semaphore_count; ++semaphore) {
        if (semaphores[semaphore] != 0) {
            char signaller[DESCRIPTION_BYTES], waiter[DESCRIPTION_BYTES];
            uint64_t signals = find_users(program, NPU_OP_SIGNAL, semaphore, signaller, sizeof signaller);
            uint64_t waits = find_users(program, NPU_OP_WAIT, semaphore, waiter, sizeof waiter);
            return npu_fail(message, NPU_IMBALANCE,
                            "semaphore %u is %u at the end, not zero: %llu signals, first by %s; %llu waits, first by %s",
                            semaphore, semaphores[semaphore], (unsigned long long)signals, signaller,
                            (unsigned long long)waits, waiter);
        }
    }
    return NPU_OK;
}
