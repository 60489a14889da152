// 3×3 convolutions by Winograd's minimal filtering F(4×4, 3×3): 36 products for 16 outputs instead of 144.
//
// An input tile d of 6 × 6, a filter g and the output tile y of 4 × 4 obey
//
//     y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A                  (Lavin and Gray 2016, equation 8)
//
// The matrices evaluate polynomials at 0, ±√½, ±√2 and ∞. With these points the rounding errors stay within
// some 2e-6 of the largest output in float32; with the usual 0, ±1, ±2, ∞ they are four times as large.
// Sums over source channels happen between the transforms: 36 products of matrices.

constexpr Size kWinogradTile = 4, kWinogradReach = 6, kWinogradParts = 36;
constexpr Size kWinogradTiles = 48;            // that are finished at a time
constexpr Size kWinogradBytes = 6 << 20;       // of transformed inputs at a time
constexpr double kRootHalf = 0.70710678118654752, kRootTwo = 1.41421356237309505;

/// Bᵀ times six vectors, STEP apart.
template <class T, int STEP>
LRPFAST_INLINE void winograd_input(const Vec<T>* d, Vec<T>* to) {
    const Vec<T> d0 = d[0], d1 = d[STEP], d2 = d[2 * STEP], d3 = d[3 * STEP], d4 = d[4 * STEP], d5 = d[5 * STEP];
    const T half = T(0.5), two = T(2), both = T(2.5);
    const Vec<T> even_a = multiply_add(splat(-two), d2, d4), odd_a = (d3 - d1 * two) * T(kRootHalf);
    const Vec<T> even_b = multiply_add(splat(-half), d2, d4), odd_b = (d3 - d1 * half) * T(kRootTwo);
    to[0] = multiply_add(splat(-both), d2, d0 + d4);
    to[STEP] = even_a + odd_a;
    to[2 * STEP] = even_a - odd_a;
    to[3 * STEP] = even_b + odd_b;
    to[4 * STEP] = even_b - odd_b;
    to[5 * STEP] = multiply_add(splat(-both), d3, d1 + d5);
}

/// G times three vectors, FROM apart, to six, TO apart.
template <class T, int FROM, int TO>
LRPFAST_INLINE void winograd_filter(const Vec<T>* g, Vec<T>* to) {
    const Vec<T> g0 = g[0], g1 = g[FROM], g2 = g[2 * FROM];
    const T third = T(-1.0 / 1.5), sixth = T(1.0 / 6);
    const Vec<T> even_a = multiply_add(splat(T(0.5)), g2, g0) * third, odd_a = g1 * (T(kRootHalf) * third);
    const Vec<T> even_b = multiply_add(splat(T(2)), g2, g0) * sixth, odd_b = g1 * (T(kRootTwo) * sixth);
    to[0] = g0;
    to[TO] = even_a + odd_a;
    to[2 * TO] = even_a - odd_a;
    to[3 * TO] = even_b + odd_b;
    to[4 * TO] = even_b - odd_b;
    to[5 * TO] = g2;
}

/// Aᵀ times six vectors, FROM apart, to four, TO apart.
template <class T, int FROM, int TO>
LRPFAST_INLINE void winograd_output(const Vec<T>* m, Vec<T>* to) {
    const Vec<T> even_a = m[FROM] + m[2 * FROM], odd_a = (m[FROM] - m[2 * FROM]) * T(kRootHalf);
    const Vec<T> even_b = m[3 * FROM] + m[4 * FROM], odd_b = (m[3 * FROM] - m[4 * FROM]) * T(kRootTwo);
    to[0] = m[0] + (even_a + even_b);
    to[TO] = odd_a + odd_b;
    to[2 * TO] = multiply_add(splat(T(0.5)), even_a, even_b * T(2));
    to[3 * TO] = multiply_add(splat(T(0.5)), odd_a, multiply_add(splat(T(2)), odd_b, m[5 * FROM]));
}

template <class T>
struct WinogradProduct {
    const Conv<T>& args;
    WeightMatrix<T> matrix;
    bool reversed;
    Finisher<T> finisher;
    Triple in, out;
    Size pad_rows, pad_columns, tile_columns, tiles, src_blocks, out_blocks, panels;

    WinogradProduct(const Conv<T>& conv, const WeightMatrix<T>& weights, bool transposed)
        : args(conv), matrix(weights), reversed(transposed), finisher(conv.end) {
        in = transposed ? conv.windows.z : conv.windows.x;
        out = transposed ? conv.windows.x : conv.windows.z;
        pad_rows = transposed ? 2 - conv.windows.pads[1] : conv.windows.pads[1];
        pad_columns = transposed ? 2 - conv.windows.pads[2] : conv.windows.pads[2];
        tile_columns = blocks_of(out[2], kWinogradTile);
        tiles = blocks_of(out[1], kWinogradTile) * tile_columns;
        src_blocks = blocks_of(matrix.sources, kLanesOfBlock);
        out_blocks = blocks_of(matrix.outs, kLanesOfBlock);
        panels = blocks_of(out_blocks * kLanesOfBlock, kPanel<T>);  // the last may have no outputs but padding
    }

    /// What speaks against this form: that it does not apply, is not accurate enough, or not faster; null if nothing.
    static const char* obstacle(const Conv<T>& args, const Triple& out, Size sources, Size outs) {
        const Windows& w = args.windows;
        bool square = w.kernel[0] == 1 && w.x[0] == 1 && w.pads[0] == 0 && w.strides[0] == 1, plain = true;
        for (int at = 1; at < 3; ++at) {
            square = square && w.kernel[at] == 3;
            plain = plain && w.strides[at] == 1 && w.dilations[at] == 1 && w.pads[at] <= 2;
        }
        if (!square) return "in tiles, as the kernel is not 3×3";
        if (!plain) return "in tiles, as there are strides, dilations or wide pads";
        if (args.groups > 1) return "in tiles, as there are groups";
        if (sizeof(T) != sizeof(float)) return "in tiles, as Winograd's algorithm has not the accuracy of float64";
        if (args.exact) return "in tiles, as Winograd's algorithm is not exact enough here";
        if (args.src_lanes != kLanesOfBlock || args.out_lanes != kLanesOfBlock || sources < kLanesOfBlock ||
            outs < kLanesOfBlock)
            return "in tiles, as there are few channels";
        const Size squares = blocks_of(out[1], kWinogradTile) * blocks_of(out[2], kWinogradTile);
        const bool pays = 3 * out.product() * 9 >= 4 * (squares * kWinogradParts + 500);  // filters cost like 500 products
        return pays ? nullptr : "in tiles, as the plane is too small for Winograd's algorithm to pay";
    }

    // What lies apart by a power of two shares a few places of the cache: arrays of 36 parts are an odd
    // number of its lines apart.
    static constexpr Size odd_lines(Size size) { return size + (size / kLine % 2 == 0 ? kLine : 0); }
    static constexpr Size kLine = 64 / static_cast<Size>(sizeof(T));
    static constexpr Size kProducts = odd_lines(kWinogradTiles * kPanel<T>);     // of one part
    static constexpr Size kFilters = odd_lines(kLanesOfBlock * kPanel<T>);       // of one part and block

    /// Transformed inputs of one part: (block, tile, lane).
    Size part_size(Size count) const { return odd_lines(src_blocks * count * kLanesOfBlock); }
    /// Transformed filters of a panel: (block, part, source, output).
    Size filters_size() const { return src_blocks * kWinogradParts * kFilters; }

    /// Transform one block of channels of tile `tile` into place `at` of `count`, for each of the 36 parts.
    void transform_input(Size sample, Size tile, Size block, Size at, Size count, T* inputs) const {
        const Size row0 = tile / tile_columns * kWinogradTile - pad_rows;
        const Size column0 = tile % tile_columns * kWinogradTile - pad_columns;
        const T* plane = args.src + (sample * src_blocks + block) * in.product() * kLanesOfBlock;
        T* to = inputs + (block * count + at) * kLanesOfBlock;
        for (Size lane = 0; lane < kLanesOfBlock; lane += kLanes<T>) {
            Vec<T> tile_values[kWinogradParts], rows[kWinogradParts], columns[kWinogradParts];
            for (Size i = 0; i < kWinogradReach; ++i)
                for (Size j = 0; j < kWinogradReach; ++j) {
                    const Size row = row0 + i, column = column0 + j;
                    const bool inside = row >= 0 && row < in[1] && column >= 0 && column < in[2];
                    tile_values[i * kWinogradReach + j] =
                        inside ? part_of(load(plane + (row * in[2] + column) * kLanesOfBlock + lane), args.src_part)
                               : Vec<T>{};
                }
            LRPFAST_UNROLL
            for (int j = 0; j < kWinogradReach; ++j)
                winograd_input<T, kWinogradReach>(tile_values + j, rows + j);
            LRPFAST_UNROLL
            for (int i = 0; i < kWinogradReach; ++i)
                winograd_input<T, 1>(rows + i * kWinogradReach, columns + i * kWinogradReach);
            const Size step = part_size(count);
            LRPFAST_UNROLL
            for (int part = 0; part < kWinogradParts; ++part) store(to + part * step + lane, columns[part]);
        }
    }

    /// The panel's filters, transformed.
    void transform_filters(Size panel, T* filters) const {
        if (panel * kPanel<T> >= matrix.outs) return;
        T* block = scratch<T>(Scratch::source, kLanesOfBlock * 9 * kPanel<T>);
        for (Size source = 0; source < matrix.sources; source += kLanesOfBlock) {
            const Size count = at_most(kLanesOfBlock, matrix.sources - source);
            fill_panel(matrix, panel * kPanel<T>, source, count, {nullptr, 9, reversed}, block);
            for (Size s = 0; s < count; ++s)
                for (Size lane = 0; lane < kPanel<T>; lane += kLanes<T>) {
                    Vec<T> taps[9], rows[18], parts[kWinogradParts];
                    LRPFAST_UNROLL
                    for (int tap = 0; tap < 9; ++tap) taps[tap] = load(block + (s * 9 + tap) * kPanel<T> + lane);
                    LRPFAST_UNROLL
                    for (int j = 0; j < 3; ++j) winograd_filter<T, 3, 3>(taps + j, rows + j);
                    LRPFAST_UNROLL
                    for (int i = 0; i < kWinogradReach; ++i)
                        winograd_filter<T, 1, 1>(rows + i * 3, parts + i * kWinogradReach);
                    T* to = filters + source / kLanesOfBlock * kWinogradParts * kFilters + s * kPanel<T> + lane;
                    LRPFAST_UNROLL
                    for (int part = 0; part < kWinogradParts; ++part) store(to + part * kFilters, parts[part]);
                }
        }
    }

    /// The outputs of a panel for `count` tiles from `first` on, out of `all` whose inputs are transformed;
    /// `tile0` is the first of those.
    void run(Size panel, const T* filters, const T* inputs, Size all, Size first, Size count, Size tile0,
             const SlotSums<T>& sums) const {
        T* products = scratch<T>(Scratch::result, kWinogradParts * kProducts);
        const Size outs = at_most(kPanel<T>, out_blocks * kLanesOfBlock - panel * kPanel<T>);
        Size places[kTilePlaces];
        const Size tile = blocks_of(count, blocks_of(count, kTilePlaces));
        for (Size part = 0; part < kWinogradParts && panel * kPanel<T> < matrix.outs; ++part) {
            const TileSource<T> source{inputs + part * part_size(all), all * kLanesOfBlock, kLanesOfBlock, 0,
                                       matrix.sources, kLanesOfBlock, 1, kPanel<T>,
                                       kWinogradParts * kFilters - kLanesOfBlock * kPanel<T>};
            for (Size i = 0; i < count; i += tile) {
                const Size some = at_most(tile, count - i);
                for (Size p = 0; p < some; ++p) places[p] = first + i + p;
                tile_for<T>(some, matrix.outs - panel * kPanel<T>, false)(
                    source, places, filters + part * kFilters, {1, 1}, products + part * kProducts + i * kPanel<T>,
                    kPanel<T>);
            }
        }
        for (Size i = 0; i < count; ++i)
            finish(panel, outs, (tile0 + first + i) / tiles, (tile0 + first + i) % tiles,
                   products + i * kPanel<T>, sums);
    }

    /// Transform one tile of results back and write it.
    void finish(Size panel, Size outs, Size sample, Size tile, const T* products, const SlotSums<T>& sums) const {
        const Size row0 = tile / tile_columns * kWinogradTile, column0 = tile % tile_columns * kWinogradTile;
        const Size left = at_least(0, matrix.outs - panel * kPanel<T>);
        const Size computed = at_most(kPanel<T>, blocks_of(left, kLanes<T>) * kLanes<T>);
        T results[kWinogradTile * kWinogradTile * kPanel<T>];
        Size places[kWinogradTile * kWinogradTile], count = 0;
        const Size rows_inside = at_most(kWinogradTile, out[1] - row0), columns_inside = at_most(kWinogradTile, out[2] - column0);
        for (Size i = 0; i < rows_inside; ++i)
            for (Size j = 0; j < columns_inside; ++j) places[count++] = (row0 + i) * out[2] + column0 + j;
        for (Size lane = 0; lane < outs; lane += kLanes<T>) {
            Vec<T> parts[kWinogradParts], rows[24], values[16];
            for (Size part = 0; part < kWinogradParts; ++part)
                parts[part] = lane < computed ? load(products + part * kProducts + lane) : Vec<T>{};
            LRPFAST_UNROLL
            for (int j = 0; j < kWinogradReach; ++j)
                winograd_output<T, kWinogradReach, kWinogradReach>(parts + j, rows + j);
            LRPFAST_UNROLL
            for (int i = 0; i < kWinogradTile; ++i)
                winograd_output<T, 1, 1>(rows + i * kWinogradReach, values + i * kWinogradTile);
            T* to = results + lane;
            for (Size i = 0; i < rows_inside; ++i)
                for (Size j = 0; j < columns_inside; ++j, to += kPanel<T>) store(to, values[i * kWinogradTile + j]);
        }
        Totals totals{};
        finisher.places({results, nullptr, kPanel<T>, places, count, panel * kPanel<T>, outs, sample, out_blocks, out.product()}, totals);
        sums.add(sample, panel * tiles + tile, totals);
    }
};

template <class T>
void run_winograd(const Conv<T>& args, const WeightMatrix<T>& matrix, bool transposed) {
    const WinogradProduct<T> product(args, matrix, transposed);
    const SlotSums<T> sums(product.finisher, args.n, product.panels * product.tiles);
    const Size all = args.n * product.tiles, bytes = kWinogradParts * product.part_size(1) * static_cast<Size>(sizeof(T));
    const Size at_once = at_most(all, at_least(kWinogradTiles, kWinogradBytes / bytes));
    T* inputs = scratch<T>(Scratch::inputs, kWinogradParts * product.part_size(at_once));
    const Size work = args.n * product.out.product() * matrix.outs * matrix.sources * 4;
    for (Size tile0 = 0; tile0 < all; tile0 += at_once) {
        const Size count = at_most(at_once, all - tile0);
        constexpr Size kTilesOfTask = 8;
        const Size groups = blocks_of(count, kTilesOfTask);
        parallel_for(groups * product.src_blocks, count * product.src_blocks * 36 * 100, [&](Size task) {
            const Size block = task % product.src_blocks, first = task / product.src_blocks * kTilesOfTask;
            for (Size i = first; i < at_most(first + kTilesOfTask, count); ++i)
                product.transform_input((tile0 + i) / product.tiles, (tile0 + i) % product.tiles, block, i, count,
                                        inputs);
        });
        // Each thread something to do; the results do not depend on it.
        const Size threads = usable_threads();
        Size ranges = 1;
        while (threads > 1 && product.panels * ranges < 2 * threads && count >= 4 * ranges * kTilePlaces) ranges *= 2;
        parallel_for(product.panels * ranges, work, [&](Size task) {
            const Size panel = task % product.panels, range = task / product.panels;
            T* filters = scratch<T>(Scratch::weights, product.filters_size());
            product.transform_filters(panel, filters);
            const Size begin = range * count / ranges, last = (range + 1) * count / ranges;
            const Size step = blocks_of(last - begin, blocks_of(last - begin, kWinogradTiles));
            for (Size first = begin; first < last; first += step)
                product.run(panel, filters, inputs, count, first, at_most(step, last - first), tile0, sums);
        });
    }
    sums.settle();
}
