/* Validation of the records, and the streams' instructions found in the code. */
#include "internal.h"

#include <stdlib.h>

#define MAX_CORES 4096u
#define MAX_SEMAPHORES (1u << 24)
#define MAX_GROUPS (1u << 24)
#define MAX_DRAM_BYTES (1ull << 36)
#define MAX_SPM_BYTES (1ull << 32) /* instructions address scratchpads with 32 bits */
#define MAX_LANES (1u << 20)
#define MIN_POSITIVE 1e-9 /* physical figures outside these bounds would overflow the clock */
#define MAX_POSITIVE 1e12

static const uint32_t instruction_bytes[] = {
#define ROW(name, lower, engine) [NPU_OP_##name] = sizeof(npu_##lower),
    NPU_OPCODES(ROW)
#undef ROW
};

static int32_t engine_of(uint32_t opcode) {
    static const int8_t engines[] = {
#define ROW(name, lower, engine) [NPU_OP_##name] = engine,
        NPU_OPCODES(ROW)
#undef ROW
    };
    return engines[opcode];
}

static int positive(double value) {
    return value >= MIN_POSITIVE && value <= MAX_POSITIVE;
}

static int zero_or_positive(double value) {
    return value == 0.0 || positive(value);
}

static int none_negative(const double *values, int count) {
    for (int i = 0; i < count; ++i) {
        if (!zero_or_positive(values[i])) {
            return 0;
        }
    }
    return 1;
}

static npu_status validate_machine(const npu_program *program, npu_message *message) {
    const npu_record_machine *machine = program->machine;
    if (machine->core_count == 0 || machine->core_count > MAX_CORES || machine->semaphore_count > MAX_SEMAPHORES ||
        machine->multicast_group_count > MAX_GROUPS || machine->dram_bytes > MAX_DRAM_BYTES ||
        machine->burst_bytes == 0) {
        return npu_fail(message, NPU_BAD_PROGRAM,
                        "machine: %u cores, %u semaphores, %u multicast groups, %llu bytes of DRAM, bursts of %u bytes "
                        "are out of range", machine->core_count, machine->semaphore_count,
                        machine->multicast_group_count, (unsigned long long)machine->dram_bytes, machine->burst_bytes);
    }
    const double figures[] = {machine->dram_latency_ns, machine->signal_ns, machine->cross_signal_ns,
                              machine->vector_pj, machine->spm_pj_per_byte, machine->network_pj_per_byte_hop,
                              machine->dram_pj_per_byte, machine->static_mw};
    if (!none_negative(figures, (int)(sizeof figures / sizeof *figures)) ||
        !none_negative(machine->mac_pj, NPU_TYPE_COUNT)) {
        return npu_fail(message, NPU_BAD_PROGRAM, "machine: a latency or energy is not finite or negative");
    }
    if (program->constants_bytes > machine->dram_bytes) {
        return npu_fail(message, NPU_BAD_PROGRAM, "%llu bytes of constants do not fit in a DRAM image of %llu bytes",
                        (unsigned long long)program->constants_bytes, (unsigned long long)machine->dram_bytes);
    }
    return NPU_OK;
}

static npu_status validate_core(const npu_program *program, uint32_t index, npu_message *message) {
    const npu_record_core *core = &program->cores[index];
    const uint32_t lanes[] = {core->lanes_input_channels, core->lanes_output_channels, core->lanes_pixels,
                              core->depthwise_channels, core->depthwise_pixels, core->vector_lanes, core->spm_banks};
    for (size_t i = 0; i < sizeof lanes / sizeof *lanes; ++i) {
        if (lanes[i] == 0 || lanes[i] > MAX_LANES) {
            return npu_fail(message, NPU_BAD_PROGRAM, "core %u: %u lanes or banks, not in 1..%u", index, lanes[i],
                            MAX_LANES);
        }
    }
    if (!positive(core->clock_mhz) || !none_negative(core->rate, NPU_TYPE_COUNT)) {
        return npu_fail(message, NPU_BAD_PROGRAM, "core %u: clock %g MHz or a rate is not finite or negative", index,
                        core->clock_mhz);
    }
    if (core->folds_kernel_width > 1) {
        return npu_fail(message, NPU_BAD_PROGRAM, "core %u: folds_kernel_width is %u, not 0 or 1", index,
                        core->folds_kernel_width);
    }
    if (core->spm_bytes > MAX_SPM_BYTES) {
        return npu_fail(message, NPU_BAD_PROGRAM, "core %u: a scratchpad of %llu bytes is beyond 32-bit addresses",
                        index, (unsigned long long)core->spm_bytes);
    }
    return NPU_OK;
}

static int name_is_valid(const npu_program *program, uint32_t name) {
    return name < program->names_bytes;
}

static npu_status validate_path(const npu_program *program, uint32_t index, npu_message *message) {
    const npu_record_path *path = &program->paths[index];
    uint32_t cores = program->machine->core_count;
    int nodes_exist = (path->source < cores || path->source == NPU_DRAM_NODE) &&
                      (path->destination < cores || path->destination == NPU_DRAM_NODE);
    int steps_exist = path->first_step <= program->path_step_count &&
                      path->step_count <= program->path_step_count - path->first_step;
    if (!nodes_exist || !steps_exist || !zero_or_positive(path->latency_ns)) {
        return npu_fail(message, NPU_BAD_PROGRAM, "path %u: from %u to %u by %u steps from %u, latency %g ns, is invalid",
                        index, path->source, path->destination, path->step_count, path->first_step, path->latency_ns);
    }
    return NPU_OK;
}

static npu_status validate_network(const npu_program *program, npu_message *message) {
    for (uint32_t i = 0; i < program->resource_count; ++i) {
        const npu_record_resource *resource = &program->resources[i];
        if (!positive(resource->bytes_per_ns) || !name_is_valid(program, resource->name) || resource->is_link > 1) {
            return npu_fail(message, NPU_BAD_PROGRAM, "resource %u: %g bytes/ns, its name or is_link %u is invalid", i,
                            resource->bytes_per_ns, resource->is_link);
        }
    }
    for (uint32_t i = 0; i < program->path_step_count; ++i) {
        if (program->path_steps[i].resource >= program->resource_count) {
            return npu_fail(message, NPU_BAD_PROGRAM, "path step %u: resource %u of %u", i,
                            program->path_steps[i].resource, program->resource_count);
        }
    }
    for (uint32_t i = 0; i < program->path_count; ++i) {
        npu_status status = validate_path(program, i, message);
        if (status != NPU_OK) {
            return status;
        }
    }
    return NPU_OK;
}

static int axes_are_permuted(const npu_record_port *port) {
    uint32_t seen = 0;
    for (uint32_t i = 0; i < port->rank; ++i) {
        if (port->storage_axes[i] >= port->rank) {
            return 0;
        }
        seen |= 1u << port->storage_axes[i];
    }
    return seen == (1u << port->rank) - 1;
}

static npu_status validate_port(const npu_program *program, uint32_t index, npu_message *message) {
    const npu_record_port *port = &program->ports[index];
    if (!name_is_valid(program, port->name) || port->is_output > 1 || port->data_type >= NPU_TYPE_COUNT ||
        port->rank > NPU_MAX_RANK || !axes_are_permuted(port)) {
        return npu_fail(message, NPU_BAD_PROGRAM, "port %u: name, direction, data type %u, rank %u or axes are invalid",
                        index, port->data_type, port->rank);
    }
    const char *name = program->names + port->name;
    uint64_t bytes = npu_port_bytes(port), dram_bytes = program->machine->dram_bytes;
    if (bytes == 0 || bytes > dram_bytes || port->dram > dram_bytes - bytes) {
        return npu_fail(message, NPU_BAD_PROGRAM, "port %.100s: dram 0x%llx+%llu > %llu", name,
                        (unsigned long long)port->dram, (unsigned long long)bytes, (unsigned long long)dram_bytes);
    }
    int overlaps_constants = port->dram < program->constants_bytes;
    if (overlaps_constants && (!port->is_output || port->dram + bytes > program->constants_bytes)) {
        return npu_fail(message, NPU_BAD_PROGRAM, "port %.100s: dram 0x%llx lies in the constants", name,
                        (unsigned long long)port->dram);
    }
    return NPU_OK;
}

npu_status npu_validate_records(const npu_program *program, npu_message *message) {
    npu_status status = validate_machine(program, message);
    if (status == NPU_OK && program->names_bytes > 0 && program->names[program->names_bytes - 1] != '\0') {
        status = npu_fail(message, NPU_BAD_PROGRAM, "section NAMES does not end in a zero byte");
    }
    for (uint32_t i = 0; status == NPU_OK && i < program->machine->core_count; ++i) {
        status = validate_core(program, i, message);
    }
    if (status == NPU_OK) {
        status = validate_network(program, message);
    }
    for (uint32_t i = 0; status == NPU_OK && i < program->port_count; ++i) {
        status = validate_port(program, i, message);
    }
    for (uint32_t i = 0; status == NPU_OK && i < program->origin_count; ++i) {
        if (!name_is_valid(program, program->origins[i].name)) {
            status = npu_fail(message, NPU_BAD_PROGRAM, "origin %u: its name is outside NAMES", i);
        }
    }
    for (uint32_t i = 0; status == NPU_OK && i < program->kernel_count; ++i) {
        if (!name_is_valid(program, program->kernels[i].name)) {
            status = npu_fail(message, NPU_BAD_PROGRAM, "kernel %u: its name is outside NAMES", i);
        }
    }
    return status;
}

/* Checks the frame of the instruction at an offset: known opcode, exact size, the stream's engine. */
static npu_status check_instruction(const npu_program *program, const npu_stream *stream, uint64_t offset,
                                    npu_message *message) {
    const npu_instruction *head = (const npu_instruction *)(const void *)(stream->code + offset);
    size_t opcodes = sizeof instruction_bytes / sizeof *instruction_bytes;
    uint32_t bytes = head->opcode < opcodes ? instruction_bytes[head->opcode] : 0;
    if (bytes == 0 || head->words * 8u != bytes || bytes > stream->bytes - offset) {
        return npu_fail(message, NPU_BAD_PROGRAM, "core %u %s 0x%llx: opcode %u of %u bytes is not in the table",
                        stream->core, npu_engine_name(stream->engine), (unsigned long long)offset, head->opcode,
                        head->words * 8u);
    }
    int32_t engine = engine_of(head->opcode);
    if (engine >= 0 && (uint32_t)engine != stream->engine) {
        return npu_fail(message, NPU_BAD_PROGRAM, "core %u %s 0x%llx %s: belongs to the %s engine", stream->core,
                        npu_engine_name(stream->engine), (unsigned long long)offset, npu_opcode_name(head->opcode),
                        npu_engine_name((uint32_t)engine));
    }
    if (head->origin >= program->origin_count) {
        return npu_fail(message, NPU_BAD_PROGRAM, "core %u %s 0x%llx %s: origin %u of %u", stream->core,
                        npu_engine_name(stream->engine), (unsigned long long)offset, npu_opcode_name(head->opcode),
                        head->origin, program->origin_count);
    }
    return NPU_OK;
}

static npu_status index_stream(npu_program *program, npu_stream *stream, npu_message *message) {
    uint64_t room = stream->bytes / sizeof(npu_wait); /* the smallest instruction */
    stream->instructions = calloc((size_t)room + 1, sizeof *stream->instructions);
    if (stream->instructions == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for a stream of %llu bytes",
                        (unsigned long long)stream->bytes);
    }
    stream->first = program->instruction_count;
    for (uint64_t offset = 0; offset < stream->bytes;) {
        npu_status status = check_instruction(program, stream, offset, message);
        if (status != NPU_OK) {
            return status;
        }
        const npu_instruction *head = (const npu_instruction *)(const void *)(stream->code + offset);
        stream->instructions[stream->count++] = head;
        status = npu_validate_instruction(program, stream, head, message);
        if (status != NPU_OK) {
            return status;
        }
        offset += head->words * 8u;
    }
    program->instruction_count += stream->count;
    return NPU_OK;
}

/* Streams come in order of core and engine, and so do their bytes: none is there twice, none shares code. */
static npu_status check_stream(const npu_program *program, const npu_record_stream *records, uint32_t index,
                               npu_message *message) {
    const npu_record_stream *record = &records[index];
    uint64_t start = 0;
    int in_order = 1;
    if (index > 0) {
        const npu_record_stream *before = &records[index - 1];
        start = before->offset + before->bytes;
        in_order = before->core < record->core || (before->core == record->core && before->engine < record->engine);
    }
    if (!in_order || record->core >= program->machine->core_count || record->engine >= NPU_ENGINE_COUNT) {
        return npu_fail(message, NPU_BAD_PROGRAM, "stream %u: core %u, engine %u is out of order or does not exist",
                        index, record->core, record->engine);
    }
    if (record->offset < start || record->offset % 8 != 0 || record->bytes % 8 != 0 ||
        record->offset > program->code_bytes || record->bytes > program->code_bytes - record->offset) {
        return npu_fail(message, NPU_BAD_PROGRAM, "stream %u: %llu bytes at %llu do not lie in %llu bytes of code",
                        index, (unsigned long long)record->bytes, (unsigned long long)record->offset,
                        (unsigned long long)program->code_bytes);
    }
    return NPU_OK;
}

npu_status npu_build_streams(npu_program *program, const npu_record_stream *records, uint32_t count,
                             npu_message *message) {
    program->streams = calloc((size_t)count + 1, sizeof *program->streams);
    program->spm_peak_bytes = calloc(program->machine->core_count, sizeof *program->spm_peak_bytes);
    if (program->streams == NULL || program->spm_peak_bytes == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for %u streams", count);
    }
    for (uint32_t i = 0; i < count; ++i) {
        npu_status status = check_stream(program, records, i, message);
        if (status != NPU_OK) {
            return status;
        }
        npu_stream *stream = &program->streams[program->stream_count++];
        *stream = (npu_stream){records[i].core, records[i].engine, program->code + records[i].offset, records[i].bytes,
                               NULL, 0, 0};
        status = index_stream(program, stream, message);
        if (status != NPU_OK) {
            return status;
        }
    }
    return NPU_OK;
}
