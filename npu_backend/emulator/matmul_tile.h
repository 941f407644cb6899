/* A tile of MATMUL's product in registers, compiled once for each vector level.
 *
 * The includer defines INLINE, TARGET, VECTOR (of 32-bit lanes), LOAD, STORE, BROADCAST, `step`, which adds a unit's
 * products to a vector of sums, MAX_ROWS, and APART, the units from one vector of a tile's columns to the next.
 */
enum { LANES = sizeof(VECTOR) / sizeof(uint32_t), VECTORS = 2 };

INLINE void run_tile(const npu_product *product, uint32_t row, uint32_t column, const int rows, const int vectors,
                     const int in_float) {
    const size_t units = product->units, pitch = (size_t)product->panels * NPU_PANEL_COLUMNS;
    const uint32_t *left = product->left + row * units;
    const uint32_t *right = product->right + column * units;
    uint32_t *kept = (uint32_t *)product->sums + row * pitch + column;
    VECTOR sums[MAX_ROWS][VECTORS];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sums[r][v] = LOAD(kept + r * pitch + v * LANES);
    for (size_t u = 0; u < units; u++, right += NPU_PANEL_COLUMNS) {
        VECTOR columns[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) columns[v] = LOAD(right + v * APART(units));
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            VECTOR same = BROADCAST(left + r * units + u);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) sums[r][v] = step(sums[r][v], same, columns[v], in_float);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) STORE(kept + r * pitch + v * LANES, sums[r][v]);
}

/* The smallest tile that holds the rows left. */
INLINE void run_column(const npu_product *product, uint32_t column, const int vectors, const int in_float) {
    for (uint32_t row = 0, left; row < product->rows; row += MAX_ROWS) {
        left = product->rows - row;
        if (left > MAX_ROWS / 2)
            run_tile(product, row, column, MAX_ROWS, vectors, in_float);
        else if (left > MAX_ROWS / 3)
            run_tile(product, row, column, MAX_ROWS / 2, vectors, in_float);
        else if (left > 1)
            run_tile(product, row, column, MAX_ROWS / 3, vectors, in_float);
        else
            run_tile(product, row, column, 1, vectors, in_float);
    }
}

TARGET static void run_columns(const npu_product *product, const int in_float) {
    const uint32_t columns = product->panels * NPU_PANEL_COLUMNS;
    uint32_t column = 0;
    for (; column + VECTORS * LANES <= columns; column += VECTORS * LANES)
        if (in_float)
            run_column(product, column, VECTORS, 1);
        else
            run_column(product, column, VECTORS, 0);
    if (column == columns) return;
    if (in_float)
        run_column(product, column, 1, 1);
    else
        run_column(product, column, 1, 0);
}
