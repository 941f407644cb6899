/* The cost model of one instruction; the compiler estimates and the emulator's clock both use it. */
#ifndef NPU_COST_H
#define NPU_COST_H

#include "npu_emulator.h"

typedef struct {
    double duration_ns;
    uint64_t macs;             /* of the arithmetic, padding lanes not counted */
    uint32_t mac_type;         /* DataType */
    double vector_operations;  /* byte lanes used, for energy */
} npu_cost;

/* A compute instruction of known size. NPU_BAD_ARGUMENT: not of the matrix or vector engine; NPU_TRAP: a data type
 * for which the core has no rate. */
npu_status npu_instruction_cost(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost,
                                npu_message *message);

/* Cycles of an opcode's instructions on the vector engine (cost_vector.c); NULL where it is none of that engine. */
typedef double (*npu_vector_cost)(const npu_record_core *core, const npu_instruction *instruction, npu_cost *cost);
npu_vector_cost npu_vector_cost_of(uint32_t opcode);

double npu_ceil_divide(double value, double by);

/* NPU_BAD_ARGUMENT when a rate, clock or lane count makes durations meaningless. */
npu_status npu_check_core(const npu_record_core *core, npu_message *message);

#endif
