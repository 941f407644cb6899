/* The public functions beside npu_open: handles, memories, one run. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64u
#define MAX_THREADS 1024u

uint32_t npu_abi_version(void) {
    return NPU_ABI_VERSION;
}

uint8_t *npu_scratch_reserve(npu_scratch *scratch, size_t bytes) {
    if (bytes <= scratch->bytes) {
        return scratch->data;
    }
    if (bytes > SIZE_MAX / 2) {
        return NULL;
    }
    size_t grown = bytes + bytes / 2;
    grown += (ALIGNMENT - grown % ALIGNMENT) % ALIGNMENT;
    uint8_t *data = aligned_alloc(ALIGNMENT, grown);
    if (data == NULL) {
        return NULL;
    }
    npu_scratch_release(scratch);
    scratch->data = data;
    scratch->bytes = grown;
    return data;
}

void npu_scratch_release(npu_scratch *scratch) {
    free(scratch->data);
    scratch->data = NULL;
    scratch->bytes = 0;
}

static void release_memories(npu_program *program) {
    for (uint32_t core = 0; program->spm != NULL && core < program->machine->core_count; ++core) {
        free(program->spm[core]);
    }
    free(program->spm);
    free(program->dram);
    program->spm = NULL;
    program->dram = NULL;
}

void npu_close(npu_program *program) {
    if (program == NULL) {
        return;
    }
    release_memories(program);
    for (uint32_t s = 0; s < program->stream_count; ++s) {
        free(program->streams[s].instructions);
    }
    free(program->streams);
    free(program->members);
    free(program->first_member);
    free(program->path_table);
    free(program->path_is_used);
    free(program->spm_peak_bytes);
    free(program->functions);
    free(program->file);
    free(program);
}

uint64_t npu_instruction_count(const npu_program *program) {
    return program->instruction_count;
}

uint32_t npu_core_count(const npu_program *program) {
    return program->machine->core_count;
}

uint32_t npu_resource_count(const npu_program *program) {
    return program->resource_count;
}

uint64_t npu_spm_peak_bytes(const npu_program *program, uint32_t core) {
    return core < program->machine->core_count ? program->spm_peak_bytes[core] : 0;
}

uint32_t npu_port_count(const npu_program *program) {
    return program->port_count;
}

npu_status npu_port(const npu_program *program, uint32_t index, npu_port_info *info) {
    if (index >= program->port_count) {
        return NPU_BAD_ARGUMENT;
    }
    const npu_record_port *port = &program->ports[index];
    *info = (npu_port_info){program->names + port->name, port->is_output, port->data_type, port->rank, {0},
                            npu_port_bytes(port)};
    memcpy(info->shape, port->host_shape, port->rank * sizeof *info->shape);
    return NPU_OK;
}

/* Zeroed and 64-byte aligned. */
static uint8_t *allocate(uint64_t bytes) {
    if (bytes > SIZE_MAX - 2 * ALIGNMENT) {
        return NULL;
    }
    size_t padded = ((size_t)bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    uint8_t *data = aligned_alloc(ALIGNMENT, padded);
    if (data != NULL) {
        memset(data, 0, padded);
    }
    return data;
}

static npu_status allocate_memories(npu_program *program, npu_message *message) {
    if (program->spm != NULL) {
        return NPU_OK;
    }
    uint32_t cores = program->machine->core_count;
    uint64_t dram_bytes = program->machine->dram_bytes - program->constants_bytes;
    program->spm = calloc(cores, sizeof *program->spm);
    program->dram = dram_bytes < SIZE_MAX ? calloc(1, (size_t)dram_bytes + 1) : NULL; /* fresh pages are zero */
    int complete = program->spm != NULL && program->dram != NULL;
    for (uint32_t core = 0; complete && core < cores; ++core) {
        program->spm[core] = allocate(program->spm_peak_bytes[core] + NPU_SPM_SLACK_BYTES);
        complete = program->spm[core] != NULL;
    }
    if (!complete) {
        release_memories(program);
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for a DRAM image of %llu bytes and %u scratchpads",
                        (unsigned long long)dram_bytes, cores);
    }
    return NPU_OK;
}

static npu_status check_arguments(const npu_program *program, const npu_run_options *options,
                                  const void *const *inputs, void *const *outputs, npu_message *message) {
    if (program == NULL || options == NULL || options->bytes != sizeof *options) {
        return npu_fail(message, NPU_BAD_ARGUMENT, "npu_run: no program, or options of another version");
    }
    if (options->threads == 0 || options->threads > MAX_THREADS || options->check > 1 || options->kernels > 3) {
        return npu_fail(message, NPU_BAD_ARGUMENT, "npu_run: threads %u (1..%u), check %u (0, 1), kernels %u (0..3)",
                        options->threads, MAX_THREADS, options->check, options->kernels);
    }
    uint32_t counts[2] = {0, 0};
    for (uint32_t i = 0; i < program->port_count; ++i) {
        uint32_t is_output = program->ports[i].is_output, index = counts[is_output]++;
        const void *array = is_output ? (outputs ? outputs[index] : NULL) : (inputs ? inputs[index] : NULL);
        if (array == NULL) {
            return npu_fail(message, NPU_BAD_ARGUMENT, "npu_run: no array for %s %.100s",
                            is_output ? "output" : "input", program->names + program->ports[i].name);
        }
    }
    return NPU_OK;
}

static void copy_inputs(const npu_program *program, const void *const *inputs) {
    uint32_t index = 0;
    for (uint32_t i = 0; i < program->port_count; ++i) {
        if (!program->ports[i].is_output) {
            npu_port_write(program, &program->ports[i], inputs[index++]);
        }
    }
}

static void copy_outputs(const npu_program *program, void *const *outputs) {
    uint32_t index = 0;
    for (uint32_t i = 0; i < program->port_count; ++i) {
        if (program->ports[i].is_output) {
            npu_port_read(program, &program->ports[i], outputs[index++]);
        }
    }
}

npu_status npu_run(npu_program *program, const npu_run_options *options, const void *const *inputs,
                   void *const *outputs, npu_message *message) {
    npu_status status = check_arguments(program, options, inputs, outputs, message);
    if (status == NPU_OK) {
        status = allocate_memories(program, message);
    }
    if (status != NPU_OK) {
        return status;
    }
    uint32_t level = npu_kernel_level(options->kernels);
    copy_inputs(program, inputs);
    status = options->check ? npu_interpret_checked(program, level, message)
                            : npu_interpret(program, options->threads, level, message);
    if (status == NPU_OK) {
        copy_outputs(program, outputs);
    }
    return status;
}
