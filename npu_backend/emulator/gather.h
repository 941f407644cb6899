/* The two instructions that read where data says: GATHER, and LOAD_ROWS with the same fields from `output` on. */
#ifndef NPU_GATHER_H
#define NPU_GATHER_H

#include "internal.h"

/* Either instruction as the one; NULL for any other. */
const npu_load_rows *npu_rows_of(const npu_instruction *instruction);
int64_t npu_index_at(const npu_load_rows *op, const uint8_t *spm, uint32_t position);
int npu_index_is_valid(const npu_load_rows *op, int64_t index);
/* Rows of `source` to the scratchpad. NPU_TRAP at the first index that is out of range, which writes no further. */
npu_status npu_copy_rows(const npu_load_rows *op, const uint8_t *source, uint8_t *spm);
/* As many bytes of the table as are moved; which ones, only data tells. */
npu_region npu_rows_read(const npu_load_rows *op, const npu_region *table);

#endif
