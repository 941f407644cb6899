/* Functional execution: every stream in order, any number of workers, semaphores the only synchronisation.
 *
 * A stream that must wait is parked and its worker takes another one, so a worker never sleeps while a stream can run.
 * A semaphore's count goes below zero by the number of streams that wait: only then is the lock taken.
 */
#include "internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define NO_STREAM UINT32_MAX

typedef struct {
    atomic_int count;  /* tokens, or minus the waiters */
    uint32_t credits;  /* signals for waiters that had not parked yet */
    uint32_t waiter;   /* first parked stream */
} semaphore;

typedef struct {
    npu_program *program;
    npu_message *message;
    uint32_t level;
    semaphore *semaphores;
    uint64_t *next;        /* each stream's next instruction */
    uint32_t *next_waiter; /* each parked stream's successor */
    uint32_t *ready;       /* stack of streams that can run */
    uint32_t ready_count;
    uint32_t running; /* workers that hold a stream */
    atomic_int status;
    pthread_mutex_t lock;
    pthread_cond_t changed;
} execution;

npu_status npu_execute_step(npu_program *program, const npu_stream *stream, const npu_instruction *instruction,
                            npu_scratch *scratch, uint32_t level, npu_message *message) {
    npu_status status = npu_check_data(program, stream, instruction, message);
    if (status != NPU_OK) {
        return status;
    }
    if (instruction->opcode == NPU_OP_KERNEL) {
        return npu_execute_kernel(program, stream, instruction, message);
    }
    status = stream->engine < NPU_ENGINE_MATRIX
                 ? npu_transfer(program, stream->core, instruction)
                 : npu_execute_instruction(instruction, program->spm[stream->core], scratch, level);
    return status == NPU_OK ? NPU_OK : npu_say_trap(program, stream, instruction, status, message);
}

static void fail(execution *run, npu_status status, const npu_message *message) {
    pthread_mutex_lock(&run->lock);
    if (atomic_load(&run->status) == NPU_OK) {
        atomic_store(&run->status, (int)status);
        npu_say(run->message, "%s", message->text);
    }
    pthread_mutex_unlock(&run->lock);
}

/* Takes a token; 0 when the stream was parked instead, and then it may already run elsewhere. */
static int take_token(execution *run, uint32_t stream, uint32_t index) {
    semaphore *from = &run->semaphores[index];
    if (atomic_fetch_sub_explicit(&from->count, 1, memory_order_acq_rel) > 0) {
        return 1;
    }
    pthread_mutex_lock(&run->lock);
    int taken = from->credits > 0;
    if (taken) {
        --from->credits;
    } else {
        run->next_waiter[stream] = from->waiter;
        from->waiter = stream;
    }
    pthread_mutex_unlock(&run->lock);
    return taken;
}

static void give_token(execution *run, uint32_t index) {
    semaphore *to = &run->semaphores[index];
    if (atomic_fetch_add_explicit(&to->count, 1, memory_order_acq_rel) >= 0) {
        return;
    }
    pthread_mutex_lock(&run->lock);
    if (to->waiter == NO_STREAM) {
        ++to->credits;
    } else {
        uint32_t woken = to->waiter;
        to->waiter = run->next_waiter[woken];
        run->ready[run->ready_count++] = woken;
        pthread_cond_signal(&run->changed);
    }
    pthread_mutex_unlock(&run->lock);
}

static void run_stream(execution *run, uint32_t index, npu_scratch *scratch) {
    const npu_stream *stream = &run->program->streams[index];
    npu_message message;
    uint64_t i = run->next[index];
    while (i < stream->count && atomic_load_explicit(&run->status, memory_order_relaxed) == NPU_OK) {
        const npu_instruction *instruction = stream->instructions[i++];
        npu_status status = NPU_OK;
        if (instruction->opcode == NPU_OP_WAIT) {
            /* Written before parking: from then on the stream may belong to another worker. Should the wait never
             * end, this is one too many; npu_interpret takes it back. */
            run->next[index] = i;
            if (!take_token(run, index, ((const npu_wait *)(const void *)instruction)->semaphore)) {
                return;
            }
        } else if (instruction->opcode == NPU_OP_SIGNAL) {
            give_token(run, ((const npu_signal *)(const void *)instruction)->semaphore);
        } else {
            status = npu_execute_step(run->program, stream, instruction, scratch, run->level, &message);
        }
        if (status != NPU_OK) {
            fail(run, status, &message);
            return;
        }
    }
    run->next[index] = i;
}

/* The next stream to run; NO_STREAM when nothing runs any more that could make one ready. */
static uint32_t take_stream(execution *run, int had_one) {
    pthread_mutex_lock(&run->lock);
    run->running -= had_one ? 1u : 0u;
    while (run->ready_count == 0 && run->running > 0) {
        pthread_cond_wait(&run->changed, &run->lock);
    }
    uint32_t stream = NO_STREAM;
    if (run->ready_count > 0) {
        stream = run->ready[--run->ready_count];
        ++run->running;
    } else {
        pthread_cond_broadcast(&run->changed);
    }
    pthread_mutex_unlock(&run->lock);
    return stream;
}

static void *work(void *argument) {
    execution *run = argument;
    npu_scratch scratch = {NULL, 0};
    uint32_t stream = take_stream(run, 0);
    while (stream != NO_STREAM) {
        run_stream(run, stream, &scratch);
        stream = take_stream(run, 1);
    }
    npu_scratch_release(&scratch);
    return NULL;
}

/* A worker that cannot be started is done without: the others take its streams. */
static void run_workers(execution *run, uint32_t threads) {
    uint32_t helpers = threads < run->program->stream_count ? threads : run->program->stream_count;
    helpers = helpers > 0 ? helpers - 1 : 0;
    pthread_t *handles = calloc((size_t)helpers + 1, sizeof *handles);
    uint32_t started = 0;
    while (handles != NULL && started < helpers && pthread_create(&handles[started], NULL, work, run) == 0) {
        ++started;
    }
    work(run);
    for (uint32_t i = 0; i < started; ++i) {
        pthread_join(handles[i], NULL);
    }
    free(handles);
}

static npu_status finish(execution *run) {
    uint32_t waiting = 0, semaphore_count = run->program->machine->semaphore_count;
    for (uint32_t i = 0; i < semaphore_count; ++i) {
        for (uint32_t s = run->semaphores[i].waiter; s != NO_STREAM; s = run->next_waiter[s]) {
            --run->next[s];
            ++waiting;
        }
    }
    if (waiting > 0) {
        return npu_say_deadlock(run->program, run->next, run->message);
    }
    uint32_t *counts = calloc((size_t)semaphore_count + 1, sizeof *counts);
    if (counts == NULL) {
        return npu_fail(run->message, NPU_OUT_OF_MEMORY, "no memory for %u semaphores", semaphore_count);
    }
    for (uint32_t i = 0; i < semaphore_count; ++i) {
        counts[i] = (uint32_t)atomic_load(&run->semaphores[i].count);
    }
    npu_status status = npu_say_imbalance(run->program, counts, run->message);
    free(counts);
    return status;
}

static npu_status prepare(execution *run) {
    const npu_program *program = run->program;
    run->semaphores = calloc((size_t)program->machine->semaphore_count + 1, sizeof *run->semaphores);
    run->next = calloc((size_t)program->stream_count + 1, sizeof *run->next);
    run->next_waiter = calloc((size_t)program->stream_count + 1, sizeof *run->next_waiter);
    run->ready = calloc((size_t)program->stream_count + 1, sizeof *run->ready);
    if (run->semaphores == NULL || run->next == NULL || run->next_waiter == NULL || run->ready == NULL) {
        return npu_fail(run->message, NPU_OUT_OF_MEMORY, "no memory to run %u streams", program->stream_count);
    }
    for (uint32_t i = 0; i < program->machine->semaphore_count; ++i) {
        atomic_init(&run->semaphores[i].count, 0);
        run->semaphores[i].waiter = NO_STREAM;
    }
    for (uint32_t s = program->stream_count; s-- > 0;) {
        run->ready[run->ready_count++] = s;
    }
    return NPU_OK;
}

npu_status npu_interpret(npu_program *program, uint32_t threads, uint32_t level, npu_message *message) {
    execution run = {.program = program, .message = message, .level = level};
    atomic_init(&run.status, NPU_OK);
    npu_status status = prepare(&run);
    if (status == NPU_OK) {
        pthread_mutex_init(&run.lock, NULL);
        pthread_cond_init(&run.changed, NULL);
        run_workers(&run, threads);
        pthread_cond_destroy(&run.changed);
        pthread_mutex_destroy(&run.lock);
        status = (npu_status)atomic_load(&run.status);
    }
    if (status == NPU_OK) {
        status = finish(&run);
    }
    free(run.semaphores);
    free(run.next);
    free(run.next_waiter);
    free(run.ready);
    return status;
}
