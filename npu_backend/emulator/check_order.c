/* Happens-before from semaphores alone, whatever order a run happens to take.
 *
 * A WAIT that is the n-th on its semaphore to happen knows that n SIGNALs of it have happened. With one signalling
 * stream these are its first n. With several, at least n minus all SIGNALs that others may have given by then are from
 * any one stream; a SIGNAL that itself happens after the WAIT may not have been given. That last rule needs the clocks
 * it helps to find, so they are computed again until they stay the same: each round's are sound, and they only grow.
 */
#include "check.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ROUNDS 64

typedef struct { /* a WAIT or SIGNAL */
    uint32_t stream;
    uint32_t index;
    uint32_t row; /* WAITs of its stream before it */
} sync_point;

typedef struct { /* the points of each semaphore, by stream, then in order */
    sync_point *points;
    uint64_t *first; /* semaphore_count + 1 */
} sync_table;

typedef struct {
    const npu_program *program;
    npu_order *order;
    sync_table signals;
    sync_table waits;
    uint32_t **before; /* the rows of the round before, or NULL */
    uint32_t *tokens;
    uint32_t *taken; /* WAITs passed, by semaphore */
    uint64_t *next;
    uint32_t *row;
    uint64_t *wait_counts; /* rows a stream needs: its WAITs + 1 */
} builder;

static uint32_t semaphore_of(const npu_instruction *instruction) {
    return ((const npu_wait *)(const void *)instruction)->semaphore;
}

/* Counting sort by semaphore: the first pass (points NULL) counts, the second fills. */
static void scan_points(const npu_program *program, uint32_t opcode, sync_table *table) {
    for (uint32_t s = 0; s < program->stream_count; ++s) {
        uint32_t row = 0;
        for (uint64_t i = 0; i < program->streams[s].count; ++i) {
            const npu_instruction *instruction = program->streams[s].instructions[i];
            if (instruction->opcode == opcode) {
                uint64_t *first = &table->first[semaphore_of(instruction)];
                if (table->points == NULL) {
                    ++first[1];
                } else {
                    table->points[(*first)++] = (sync_point){s, (uint32_t)i, row};
                }
            }
            row += instruction->opcode == NPU_OP_WAIT;
        }
    }
}

static int build_table(const npu_program *program, uint32_t opcode, sync_table *table) {
    uint32_t semaphores = program->machine->semaphore_count;
    table->first = calloc((size_t)semaphores + 2, sizeof *table->first);
    if (table->first == NULL) {
        return 0;
    }
    scan_points(program, opcode, table);
    for (uint32_t i = 0; i < semaphores; ++i) {
        table->first[i + 1] += table->first[i];
    }
    table->points = calloc((size_t)table->first[semaphores] + 1, sizeof *table->points);
    if (table->points == NULL) {
        return 0;
    }
    scan_points(program, opcode, table);
    memmove(table->first + 1, table->first, semaphores * sizeof *table->first); /* filling moved each to its end */
    table->first[0] = 0;
    return 1;
}

static const uint32_t *clock_at(uint32_t *const *rows, uint32_t streams, const sync_point *point) {
    return rows[point->stream] + (size_t)point->row * streams;
}

static int has_one_stream(const sync_table *table, uint32_t semaphore) {
    uint64_t first = table->first[semaphore], end = table->first[semaphore + 1];
    return first == end || table->points[first].stream == table->points[end - 1].stream;
}

/* How many WAITs happen for certain before or at this one, whose stream's clock so far is `clock`. */
static uint64_t waits_done(const builder *at, const sync_point *wait, uint32_t semaphore, const uint32_t *clock) {
    if (has_one_stream(&at->waits, semaphore)) {
        return at->taken[semaphore];
    }
    uint64_t done = 0;
    for (uint64_t i = at->waits.first[semaphore]; i < at->waits.first[semaphore + 1]; ++i) {
        const sync_point *other = &at->waits.points[i];
        done += other->stream == wait->stream ? other->index <= wait->index : other->index < clock[other->stream];
    }
    return done;
}

/* Whether a SIGNAL may have been given when the WAIT takes its token. */
static int may_precede(const builder *at, const sync_point *signal, const sync_point *wait) {
    if (signal->stream == wait->stream) {
        return signal->index < wait->index;
    }
    return at->before == NULL || clock_at(at->before, at->order->streams, signal)[wait->stream] <= wait->index;
}

static void join_signal(const builder *at, const sync_point *signal, uint32_t self, uint32_t *clock) {
    const uint32_t *other = clock_at(at->order->rows, at->order->streams, signal);
    for (uint32_t s = 0; s < at->order->streams; ++s) {
        clock[s] = clock[s] > other[s] ? clock[s] : other[s];
    }
    if (signal->stream != self && clock[signal->stream] < signal->index + 1) {
        clock[signal->stream] = signal->index + 1;
    }
}

/* One past the SIGNALs of a stream, from `first` on, that may precede the WAIT: they are its first ones. */
static uint64_t end_of_group(const builder *at, uint64_t first, uint64_t end, const sync_point *wait, uint64_t *own) {
    uint64_t stop = first;
    for (*own = 0; stop < end && at->signals.points[stop].stream == at->signals.points[first].stream; ++stop) {
        *own += (uint64_t)may_precede(at, &at->signals.points[stop], wait);
    }
    return stop;
}

static void join_semaphore(const builder *at, const sync_point *wait, uint32_t semaphore, uint32_t *clock) {
    uint64_t first = at->signals.first[semaphore], end = at->signals.first[semaphore + 1];
    uint64_t done = waits_done(at, wait, semaphore, clock), possible = 0, own = 0;
    if (has_one_stream(&at->signals, semaphore)) {
        join_signal(at, &at->signals.points[first + done - 1], wait->stream, clock);
        return;
    }
    for (uint64_t group = first; group < end;) {
        group = end_of_group(at, group, end, wait, &own);
        possible += own;
    }
    for (uint64_t group = first, stop; group < end; group = stop) {
        stop = end_of_group(at, group, end, wait, &own);
        uint64_t others = possible - own;
        if (done > others) {
            join_signal(at, &at->signals.points[group + (done - others) - 1], wait->stream, clock);
        }
    }
}

static void pass_wait(builder *at, uint32_t s, uint32_t semaphore) {
    uint32_t streams = at->order->streams;
    uint32_t *clock = at->order->rows[s] + (size_t)(at->row[s] + 1) * streams;
    memcpy(clock, clock - streams, streams * sizeof *clock);
    sync_point wait = {s, (uint32_t)at->next[s], at->row[s]};
    ++at->taken[semaphore];
    join_semaphore(at, &wait, semaphore, clock);
    ++at->row[s];
}

/* Runs one stream until it must wait; whether it moved. */
static int advance(builder *at, uint32_t s) {
    const npu_stream *stream = &at->program->streams[s];
    uint64_t start = at->next[s];
    for (; at->next[s] < stream->count; ++at->next[s]) {
        const npu_instruction *instruction = stream->instructions[at->next[s]];
        if (instruction->opcode == NPU_OP_SIGNAL) {
            ++at->tokens[semaphore_of(instruction)];
        } else if (instruction->opcode == NPU_OP_WAIT) {
            if (at->tokens[semaphore_of(instruction)] == 0) {
                break;
            }
            --at->tokens[semaphore_of(instruction)];
            pass_wait(at, s, semaphore_of(instruction));
        }
    }
    return at->next[s] > start;
}

static npu_status run_round(builder *at, npu_message *message) {
    uint32_t streams = at->order->streams, semaphores = at->program->machine->semaphore_count;
    memset(at->tokens, 0, semaphores * sizeof *at->tokens);
    memset(at->taken, 0, semaphores * sizeof *at->taken);
    memset(at->next, 0, streams * sizeof *at->next);
    memset(at->row, 0, streams * sizeof *at->row);
    at->order->turns = 0;
    for (int moved = 1; moved;) {
        moved = 0;
        for (uint32_t s = 0; s < streams; ++s) {
            if (advance(at, s)) {
                at->order->order[2 * at->order->turns] = s;
                at->order->order[2 * at->order->turns++ + 1] = (uint32_t)at->next[s];
                moved = 1;
            }
        }
    }
    for (uint32_t s = 0; s < streams; ++s) {
        if (at->next[s] < at->program->streams[s].count) {
            return npu_say_deadlock(at->program, at->next, message);
        }
    }
    return npu_say_imbalance(at->program, at->tokens, message);
}

static uint32_t **new_rows(const builder *at) {
    uint32_t streams = at->order->streams;
    uint32_t **rows = calloc((size_t)streams + 1, sizeof *rows);
    for (uint32_t s = 0; rows != NULL && s < streams; ++s) {
        rows[s] = calloc((size_t)at->wait_counts[s] * streams, sizeof **rows);
        if (rows[s] == NULL) {
            for (uint32_t done = 0; done < s; ++done) {
                free(rows[done]);
            }
            free(rows);
            return NULL;
        }
    }
    return rows;
}

static void free_rows(uint32_t **rows, uint32_t streams) {
    for (uint32_t s = 0; rows != NULL && s < streams; ++s) {
        free(rows[s]);
    }
    free(rows);
}

static int has_several_signallers(const builder *at) {
    for (uint32_t i = 0; i < at->program->machine->semaphore_count; ++i) {
        if (!has_one_stream(&at->signals, i)) {
            return 1;
        }
    }
    return 0;
}

static int rows_are_equal(const builder *at) {
    for (uint32_t s = 0; s < at->order->streams; ++s) {
        size_t bytes = (size_t)at->wait_counts[s] * at->order->streams * sizeof(uint32_t);
        if (memcmp(at->before[s], at->order->rows[s], bytes) != 0) {
            return 0;
        }
    }
    return 1;
}

static npu_status out_of_memory(npu_message *message) {
    return npu_fail(message, NPU_OUT_OF_MEMORY, "no memory for the clocks of the checked run");
}

static npu_status refine(builder *at, npu_message *message) {
    int settled = !has_several_signallers(at);
    for (int round = 1; round < MAX_ROUNDS && !settled; ++round) {
        free_rows(at->before, at->order->streams);
        at->before = at->order->rows;
        at->order->rows = new_rows(at);
        if (at->order->rows == NULL) {
            return out_of_memory(message);
        }
        npu_status status = run_round(at, message);
        if (status != NPU_OK) {
            return status;
        }
        settled = rows_are_equal(at);
    }
    return NPU_OK;
}

static int prepare(builder *at) {
    const npu_program *program = at->program;
    uint64_t turns = 0;
    at->order->streams = program->stream_count;
    at->tokens = calloc((size_t)program->machine->semaphore_count + 1, sizeof *at->tokens);
    at->taken = calloc((size_t)program->machine->semaphore_count + 1, sizeof *at->taken);
    at->next = calloc((size_t)program->stream_count + 1, sizeof *at->next);
    at->row = calloc((size_t)program->stream_count + 1, sizeof *at->row);
    at->wait_counts = calloc((size_t)program->stream_count + 1, sizeof *at->wait_counts);
    if (at->tokens == NULL || at->taken == NULL || at->next == NULL || at->row == NULL || at->wait_counts == NULL) {
        return 0;
    }
    for (uint32_t s = 0; s < program->stream_count; ++s) {
        at->wait_counts[s] = 1;
        for (uint64_t i = 0; i < program->streams[s].count; ++i) {
            at->wait_counts[s] += program->streams[s].instructions[i]->opcode == NPU_OP_WAIT;
        }
        turns += at->wait_counts[s];
    }
    at->order->order = calloc((size_t)turns + 1, 2 * sizeof *at->order->order);
    at->order->rows = new_rows(at);
    return at->order->order != NULL && at->order->rows != NULL && build_table(program, NPU_OP_SIGNAL, &at->signals) &&
           build_table(program, NPU_OP_WAIT, &at->waits);
}

npu_status npu_order_build(const npu_program *program, npu_order *order, npu_message *message) {
    memset(order, 0, sizeof *order);
    builder at = {.program = program, .order = order};
    npu_status status = prepare(&at) ? run_round(&at, message) : out_of_memory(message);
    if (status == NPU_OK) {
        status = refine(&at, message);
    }
    free_rows(at.before, order->streams);
    free(at.signals.points);
    free(at.signals.first);
    free(at.waits.points);
    free(at.waits.first);
    free(at.tokens);
    free(at.taken);
    free(at.next);
    free(at.row);
    free(at.wait_counts);
    return status;
}

void npu_order_release(npu_order *order) {
    free_rows(order->rows, order->streams);
    free(order->order);
    memset(order, 0, sizeof *order);
}
