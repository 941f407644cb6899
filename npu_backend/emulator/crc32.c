/* CRC-32 as in zlib (reflected polynomial 0xEDB88320), eight bytes at a time. */
#include "internal.h"

#include <string.h>

/* The tables are built for each file: they cost microseconds, and the library stays free of global state. */
static void build_tables(uint32_t tables[8][256]) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; ++bit) {
            value = (value >> 1) ^ (0xEDB88320u & (0u - (value & 1u)));
        }
        tables[0][byte] = value;
    }
    for (uint32_t byte = 0; byte < 256; ++byte) {
        for (int table = 1; table < 8; ++table) {
            uint32_t before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][before & 0xff];
        }
    }
}

uint32_t npu_crc32(const uint8_t *data, uint64_t bytes) {
    uint32_t tables[8][256];
    build_tables(tables);
    uint32_t value = 0xFFFFFFFFu;
    for (; bytes >= 8; bytes -= 8, data += 8) {
        uint32_t low, high;
        memcpy(&low, data, 4);
        memcpy(&high, data + 4, 4);
        low ^= value;
        value = tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^ tables[4][low >> 24] ^
                tables[3][high & 0xff] ^ tables[2][high >> 8 & 0xff] ^ tables[1][high >> 16 & 0xff] ^ tables[0][high >> 24];
    }
    for (; bytes > 0; --bytes, ++data) {
        value = (value >> 8) ^ tables[0][(value ^ *data) & 0xff];
    }
    return ~value;
}
