// Convolutions and their transposes: panels of weights times places of the source.
//
// A task has some panels of output channels and a range of places. It packs the panels' weights, so that they
// stay in the cache, and goes through the places in chunks that stay there too.

constexpr Size kPanelBytes = 192 << 10;  // of the weights that a task packs, if there are several panels
constexpr Size kRangeChunks = 8;         // packing pays if a task has at least as many chunks

/// One of the sums of a convolution (see reads.hpp).
template <class T>
struct Product {
    const Linear<T>& args;
    const Reads& reads;
    WeightMatrix<T> matrix;
    Size samples, src_lanes, place_step;
    Finisher<T> finisher;

    Size out_blocks, panels, panels_of_task, chunks, ranges;

    /// `step` numbers lie from one place to the next.
    Product(const Linear<T>& linear, const Reads& sum, const WeightMatrix<T>& weights, Size n, Size lanes,
            Size step)
        : args(linear),
          reads(sum),
          matrix(weights),
          samples(n),
          src_lanes(lanes),
          place_step(step),
          finisher(linear.end) {
        out_blocks = blocks_of(matrix.all_outs(), kLanesOfBlock);
        panels = blocks_of(out_blocks * kLanesOfBlock, kPanel<T>);  // the last may have no outputs but padding
        chunks = blocks_of(reads.count(), kChunkPlaces);
        const Size bytes = matrix.sources * reads.taps() * kPanel<T> * static_cast<Size>(sizeof(T));
        panels_of_task = at_most(panels, at_least(1, kPanelBytes / at_least(1, bytes)));
        // Give each thread something to do; the results do not depend on it.
        ranges = 1;
        const Size wanted = usable_threads() > 1 ? 3 * usable_threads() : 1;
        while (panels_of_task > 1 && tasks() < wanted) panels_of_task = blocks_of(panels_of_task, 2);
        while (tasks() < wanted && all_chunks() >= 2 * ranges * kRangeChunks) ranges *= 2;
    }

    Size panel_groups() const { return blocks_of(panels, panels_of_task); }
    Size all_chunks() const { return samples * chunks; }
    Size tasks() const { return panel_groups() * ranges; }
    Size slots() const { return panels * chunks; }
    Size work() const {
        return samples * reads.count() * matrix.all_outs() * (matrix.sources * reads.taps() + 32);
    }

    /// Taps of the panels, in the order of `reads`.
    PanelTaps panel_taps() const {
        Size* index = scratch<Size>(Scratch::places, reads.taps());
        bool all = reads.taps() == matrix.taps;
        for (Size tap = 0; tap < reads.taps(); ++tap) {
            index[tap] = reads.tap_index(tap);
            all = all && index[tap] == tap;
        }
        return {all ? nullptr : index, reads.taps(), false};
    }

    void run(Size task, const SlotSums<T>& sums, Size slot0) const {
        const Size panel0 = task % panel_groups() * panels_of_task, range = task / panel_groups();
        const Size panel1 = at_most(panel0 + panels_of_task, panels);
        const Size first = range * all_chunks() / ranges, last = (range + 1) * all_chunks() / ranges;
        const Size panel_size = most_sources() * reads.taps() * kPanel<T>;
        T* weights = scratch<T>(Scratch::weights, (panel1 - panel0) * panel_size);
        const PanelTaps taps = panel_taps();
        fill_panels(matrix, panel0, panel1, taps, weights, panel_size);
        for (Size chunk = first; chunk < last; ++chunk) {
            const Chunk places(reads, chunk % chunks * kChunkPlaces, kTilePlaces);
            for (Size panel = panel0; panel < panel1; ++panel) {
                Totals totals{};
                run_panel(places, chunk / chunks, panel, weights + (panel - panel0) * panel_size, totals);
                sums.add(chunk / chunks, slot0 + panel * chunks + chunk % chunks, totals);
            }
        }
    }

    /// Sources of any panel, at most.
    Size most_sources() const {
        if (matrix.groups == 1) return matrix.sources;
        const Size spanned = at_most(matrix.groups, blocks_of(kPanel<T>, matrix.outs) + 1);
        return spanned * matrix.sources;
    }

    /// One panel for the places of one chunk.
    void run_panel(const Chunk& places, Size sample, Size panel, const T* weights, Totals& totals) const {
        const Size out0 = panel * kPanel<T>, taps = reads.taps(), in = reads.in.product();
        const Size outs = at_most(kPanel<T>, out_blocks * kLanesOfBlock - out0);
        Size begin, end;
        panel_sources(matrix, out0, begin, end);
        const Size src_blocks = blocks_of(matrix.sources * matrix.groups, src_lanes);
        const TileSource<T> source{
            args.src + (sample * src_blocks + begin / src_lanes) * in * place_step,
            in * place_step, place_step, begin % src_lanes, taps > 0 ? end - begin : 0, src_lanes, taps,
            0, args.src_part};
        T results[kChunkPlaces * kPanel<T>] = {};
        for (Size i = 0; i < places.count && out0 < matrix.all_outs(); i += places.tile)
            tile_for<T>(at_most(places.tile, places.count - i), matrix.all_outs() - out0,
                        args.src_part.is_identity())(
                source, places.sources + i / places.tile * taps * kTilePlaces, weights, results + i * kPanel<T>);
        finisher.places({results, kPanel<T>, places.out, places.count, out0, outs, sample, out_blocks,
                         reads.out.product()},
                        totals);
    }
};

/// out = matrix · part(src), as the sums of `list`; into blocks of kLanesOfBlock channels, or fewer lanes.
template <class T>
void run_products(const Linear<T>& args, const ReadsList& list, const WeightMatrix<T>& matrix, Size n,
                  Size src_lanes, Size place_step, Size out_lanes) {
    Size slots = 0;
    for (Size i = 0; i < list.size(); ++i)
        slots += out_lanes < kLanesOfBlock ? blocks_of(list[i].count(), kChunkPlaces)
                                           : Product<T>(args, list[i], matrix, n, src_lanes, place_step).slots();
    const SlotSums<T> sums(Finisher<T>(args.end), n, slots);
    Size slot = 0;
    for (Size i = 0; i < list.size(); ++i) {
        if (out_lanes < kLanesOfBlock) {
            const ThinProduct<T> product(args, list[i], matrix, n, src_lanes, out_lanes);
            parallel_for(product.tasks(), product.work(), [&](Size task) { product.run(task, sums, slot); });
            slot += product.chunks;
        } else {
            const Product<T> product(args, list[i], matrix, n, src_lanes, place_step);
            parallel_for(product.tasks(), product.work(), [&](Size task) { product.run(task, sums, slot); });
            slot += product.slots();
        }
    }
    sums.settle();
}

/// A first layer has few channels: with the padding written out, the taps of a window's row and all their
/// channels lie in a line, like the channels of one place.
template <class T>
void run_by_rows(const Conv<T>& args, const WeightMatrix<T>& matrix) {
    const Windows& w = args.windows;
    const Size lanes = args.src_lanes, row = w.kernel[2] * args.c, rows = w.kernel[0] * w.kernel[1];
    Windows padded{{}, w.z, {{w.kernel[0], w.kernel[1], 1}}, w.strides, {}, {{w.dilations[0], w.dilations[1], 1}}};
    for (int at = 0; at < 3; ++at)
        padded.x.at[at] = (w.z[at] - 1) * w.strides[at] + (w.kernel[at] - 1) * w.dilations[at] + 1;

    const Size plane = padded.x.product() * lanes, lines = padded.x[0] * padded.x[1], width = padded.x[2] * lanes;
    T* copy = scratch<T>(Scratch::inputs, args.n * plane);
    parallel_for(args.n * lines, args.n * plane, [&](Size line) {
        const Size sample = line / lines, d = line % lines / padded.x[1] - w.pads[0],
                   h = line % padded.x[1] - w.pads[1];
        T* to = copy + line * width;
        fill_line(T(0), width, to);
        if (d < 0 || d >= w.x[0] || h < 0 || h >= w.x[1]) return;
        const Size first = at_most(w.pads[2], padded.x[2]), count = at_most(w.x[2], padded.x[2] - first);
        copy_line(args.src_part, args.src + ((sample * w.x[0] + d) * w.x[1] + h) * w.x[2] * lanes, count * lanes,
                  to + first * lanes);
    });

    // The weights in the order (output, column and channel, row).
    T* weights = scratch<T>(Scratch::filters, args.m * row * rows);
    T* to = weights;
    for (Size m = 0; m < args.m; ++m)
        for (Size column = 0; column < w.kernel[2]; ++column)
            for (Size c = 0; c < args.c; ++c)
                for (Size r = 0; r < rows; ++r)
                    *to++ = args.w[((m * args.c + c) * rows + r) * w.kernel[2] + column];

    Linear<T> by_rows = args;
    by_rows.src = copy;
    by_rows.src_part = {1, 1};
    run_products<T>(by_rows, ReadsList::forward(padded), {weights, args.m, row, 1, rows, row * rows, rows, matrix.part},
                    args.n, row, lanes, args.out_lanes);
}

/// A plane without neighbours is one long row.
inline Windows flattened(const Windows& windows) {
    Windows flat = windows;
    if (is_pointwise(windows)) flat.x = flat.z = Triple{{1, 1, windows.x.product()}};
    return flat;
}

template <class T>
void conv_forward(const Conv<T>& args) {
    const Windows windows = flattened(args.windows);
    const Size m = args.m / args.groups, c = args.c / args.groups, taps = windows.kernel.product();
    const WeightMatrix<T> matrix{args.w, m, c, args.groups, taps, c * taps, taps, args.w_part};
    if (WinogradProduct<T>::fits(args, args.windows.z, c, m)) return run_winograd(args, matrix, false);
    if (args.src_lanes < kLanesOfBlock && args.out_lanes == kLanesOfBlock && args.groups == 1 &&
        windows.kernel[2] > 1 && windows.dilations[2] == 1)
        return run_by_rows(args, matrix);
    run_products<T>(args, ReadsList::forward(windows), matrix, args.n, args.src_lanes, args.src_lanes,
                    args.out_lanes);
}

template <class T>
void conv_vjp(const Conv<T>& args) {
    const Windows windows = flattened(args.windows);
    const Size m = args.m / args.groups, c = args.c / args.groups, taps = windows.kernel.product();
    const WeightMatrix<T> matrix{args.w, c, m, args.groups, taps, taps, c * taps, args.w_part};
    if (WinogradProduct<T>::fits(args, args.windows.x, m, c)) return run_winograd(args, matrix, true);
    run_products<T>(args, ReadsList::vjp(windows), matrix, args.n, args.src_lanes, args.src_lanes,
                    args.out_lanes);
}
