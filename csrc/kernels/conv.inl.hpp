// Convolutions: products of a weight matrix with shifted reads of a strip (see shifts.hpp).
//
// A task computes a block of channels × positions. For one block of the products' axis after the other
// it copies what it needs of the input into a strip, and of the weights into a panel, both small
// enough for the caches; then register tiles of kTileRows channels × kTileVectors vectors of
// positions run over them. Lanes are positions, so no output's sum depends on its neighbours.

constexpr int kTileVectors = 3;
constexpr Size kDepth = 256;             // products that are added up before they join the rest
constexpr Size kRowPitch = kDepth + 16;  // of weights that are kept row by row; not a power of two
constexpr Size kBlockRows = 128;         // channels of a task, at most
constexpr Size kBlockBytes = 1920;       // of positions of one channel in a task, at most

/// The weights as a matrix: element (row, source, tap) is w[row · row_step + source · source_step + tap].
template <class T>
struct WeightMatrix {
    const T* w;
    Size rows, sources, taps, row_step, source_step;
};

/// c (+)= a · b for ROWS × VECTORS; b's line for product k begins at strip + offsets[k].
template <class T, int ROWS, int VECTORS, bool ByProduct>
void multiply_tile(const T* a, const T* strip, const Size* offsets, Size depth, T* c, Size c_pitch,
                   bool first) {
    Vec<T> tile[ROWS][VECTORS] = {};
    for (Size k = 0; k < depth; ++k) {
        const T* line = strip + offsets[k];
        Vec<T> b[VECTORS];
        for (int v = 0; v < VECTORS; ++v) b[v] = load(line + v * kLanes<T>);
        for (int r = 0; r < ROWS; ++r) {
            const Vec<T> weight = splat(ByProduct ? a[k * kTileRows + r] : a[r * kRowPitch + k]);
            for (int v = 0; v < VECTORS; ++v) tile[r][v] = multiply_add(weight, b[v], tile[r][v]);
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) {
            T* to = c + r * c_pitch + v * kLanes<T>;
            store(to, first ? tile[r][v] : load(to) + tile[r][v]);
        }
}

template <class T>
using TileFunction = void (*)(const T*, const T*, const Size*, Size, T*, Size, bool);

template <class T, int ROWS, bool ByProduct>
TileFunction<T> tile_of_width(Size vectors) {
    if (vectors >= 3) return multiply_tile<T, ROWS, 3, ByProduct>;
    if (vectors == 2) return multiply_tile<T, ROWS, 2, ByProduct>;
    return multiply_tile<T, ROWS, 1, ByProduct>;
}

template <class T>
TileFunction<T> tile_for(Size rows, Size vectors, bool by_product) {
    if (rows <= kTileRows / 2)
        return by_product ? tile_of_width<T, kTileRows / 2, true>(vectors)
                          : tile_of_width<T, kTileRows / 2, false>(vectors);
    return by_product ? tile_of_width<T, kTileRows, true>(vectors)
                      : tile_of_width<T, kTileRows, false>(vectors);
}

template <class T>
struct ShiftedProduct {
    const Linear<T>& args;
    const Shifts& shifts;
    WeightMatrix<T> weights;  // of the first group
    Size samples, groups, extent;
    Size block_depth, block_rows, block_positions;
    bool by_product;  // the panel's order: row by row, or product by product

    ShiftedProduct(const Linear<T>& linear, const Shifts& sum, const WeightMatrix<T>& matrix, Size n,
                   Size group_count)
        : args(linear),
          shifts(sum),
          weights(matrix),
          samples(n),
          groups(group_count),
          extent(sum.extent(n)),
          by_product(matrix.row_step == 1) {
        const Size taps = at_least(1, shifts.tap_count());
        block_depth = taps <= kDepth ? kDepth / taps * taps : kDepth;
        const Size tile = kTileVectors * kLanes<T>;
        const Size positions = kBlockBytes / static_cast<Size>(sizeof(T)) / tile * tile;
        block_positions = blocks_of(blocks_of(extent, blocks_of(extent, positions)), tile) * tile;
        block_rows = at_most(kBlockRows, blocks_of(weights.rows, kTileRows) * kTileRows);
        // Give each thread something to do; the results do not depend on it.
        const Size wanted = usable_threads() > 1 ? 2 * usable_threads() : 1;
        while (block_rows > 2 * kTileRows && tasks() < wanted)
            block_rows = blocks_of(block_rows / 2, kTileRows) * kTileRows;
    }

    Size row_blocks() const { return blocks_of(weights.rows, block_rows); }
    Size tasks() const { return groups * row_blocks() * blocks_of(extent, block_positions); }

    Size work() const { return groups * weights.rows * (weights.sources * shifts.tap_count() + 32) * extent; }

    /// Copy one row's weights of products [k0, k0 + depth).
    void fill_panel_row(const T* row, Size k0, Size depth, T* to) const {
        const Size taps = shifts.tap_count();
        const T* of_source = row + k0 / taps * weights.source_step;
        if (taps == weights.source_step) {  // all products lie in one line
            copy_line(args.w_part, row + k0, depth, to);
        } else if (taps == weights.taps && depth % taps == 0) {  // the taps of each source do
            for (Size k = 0; k < depth; k += taps, of_source += weights.source_step)
                copy_line(args.w_part, of_source, taps, to + k);
        } else {
            const Shifts::Tap* tap = shifts.taps();
            Size t = k0 % taps;
            for (Size k = 0; k < depth; ++k) {
                to[k] = of_source[tap[t].index];
                if (++t == taps) t = 0, of_source += weights.source_step;
            }
            copy_line<T>(args.w_part, to, depth, to);
        }
    }

    /// Copy the weights of products [k0, k0 + depth) for `rows` rows from `row0` on.
    void fill_panel(const T* w, Size row0, Size rows, Size k0, Size depth, T* panel) const {
        const Size padded = blocks_of(rows, kTileRows) * kTileRows;
        if (by_product) {
            for (Size k = 0; k < depth; ++k)
                for (Size row = 0; row < rows; row += kTileRows)
                    copy_tile_column(w + (k0 + k) * weights.source_step + row0 + row, rows - row,
                                     panel + row * depth + k * kTileRows);
            return;
        }
        for (Size row = 0; row < rows; ++row)
            fill_panel_row(w + (row0 + row) * weights.row_step, k0, depth, panel + row * kRowPitch);
        for (Size row = rows; row < padded; ++row) fill_line(T(0), depth, panel + row * kRowPitch);
    }

    /// Copy the weights of one product for the rows of a tile, zero beyond the last row.
    void copy_tile_column(const T* from, Size rows, T* to) const {
        typedef T Column __attribute__((vector_size(kTileRows * sizeof(T))));
        Column column{};
        if (rows >= kTileRows)
            __builtin_memcpy(&column, from, sizeof column);
        else
            for (int i = 0; i < rows; ++i) column[i] = from[i];
        column = part_of(column, args.w_part);
        __builtin_memcpy(to, &column, sizeof column);
    }

    /// Copy the inputs of products [k0, k0 + depth) for `count` positions from `first` on.
    void fill_strips(Size source0, Size k0, Size depth, Size first, Size count, T* strip, Size pitch,
                     Size* offsets) const {
        const Size taps = shifts.tap_count(), in_size = shifts.in_size();
        const Size channel0 = k0 / taps, channels = (k0 + depth - 1) / taps + 1 - channel0;
        for (Size channel = 0; channel < channels; ++channel) {
            const T* plane = args.src + (source0 + channel0 + channel) * in_size;
            const Source<T> source{plane,         samples, groups * weights.sources * in_size,
                                   args.src_part, nullptr, {1, 1}};
            fill_strip(shifts, source, T(0), first, count + shifts.furthest,
                       strip + channel * shifts.phases * pitch, pitch);
        }
        const Shifts::Tap* tap = shifts.taps();
        for (Size k = 0; k < depth; ++k) {
            const Shifts::Tap& at = tap[(k0 + k) % taps];
            offsets[k] = (((k0 + k) / taps - channel0) * shifts.phases + at.phase) * pitch + at.shift;
        }
    }

    void run(Size task) const {
        const Size row_block = task % row_blocks();
        const Size position_block = task / row_blocks() % blocks_of(extent, block_positions);
        const Size group = task / row_blocks() / blocks_of(extent, block_positions);
        const Size row0 = row_block * block_rows, rows = at_most(block_rows, weights.rows - row0);
        const Size first = position_block * block_positions, count = at_most(block_positions, extent - first);
        const Size taps = shifts.tap_count(), products = weights.sources * taps;
        const Size whole = blocks_of(count, kLanes<T>) * kLanes<T>,
                   pitch = whole + shifts.furthest + kLanes<T>;
        const Size c_pitch = block_positions + kLanes<T>;

        T* sums = scratch<T>(Scratch::result, (block_rows + kTileRows) * c_pitch);
        if (products == 0)
            for (Size i = 0; i < rows * c_pitch; ++i) sums[i] = 0;
        for (Size k = 0; k < products; k += block_depth) {
            const Size depth = at_most(block_depth, products - k);
            Size offsets[kDepth];
            T* strip = scratch<T>(Scratch::strip, (depth / taps + 2) * shifts.phases * pitch);
            T* panel = scratch<T>(Scratch::weights, (block_rows + kTileRows) * kRowPitch);
            const T* w = weights.w + group * group_weights();
            fill_strips(group * weights.sources, k, depth, first, whole, strip, pitch, offsets);
            fill_panel(w, row0, rows, k, depth, panel);
            for (Size q = 0; q < count; q += kTileVectors * kLanes<T>)
                for (Size row = 0; row < rows; row += kTileRows)
                    tile_for<T>(rows - row, blocks_of(count - q, kLanes<T>), by_product)(
                        panel + row * (by_product ? depth : kRowPitch), strip + q, offsets, depth,
                        sums + row * c_pitch + q, c_pitch, k == 0);
        }
        const Ending<T> ending(args);
        for (Size row = 0; row < rows; ++row) {
            const Size channel = group * weights.rows + row0 + row;
            put_results(shifts, ending, samples, groups * weights.rows * shifts.out_size(), first, count,
                        sums + row * c_pitch, channel * shifts.out_size(), ahead(args.bias, channel));
        }
    }

    Size group_weights() const {
        return at_least(weights.rows * weights.row_step, weights.sources * weights.source_step);
    }
};

/// A convolution of one window is a dense layer in disguise.
template <class T>
Gemm<T> as_dense(const Conv<T>& args) {
    Gemm<T> gemm;
    static_cast<Linear<T>&>(gemm) = args;
    gemm.n = args.n;
    gemm.m = args.m;
    gemm.k = args.c * args.windows.x.product();
    return gemm;
}

template <class T>
void run_product(const ShiftedProduct<T>& product) {
    parallel_for(product.tasks(), product.work(), [&](Size task) { product.run(task); });
}

template <class T>
void conv_forward(const Conv<T>& args) {
    if (args.n == 0) return;
    if (args.groups == 1 && is_one_window(args.windows)) return gemm_forward(as_dense(args));
    const Size m = args.m / args.groups, c = args.c / args.groups, taps = args.windows.kernel.product();
    const ShiftList list = ShiftList::forward(args.windows);
    run_product(ShiftedProduct<T>(args, list[0], {args.w, m, c, taps, c * taps, taps}, args.n, args.groups));
}

template <class T>
void conv_vjp(const Conv<T>& args) {
    if (args.n == 0) return;
    // A dense layer's bias would be one of its inputs, a convolution's one of its channels.
    const bool same_bias = args.bias == nullptr || args.windows.x.product() == 1;
    if (same_bias && args.groups == 1 && is_one_window(args.windows)) return gemm_vjp(as_dense(args));
    const Size m = args.m / args.groups, c = args.c / args.groups, taps = args.windows.kernel.product();
    const ShiftList list = ShiftList::vjp(args.windows);
    for (Size i = 0; i < list.size(); ++i)
        run_product(
            ShiftedProduct<T>(args, list[i], {args.w, c, m, taps, taps, c * taps}, args.n, args.groups));
}
