#include "timing.h"

#include <stdlib.h>

static int is_before(const npu_event *a, const npu_event *b) {
    return a->time_ns < b->time_ns || (a->time_ns == b->time_ns && a->order < b->order);
}

static int grow(npu_event_queue *queue) {
    uint64_t room = queue->room > 0 ? 2 * queue->room : 64;
    npu_event *events = realloc(queue->events, (size_t)room * sizeof(npu_event));
    if (events == NULL) {
        return 0;
    }
    queue->events = events;
    queue->room = room;
    return 1;
}

int npu_event_add(npu_event_queue *queue, double time_ns, npu_event_kind kind, uint32_t index) {
    if (queue->count == queue->room && !grow(queue)) {
        return 0;
    }
    npu_event event = {time_ns, queue->added++, (uint32_t)kind, index};
    uint64_t hole = queue->count++;
    while (hole > 0 && is_before(&event, &queue->events[(hole - 1) / 2])) {
        queue->events[hole] = queue->events[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    queue->events[hole] = event;
    return 1;
}

npu_event npu_event_take(npu_event_queue *queue) {
    npu_event first = queue->events[0];
    npu_event last = queue->events[--queue->count];
    uint64_t hole = 0;
    for (;;) {
        uint64_t child = 2 * hole + 1;
        if (child >= queue->count) {
            break;
        }
        if (child + 1 < queue->count && is_before(&queue->events[child + 1], &queue->events[child])) {
            ++child;
        }
        if (!is_before(&queue->events[child], &last)) {
            break;
        }
        queue->events[hole] = queue->events[child];
        hole = child;
    }
    queue->events[hole] = last;
    return first;
}
