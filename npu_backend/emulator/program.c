/* Opening a program file: frame, checksum, sections. Any byte string ends in a status and a message. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define FILE_ALIGNMENT 64u
#define CHECKSUM_START 16u
#define MAX_SECTIONS 64u

typedef struct {
    const uint8_t *data;
    uint64_t bytes;
    uint64_t record_bytes; /* 1: plain bytes */
    int present;
} section;

static const struct {
    const char *name;
    uint32_t record_bytes;
} section_kinds[NPU_SECTION_COUNT + 1] = {
    [NPU_SECTION_MACHINE] = {"MACHINE", sizeof(npu_record_machine)},
    [NPU_SECTION_CORE] = {"CORE", sizeof(npu_record_core)},
    [NPU_SECTION_RESOURCE] = {"RESOURCE", sizeof(npu_record_resource)},
    [NPU_SECTION_PATH] = {"PATH", sizeof(npu_record_path)},
    [NPU_SECTION_PATH_STEP] = {"PATH_STEP", sizeof(npu_record_path_step)},
    [NPU_SECTION_PORT] = {"PORT", sizeof(npu_record_port)},
    [NPU_SECTION_STREAM] = {"STREAM", sizeof(npu_record_stream)},
    [NPU_SECTION_CODE] = {"CODE", 1},
    [NPU_SECTION_CONSTANTS] = {"CONSTANTS", 1},
    [NPU_SECTION_ORIGIN] = {"ORIGIN", sizeof(npu_record_origin)},
    [NPU_SECTION_NAMES] = {"NAMES", 1},
    [NPU_SECTION_METADATA] = {"METADATA", 1},
    [NPU_SECTION_KERNEL] = {"KERNEL", sizeof(npu_record_kernel)},
};

static npu_status check_frame(const uint8_t *data, uint64_t bytes, npu_message *message) {
    npu_record_header header;
    if (data == NULL || bytes < sizeof header || memcmp(data, "NPUP", 4) != 0) {
        return npu_fail(message, NPU_BAD_PROGRAM, "not an NPU program: the file does not start with 'NPUP'");
    }
    memcpy(&header, data, sizeof header);
    if (header.format_version != NPU_FORMAT_VERSION || header.isa_version != NPU_ISA_VERSION) {
        return npu_fail(message, NPU_BAD_PROGRAM,
                        "program of format %u, instruction set %u; this emulator reads %u and %u: compile the model again",
                        header.format_version, header.isa_version, NPU_FORMAT_VERSION, NPU_ISA_VERSION);
    }
    if (header.total_bytes != bytes) {
        return npu_fail(message, NPU_BAD_PROGRAM, "program cut short: %llu of %llu bytes; compile it again",
                        (unsigned long long)bytes, (unsigned long long)header.total_bytes);
    }
    if (npu_crc32(data + CHECKSUM_START, bytes - CHECKSUM_START) != header.checksum) {
        return npu_fail(message, NPU_BAD_PROGRAM,
                        "program corrupted: its checksum does not match; compile the model again");
    }
    return NPU_OK;
}

static npu_status copy_file(npu_program *program, const uint8_t *data, uint64_t bytes, npu_message *message) {
    if (bytes > SIZE_MAX - FILE_ALIGNMENT) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "program of %llu bytes", (unsigned long long)bytes);
    }
    size_t padded = ((size_t)bytes + FILE_ALIGNMENT - 1) / FILE_ALIGNMENT * FILE_ALIGNMENT;
    program->file = aligned_alloc(FILE_ALIGNMENT, padded);
    if (program->file == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for a program of %llu bytes", (unsigned long long)bytes);
    }
    memcpy(program->file, data, (size_t)bytes);
    program->file_bytes = bytes;
    return NPU_OK;
}

static npu_status read_section(const npu_program *program, const npu_record_section *row, section *sections,
                               npu_message *message) {
    if (row->kind == 0 || row->kind > NPU_SECTION_COUNT || sections[row->kind].present) {
        return npu_fail(message, NPU_BAD_PROGRAM, "section of kind %u is unknown or occurs twice", row->kind);
    }
    uint32_t record_bytes = section_kinds[row->kind].record_bytes;
    const char *name = section_kinds[row->kind].name;
    if (row->offset % FILE_ALIGNMENT != 0 || row->offset > program->file_bytes ||
        row->bytes > program->file_bytes - row->offset) {
        return npu_fail(message, NPU_BAD_PROGRAM, "section %s: %llu bytes at %llu do not lie in a file of %llu bytes",
                        name, (unsigned long long)row->bytes, (unsigned long long)row->offset,
                        (unsigned long long)program->file_bytes);
    }
    if (record_bytes > 1 && (row->bytes != (uint64_t)row->count * record_bytes)) {
        return npu_fail(message, NPU_BAD_PROGRAM, "section %s: %u records of %u bytes do not make %llu bytes", name,
                        row->count, record_bytes, (unsigned long long)row->bytes);
    }
    sections[row->kind] = (section){program->file + row->offset, row->bytes, record_bytes, 1};
    return NPU_OK;
}

static npu_status read_sections(const npu_program *program, section *sections, npu_message *message) {
    const npu_record_header *header = (const npu_record_header *)(const void *)program->file;
    uint64_t room = (program->file_bytes - sizeof *header) / sizeof(npu_record_section);
    if (header->section_count > MAX_SECTIONS || header->section_count > room) {
        return npu_fail(message, NPU_BAD_PROGRAM, "a table of %u sections does not fit in the file",
                        header->section_count);
    }
    const npu_record_section *rows = (const npu_record_section *)(const void *)(program->file + sizeof *header);
    for (uint32_t i = 0; i < header->section_count; ++i) {
        npu_status status = read_section(program, &rows[i], sections, message);
        if (status != NPU_OK) {
            return status;
        }
    }
    for (uint32_t kind = 1; kind <= NPU_SECTION_COUNT; ++kind) {
        if (!sections[kind].present && kind != NPU_SECTION_METADATA) {
            return npu_fail(message, NPU_BAD_PROGRAM, "section %s is missing", section_kinds[kind].name);
        }
    }
    return NPU_OK;
}

static uint32_t records_in(const section *from) {
    return (uint32_t)(from->bytes / from->record_bytes);
}

static npu_status attach_sections(npu_program *program, const section *sections, npu_message *message) {
    if (records_in(&sections[NPU_SECTION_MACHINE]) != 1) {
        return npu_fail(message, NPU_BAD_PROGRAM, "section MACHINE must hold one record");
    }
    program->machine = (const void *)sections[NPU_SECTION_MACHINE].data;
    program->cores = (const void *)sections[NPU_SECTION_CORE].data;
    if (records_in(&sections[NPU_SECTION_CORE]) != program->machine->core_count) {
        return npu_fail(message, NPU_BAD_PROGRAM, "the machine says %u cores, section CORE holds %u",
                        program->machine->core_count, records_in(&sections[NPU_SECTION_CORE]));
    }
    program->resources = (const void *)sections[NPU_SECTION_RESOURCE].data;
    program->resource_count = records_in(&sections[NPU_SECTION_RESOURCE]);
    program->paths = (const void *)sections[NPU_SECTION_PATH].data;
    program->path_count = records_in(&sections[NPU_SECTION_PATH]);
    program->path_steps = (const void *)sections[NPU_SECTION_PATH_STEP].data;
    program->path_step_count = records_in(&sections[NPU_SECTION_PATH_STEP]);
    program->ports = (const void *)sections[NPU_SECTION_PORT].data;
    program->port_count = records_in(&sections[NPU_SECTION_PORT]);
    program->origins = (const void *)sections[NPU_SECTION_ORIGIN].data;
    program->origin_count = records_in(&sections[NPU_SECTION_ORIGIN]);
    program->kernels = (const void *)sections[NPU_SECTION_KERNEL].data;
    program->kernel_count = records_in(&sections[NPU_SECTION_KERNEL]);
    program->functions = calloc((size_t)program->kernel_count + 1, sizeof *program->functions);
    if (program->functions == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for %u kernels", program->kernel_count);
    }
    program->names = (const char *)sections[NPU_SECTION_NAMES].data;
    program->names_bytes = sections[NPU_SECTION_NAMES].bytes;
    program->constants = sections[NPU_SECTION_CONSTANTS].data;
    program->constants_bytes = sections[NPU_SECTION_CONSTANTS].bytes;
    program->code = sections[NPU_SECTION_CODE].data;
    program->code_bytes = sections[NPU_SECTION_CODE].bytes;
    return NPU_OK;
}

static npu_status open_sections(npu_program *program, npu_message *message) {
    section sections[NPU_SECTION_COUNT + 1] = {{0}};
    npu_status status = read_sections(program, sections, message);
    if (status == NPU_OK) {
        status = attach_sections(program, sections, message);
    }
    if (status == NPU_OK) {
        status = npu_validate_records(program, message);
    }
    if (status == NPU_OK) {
        status = npu_build_paths(program, message);
    }
    if (status == NPU_OK) {
        const section *streams = &sections[NPU_SECTION_STREAM];
        status = npu_build_streams(program, (const void *)streams->data, records_in(streams), message);
    }
    if (status == NPU_OK) {
        status = npu_build_groups(program, message);
    }
    return status;
}

npu_status npu_open(const uint8_t *data, uint64_t bytes, npu_program **program, npu_message *message) {
    if (program == NULL) {
        return npu_fail(message, NPU_BAD_ARGUMENT, "npu_open: program is NULL");
    }
    *program = NULL;
    npu_status status = check_frame(data, bytes, message);
    if (status != NPU_OK) {
        return status;
    }
    npu_program *opened = calloc(1, sizeof *opened);
    if (opened == NULL) {
        return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for a program");
    }
    status = copy_file(opened, data, bytes, message);
    if (status == NPU_OK) {
        status = open_sections(opened, message);
    }
    if (status != NPU_OK) {
        npu_close(opened);
        return status;
    }
    *program = opened;
    return NPU_OK;
}
