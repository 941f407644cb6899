/* A shadow of every memory: which instruction wrote a byte last, which have read it since.
 *
 * Bytes that every instruction of the program touches together share a cell. How many, differs by page of 4 KiB: the
 * largest power of two that divides every start and end of a run in the page. So bulk transfers cost a cell a page, and
 * the shadow stays far smaller than the memory.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096u
#define HOST 1u
#define FIRST_INSTRUCTION 2u
#define IS_SET 0x80000000u

static npu_shadow_space *space_of(const npu_shadow *shadow, const npu_region *region) {
    uint32_t dram = shadow->program->machine->core_count;
    return &shadow->spaces[region->space == NPU_SPACE_DRAM ? dram : region->core];
}

/* Constants have no shadow: nothing writes them. */
static int is_constant(const npu_shadow *shadow, const npu_region *region) {
    return region->space == NPU_SPACE_DRAM && region->base < shadow->program->constants_bytes;
}

/* Until the cells are laid out, a page's `first_cell` collects the offsets of the ends of its runs. */
static npu_status mark_run(void *context, uint64_t start, uint64_t bytes) {
    npu_shadow_space *space = context;
    uint64_t from = start - space->origin, to = from + bytes;
    space->pages[from / PAGE_BYTES].first_cell |= from % PAGE_BYTES;
    if (to % PAGE_BYTES != 0) {
        space->pages[to / PAGE_BYTES].first_cell |= to % PAGE_BYTES;
    }
    return NPU_OK;
}

static npu_region port_region(const npu_record_port *port) {
    return (npu_region){NPU_SPACE_DRAM, 0, port->dram, {1, 1, 1, 1}, {0, 0, 0, 0}, npu_port_bytes(port), 0};
}

static void mark_all(npu_shadow *shadow) {
    const npu_program *program = shadow->program;
    for (uint32_t i = 0; i < program->port_count; ++i) {
        npu_region region = port_region(&program->ports[i]);
        if (!is_constant(shadow, &region)) {
            npu_for_each_run(&region, mark_run, space_of(shadow, &region));
        }
    }
    for (uint32_t s = 0; s < program->stream_count; ++s) {
        const npu_stream *stream = &program->streams[s];
        for (uint64_t i = 0; i < stream->count; ++i) {
            npu_region regions[NPU_MAX_REGIONS];
            int count = npu_regions(program, stream->core, stream->instructions[i], regions);
            for (int r = 0; r < count; ++r) {
                if (!is_constant(shadow, &regions[r])) {
                    npu_for_each_run(&regions[r], mark_run, space_of(shadow, &regions[r]));
                }
            }
            shadow->stream_of[stream->first + i] = s;
        }
    }
}

static uint32_t lowest_bit(uint64_t value) {
    uint32_t bit = 0;
    while (!(value >> bit & 1u)) {
        ++bit;
    }
    return bit;
}

static void lay_out_cells(npu_shadow *shadow) {
    for (uint32_t i = 0; i <= shadow->program->machine->core_count; ++i) {
        for (uint64_t p = 0; p < shadow->spaces[i].page_count; ++p) {
            npu_shadow_page *page = &shadow->spaces[i].pages[p];
            page->shift = lowest_bit(page->first_cell | PAGE_BYTES);
            page->first_cell = shadow->cell_count;
            shadow->cell_count += PAGE_BYTES >> page->shift;
        }
    }
}

static int allocate_space(npu_shadow_space *space, uint64_t origin, uint64_t end) {
    space->origin = origin / PAGE_BYTES * PAGE_BYTES;
    space->page_count = (end - space->origin + PAGE_BYTES - 1) / PAGE_BYTES;
    space->pages = calloc((size_t)space->page_count + 1, sizeof *space->pages);
    return space->pages != NULL;
}

static int allocate_spaces(npu_shadow *shadow) {
    const npu_program *program = shadow->program;
    uint32_t cores = program->machine->core_count;
    shadow->stream_of = calloc((size_t)program->instruction_count + 1, sizeof *shadow->stream_of);
    shadow->spaces = calloc((size_t)cores + 1, sizeof *shadow->spaces);
    if (shadow->stream_of == NULL || shadow->spaces == NULL) {
        return 0;
    }
    for (uint32_t core = 0; core < cores; ++core) {
        if (!allocate_space(&shadow->spaces[core], 0, program->spm_peak_bytes[core])) {
            return 0;
        }
    }
    return allocate_space(&shadow->spaces[cores], program->constants_bytes, program->machine->dram_bytes);
}

npu_status npu_shadow_build(const npu_program *program, npu_shadow *shadow, npu_message *message) {
    memset(shadow, 0, sizeof *shadow);
    shadow->program = program;
    int complete = allocate_spaces(shadow);
    if (complete) {
        mark_all(shadow);
        lay_out_cells(shadow);
        shadow->cells = calloc((size_t)shadow->cell_count + 1, sizeof *shadow->cells);
        complete = shadow->cells != NULL;
    }
    return complete ? NPU_OK : npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for the shadow of the checked run");
}

void npu_shadow_release(npu_shadow *shadow) {
    for (uint32_t i = 0; shadow->spaces != NULL && i <= shadow->program->machine->core_count; ++i) {
        free(shadow->spaces[i].pages);
    }
    free(shadow->spaces);
    free(shadow->stream_of);
    free(shadow->cells);
    free(shadow->sets.members);
    memset(shadow, 0, sizeof *shadow);
}

typedef struct { /* one instruction at work */
    npu_shadow *shadow;
    npu_shadow_space *space;
    const npu_region *region;
    uint32_t stream;
    uint32_t self; /* identifier */
    const uint32_t *clock;
    npu_message *message;
} access;

static int is_ordered(const access *at, uint32_t identifier) {
    if (identifier <= HOST) {
        return 1;
    }
    uint32_t instruction = identifier - FIRST_INSTRUCTION, stream = at->shadow->stream_of[instruction];
    uint64_t index = instruction - at->shadow->program->streams[stream].first;
    return stream == at->stream || index < at->clock[stream];
}

static void describe(const npu_shadow *shadow, uint32_t identifier, char *text, size_t bytes) {
    uint32_t instruction = identifier - FIRST_INSTRUCTION;
    const npu_stream *stream = &shadow->program->streams[shadow->stream_of[instruction]];
    npu_describe(shadow->program, stream, stream->instructions[instruction - stream->first], text, bytes);
}

static void describe_place(const access *at, uint64_t address, char *text, size_t bytes) {
    if (at->region->space == NPU_SPACE_DRAM) {
        snprintf(text, bytes, "dram 0x%llx", (unsigned long long)address);
    } else {
        snprintf(text, bytes, "spm 0x%llx of core %u", (unsigned long long)address, at->region->core);
    }
}

static npu_status say_unwritten(const access *at, uint64_t address) {
    char reader[256], place[64];
    describe(at->shadow, at->self, reader, sizeof reader);
    describe_place(at, address, place, sizeof place);
    return npu_fail(at->message, NPU_TRAP, "%s reads %s, which nothing has written", reader, place);
}

static npu_status say_race(const access *at, uint64_t address, uint32_t other, int other_wrote) {
    char self[256], earlier[256], place[64];
    describe(at->shadow, at->self, self, sizeof self);
    describe_place(at, address, place, sizeof place);
    describe(at->shadow, other, earlier, sizeof earlier);
    return npu_fail(at->message, NPU_TRAP, "race on %s: %s %s it and %s %s it, and no semaphore orders them", place, self,
                    at->region->is_write ? "writes" : "reads", earlier, other_wrote ? "writes" : "reads");
}

/* The members of a cell's reads: a single one or a set; their number. */
static uint32_t members_of(const npu_read_sets *sets, const uint32_t *read, const uint32_t **members) {
    if (*read & IS_SET) {
        const uint32_t *set = sets->members + (*read & ~IS_SET);
        *members = set + 1;
        return set[0];
    }
    *members = read;
    return *read != 0;
}

static uint32_t *reserve_set(npu_read_sets *sets, uint64_t words) {
    if (sets->used + words > sets->capacity) {
        uint64_t capacity = 2 * sets->capacity + words + 1024;
        uint32_t *grown = capacity < IS_SET ? realloc(sets->members, (size_t)capacity * sizeof *grown) : NULL;
        if (grown == NULL) {
            return NULL;
        }
        sets->members = grown;
        sets->capacity = capacity;
    }
    return sets->members + sets->used;
}

/* Reads plus this one. Those that happen before it are dropped: a write that happens after it comes after them too. */
static npu_status add_reader(const access *at, uint32_t *read) {
    npu_read_sets *sets = &at->shadow->sets;
    const uint32_t *members;
    uint32_t count = members_of(sets, read, &members), kept = 0;
    uint32_t *set = reserve_set(sets, (uint64_t)count + 2);
    if (set == NULL) {
        return npu_fail(at->message, NPU_OUT_OF_MEMORY, "no memory for the readers in the checked run");
    }
    members_of(sets, read, &members); /* the sets may have moved */
    for (uint32_t i = 0; i < count; ++i) {
        if (!is_ordered(at, members[i])) {
            set[++kept] = members[i];
        }
    }
    if (kept == 0) {
        *read = at->self;
        return NPU_OK;
    }
    set[++kept] = at->self;
    set[0] = kept;
    *read = IS_SET | (uint32_t)sets->used;
    sets->used += kept + 1;
    return NPU_OK;
}

static npu_status read_cell(const access *at, npu_cell *cell, uint64_t address) {
    npu_memo *memo = &at->shadow->memo[(cell->write * 31u + cell->read) % NPU_CHECK_MEMO];
    if (memo->instruction != at->self || memo->before.write != cell->write || memo->before.read != cell->read) {
        if (cell->write == 0) {
            return say_unwritten(at, address);
        }
        if (!is_ordered(at, cell->write)) {
            return say_race(at, address, cell->write, 1);
        }
        memo->instruction = at->self;
        memo->before = *cell;
        memo->read = cell->read;
        npu_status status = add_reader(at, &memo->read);
        if (status != NPU_OK) {
            return status;
        }
    }
    cell->read = memo->read;
    return NPU_OK;
}

static npu_status write_cell(const access *at, npu_cell *cell, uint64_t address) {
    const uint32_t *members;
    uint32_t count = members_of(&at->shadow->sets, &cell->read, &members);
    for (uint32_t i = 0; i < count; ++i) {
        if (!is_ordered(at, members[i])) {
            return say_race(at, address, members[i], 0);
        }
    }
    if (!is_ordered(at, cell->write)) {
        return say_race(at, address, cell->write, 1);
    }
    *cell = (npu_cell){at->self, 0};
    return NPU_OK;
}

static npu_status touch_run(void *context, uint64_t start, uint64_t bytes) {
    const access *at = context;
    uint64_t from = start - at->space->origin, end = from + bytes;
    npu_status status = NPU_OK;
    while (from < end && status == NPU_OK) {
        const npu_shadow_page *page = &at->space->pages[from / PAGE_BYTES];
        npu_cell *cells = at->shadow->cells + page->first_cell;
        uint64_t page_end = (from / PAGE_BYTES + 1) * PAGE_BYTES, step = 1ull << page->shift;
        uint64_t stop = end < page_end ? end : page_end;
        for (; from < stop && status == NPU_OK; from += step) {
            npu_cell *cell = cells + (from % PAGE_BYTES >> page->shift);
            status = at->region->is_write ? write_cell(at, cell, from + at->space->origin)
                                          : read_cell(at, cell, from + at->space->origin);
        }
    }
    return status;
}

static npu_status touch_region(access *at, const npu_region *region) {
    at->region = region;
    at->space = space_of(at->shadow, region);
    return is_constant(at->shadow, region) ? NPU_OK : npu_for_each_run(region, touch_run, at);
}

npu_status npu_shadow_touch(npu_shadow *shadow, uint32_t stream, uint64_t index, const uint32_t *clock,
                            npu_message *message) {
    const npu_stream *from = &shadow->program->streams[stream];
    npu_region regions[NPU_MAX_REGIONS];
    int count = npu_regions(shadow->program, from->core, from->instructions[index], regions);
    access at = {.shadow = shadow, .stream = stream, .clock = clock, .message = message,
                 .self = (uint32_t)(from->first + index) + FIRST_INSTRUCTION};
    npu_status status = NPU_OK;
    for (int i = 0; i < count && status == NPU_OK; ++i) {
        if (!regions[i].is_write) {
            status = touch_region(&at, &regions[i]);
        }
    }
    for (int i = 0; i < count && status == NPU_OK; ++i) {
        if (regions[i].is_write) {
            status = touch_region(&at, &regions[i]);
        }
    }
    return status;
}

static npu_status host_run(npu_shadow *shadow, const npu_record_port *port, int is_write, uint64_t *unwritten) {
    const npu_shadow_space *space = &shadow->spaces[shadow->program->machine->core_count];
    uint64_t from = port->dram - space->origin, end = from + npu_port_bytes(port);
    while (from < end) {
        const npu_shadow_page *page = &space->pages[from / PAGE_BYTES];
        npu_cell *cell = shadow->cells + page->first_cell + (from % PAGE_BYTES >> page->shift);
        if (is_write) {
            *cell = (npu_cell){HOST, 0};
        } else if (cell->write == 0) {
            *unwritten = from + space->origin;
            return NPU_TRAP;
        }
        from += 1ull << page->shift;
    }
    return NPU_OK;
}

void npu_shadow_host_writes(npu_shadow *shadow, const npu_record_port *port) {
    host_run(shadow, port, 1, NULL);
}

npu_status npu_shadow_host_reads(npu_shadow *shadow, const npu_record_port *port, npu_message *message) {
    uint64_t unwritten = 0;
    if (port->dram < shadow->program->constants_bytes || host_run(shadow, port, 0, &unwritten) == NPU_OK) {
        return NPU_OK;
    }
    return npu_fail(message, NPU_TRAP, "output %.100s: nothing has written dram 0x%llx",
                    shadow->program->names + port->name, (unsigned long long)unwritten);
}
