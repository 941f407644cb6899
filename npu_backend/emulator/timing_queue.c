#include "timing.h"

#include <stdlib.h>
#include <string.h>

static int is_before(const npu_event *a, const npu_event *b) {
    return a->time_ns < b->time_ns || (a->time_ns == b->time_ns && a->order < b->order);
}

/* Twice the room; the first events of a ring, which it had wrapped around, go behind the others. */
static int grow(npu_event_list *list) {
    uint64_t room = list->room > 0 ? 2 * list->room : 64;
    npu_event *events = realloc(list->events, (size_t)room * sizeof(npu_event));
    if (events == NULL) {
        return 0;
    }
    memcpy(events + list->room, events, (size_t)list->head * sizeof(npu_event));
    list->events = events;
    list->room = room;
    return 1;
}

int npu_event_add(npu_event_queue *queue, double time_ns, npu_event_kind kind, uint32_t index) {
    npu_event_list *heap = &queue->heap;
    if (heap->count == heap->room && !grow(heap)) {
        return 0;
    }
    npu_event event = {time_ns, queue->added++, (uint32_t)kind, index};
    uint64_t hole = heap->count++;
    while (hole > 0 && is_before(&event, &heap->events[(hole - 1) / 2])) {
        heap->events[hole] = heap->events[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    heap->events[hole] = event;
    return 1;
}

int npu_event_add_in_lane(npu_event_queue *queue, uint32_t lane, double time_ns, npu_event_kind kind, uint32_t index) {
    npu_event_list *list = &queue->lanes[lane];
    if (list->count == list->room && !grow(list)) {
        return 0;
    }
    uint64_t place = (list->head + list->count++) & (list->room - 1);
    list->events[place] = (npu_event){time_ns, queue->added++, (uint32_t)kind, index};
    return 1;
}

/* The list whose first event is the earliest; NULL when all are empty. */
static const npu_event_list *first_list(const npu_event_queue *queue) {
    const npu_event_list *first = queue->heap.count > 0 ? &queue->heap : NULL;
    for (uint32_t lane = 0; lane < NPU_LANES; ++lane) {
        const npu_event_list *list = &queue->lanes[lane];
        if (list->count > 0 &&
            (first == NULL || is_before(&list->events[list->head], &first->events[first->head]))) {
            first = list;
        }
    }
    return first;
}

const npu_event *npu_event_first(const npu_event_queue *queue) {
    const npu_event_list *list = first_list(queue);
    return list == NULL ? NULL : &list->events[list->head];
}

static npu_event take_from_heap(npu_event_list *heap) {
    npu_event first = heap->events[0];
    npu_event last = heap->events[--heap->count];
    uint64_t hole = 0;
    for (;;) {
        uint64_t child = 2 * hole + 1;
        if (child >= heap->count) {
            break;
        }
        if (child + 1 < heap->count && is_before(&heap->events[child + 1], &heap->events[child])) {
            ++child;
        }
        if (!is_before(&heap->events[child], &last)) {
            break;
        }
        heap->events[hole] = heap->events[child];
        hole = child;
    }
    heap->events[hole] = last;
    return first;
}

npu_event npu_event_take(npu_event_queue *queue) {
    const npu_event_list *first = first_list(queue);
    if (first == &queue->heap) {
        return take_from_heap(&queue->heap);
    }
    npu_event_list *lane = &queue->lanes[first - queue->lanes];
    npu_event event = lane->events[lane->head];
    lane->head = (lane->head + 1) & (lane->room - 1);
    --lane->count;
    return event;
}

void npu_event_free(npu_event_queue *queue) {
    free(queue->heap.events);
    for (uint32_t lane = 0; lane < NPU_LANES; ++lane) {
        free(queue->lanes[lane].events);
    }
}
