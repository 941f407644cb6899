/* What a replay adds up: busy and waiting time, traffic, arithmetic, energy. */
#include "gather.h"
#include "multicast.h"
#include "timing.h"

static npu_core_timing *timing_of(npu_replay *replay, uint32_t stream) {
    return &replay->timing->cores[replay->program->streams[stream].core];
}

static const npu_instruction *instruction_of(npu_replay *replay, uint32_t stream) {
    return replay->program->streams[stream].instructions[replay->streams[stream].next];
}

void npu_account_state(npu_replay *replay, uint32_t core, int32_t working, int32_t waiting_abroad) {
    npu_core_state *state = &replay->cores[core];
    npu_core_timing *timing = &replay->timing->cores[core];
    double elapsed_ns = replay->now_ns - state->since_ns;
    if (state->working > 0) {
        timing->busy_ns += elapsed_ns;
    } else if (state->waiting_abroad > 0) {
        timing->sync_ns += elapsed_ns;
    }
    state->since_ns = replay->now_ns;
    state->working += (uint32_t)working;
    state->waiting_abroad += (uint32_t)waiting_abroad;
}

void npu_account_span(npu_replay *replay, uint32_t stream) {
    npu_stream_state *state = &replay->streams[stream];
    replay->last_ns = replay->now_ns;
    if (replay->timing->spans != NULL) {
        npu_span *span = &replay->timing->spans[replay->program->streams[stream].first + state->next];
        *span = (npu_span){state->start_ns, replay->now_ns};
    }
}

static double region_runs(const npu_region *region) {
    return (double)(region->counts[0] * region->counts[1] * region->counts[2] * region->counts[3]);
}

/* Energy of the scratchpad bytes an instruction touches, and the DRAM bytes it moves, whole bursts; both from region
 * `first` on. */
static double memory_energy(npu_replay *replay, uint32_t core, const npu_instruction *instruction, int first,
                            double *dram_bytes) {
    const npu_record_machine *machine = replay->program->machine;
    npu_region regions[NPU_MAX_REGIONS];
    int count = npu_regions(replay->program, core, instruction, regions);
    const npu_load_rows *rows = npu_rows_of(instruction);
    double spm_bytes = 0;
    *dram_bytes = 0;
    if (rows != NULL) {
        regions[0] = npu_rows_read(rows, &regions[0]); /* the first is the table, of which some rows move */
    }
    for (int index = first; index < count; ++index) {
        const npu_region *region = &regions[index];
        if (region->space == NPU_SPACE_DRAM) {
            *dram_bytes += region_runs(region) * (double)npu_burst_bytes(machine, 1, region->run_bytes);
        } else {
            spm_bytes += (double)npu_region_bytes(region);
        }
    }
    return spm_bytes * machine->spm_pj_per_byte + *dram_bytes * machine->dram_pj_per_byte;
}

void npu_account_compute(npu_replay *replay, uint32_t stream, const npu_cost *cost) {
    const npu_record_machine *machine = replay->program->machine;
    npu_core_timing *timing = timing_of(replay, stream);
    double dram_bytes;
    timing->macs += cost->macs;
    const npu_stream *place = &replay->program->streams[stream];
    timing->energy_pj += memory_energy(replay, place->core, instruction_of(replay, stream), 0, &dram_bytes) +
                         cost->vector_operations * machine->vector_pj +
                         (double)cost->macs * machine->mac_pj[cost->mac_type];
    if (place->engine == NPU_ENGINE_MATRIX) {
        timing->matrix_busy_ns += cost->duration_ns;
    } else {
        timing->vector_busy_ns += cost->duration_ns;
    }
}

/* Transfers: the payload is what is written. */
static uint64_t payload_bytes(const npu_instruction *instruction) {
    const npu_load *load = (const npu_load *)(const void *)instruction;
    const npu_send *send = (const npu_send *)(const void *)instruction;
    const npu_load_rows *rows = npu_rows_of(instruction);
    if (rows != NULL) {
        return (uint64_t)rows->run_bytes * rows->index_count * rows->counts[0] * rows->counts[1] * rows->counts[2];
    }
    int is_send = npu_plain_opcode(instruction) == NPU_OP_SEND;
    const uint32_t *counts = is_send ? send->counts : load->counts;
    uint64_t run_bytes = is_send ? send->run_bytes : load->run_bytes;
    return run_bytes * counts[0] * counts[1] * counts[2] * counts[3];
}

double npu_account_transfer(npu_replay *replay, uint32_t core, const npu_instruction *instruction, double hops) {
    const npu_record_machine *machine = replay->program->machine;
    npu_core_timing *timing = &replay->timing->cores[core];
    uint64_t payload = payload_bytes(instruction);
    double dram_bytes, flow_bytes = (double)payload;
    timing->energy_pj += memory_energy(replay, core, instruction, 0, &dram_bytes);
    switch (npu_plain_opcode(instruction)) {
    case NPU_OP_SEND:
        timing->network_bytes += payload;
        break;
    case NPU_OP_LOAD:
    case NPU_OP_LOAD_ROWS:
        timing->dram_read_bytes += payload;
        /* fall through */
    default:
        timing->dram_bytes += payload;
        flow_bytes = dram_bytes;
    }
    timing->energy_pj += flow_bytes * hops * machine->network_pj_per_byte_hop;
    return flow_bytes;
}

void npu_account_copy(npu_replay *replay, uint32_t core, const npu_instruction *instruction) {
    double dram_bytes;
    replay->timing->cores[core].energy_pj += memory_energy(replay, core, instruction, 1, &dram_bytes);
}

void npu_account_end(npu_replay *replay) {
    npu_timing *timing = replay->timing;
    replay->now_ns = replay->last_ns;
    timing->total_ns = replay->last_ns;
    timing->energy_pj = replay->program->machine->static_mw * replay->last_ns; /* mW x ns = pJ */
    for (uint32_t core = 0; core < replay->program->machine->core_count; ++core) {
        npu_account_state(replay, core, 0, 0);
        npu_core_timing *row = &timing->cores[core];
        row->idle_ns = timing->total_ns - row->busy_ns - row->sync_ns;
        timing->energy_pj += row->energy_pj;
    }
    if (timing->resource_bytes != NULL) {
        npu_routes_add_bytes(&replay->routes, replay->route_bytes, timing->resource_bytes);
    }
}
