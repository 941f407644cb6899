/* TABLE and CONVERT: one input element to one output element. */
#include "element.h"

typedef struct {
    npu_element input;
    npu_element output;
} conversion;

static void convert_row(const void *context, uint8_t *const at[], size_t n) {
    const conversion *k = context;
    for (size_t first = 0; first < n; first += NPU_LANES) {
        float values[NPU_LANES];
        npu_read_block(&k->input, at[0], first, n, values);
        npu_write_block(&k->output, values, first, n, at[1]);
    }
}

npu_status npu_execute_convert(const npu_convert *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    const conversion k = {NPU_ELEMENT(op, input, level), NPU_ELEMENT(op, output, level)};
    npu_view view = npu_view_of(op->counts);
    npu_view_operand(&view, spm + op->input, k.input.bytes, op->input_strides);
    npu_view_operand(&view, spm + op->output, k.output.bytes, op->output_strides);
    if (npu_is_integer(op->input_type) && npu_is_integer(op->output_type)) {
        npu_convert_integers(op, &view);
    } else {
        npu_view_for_rows(&view, convert_row, &k);
    }
    return NPU_OK;
}

static void table_portable(const void *context, uint8_t *const at[], size_t n) {
    const uint8_t *table = context;
    const uint8_t *input = at[0];
    uint8_t *output = at[1];
    for (size_t i = 0; i < n; ++i) {
        output[i] = table[input[i]];
    }
}

#if NPU_VECTOR_X86
#include <immintrin.h>

/* Sixteen 16-byte look-ups: bytes beyond the current sixteen get their top bit set, which makes the shuffle give 0. */
NPU_AVX2 static void table_avx2(const void *context, uint8_t *const at[], size_t n) {
    const uint8_t *table = context;
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i index = _mm256_loadu_si256((const __m256i *)(const void *)(at[0] + i));
        __m256i found = _mm256_setzero_si256();
        for (int part = 0; part < 16; ++part) {
            __m128i entries = _mm_loadu_si128((const __m128i *)(const void *)(table + 16 * part));
            __m256i local = _mm256_xor_si256(index, _mm256_set1_epi8((char)(16 * part)));
            __m256i masked = _mm256_adds_epu8(local, _mm256_set1_epi8(0x70));
            found = _mm256_or_si256(found, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), masked));
        }
        _mm256_storeu_si256((__m256i *)(void *)(at[1] + i), found);
    }
    uint8_t *rest[NPU_VIEW_OPERANDS] = {at[0] + i, at[1] + i, NULL};
    table_portable(context, rest, n - i);
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi"))) static void table_vbmi(const void *context,
                                                                                      uint8_t *const at[], size_t n) {
    const uint8_t *table = context;
    __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
    __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
    for (size_t i = 0; i < n; i += 64) {
        __mmask64 mask = n - i >= 64 ? ~0ull : (1ull << (n - i)) - 1;
        __m512i index = _mm512_maskz_loadu_epi8(mask, at[0] + i);
        __m512i lower = _mm512_permutex2var_epi8(t0, index, t1);
        __m512i upper = _mm512_permutex2var_epi8(t2, index, t3);
        _mm512_mask_storeu_epi8(at[1] + i, mask, _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), lower, upper));
    }
}

static npu_row table_row(uint32_t level) {
    if (level >= 3 && __builtin_cpu_supports("avx512vbmi")) {
        return table_vbmi;
    }
    return level >= 2 ? table_avx2 : table_portable;
}

#else

static npu_row table_row(uint32_t level) {
    (void)level;
    return table_portable;
}

#endif

npu_status npu_execute_table(const npu_table *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    npu_view view = npu_view_of(op->counts);
    npu_view_operand(&view, spm + op->input, 1, op->input_strides);
    npu_view_operand(&view, spm + op->output, 1, op->output_strides);
    npu_view_for_rows(&view, table_row(level), spm + op->table);
    return NPU_OK;
}
