// Convolutions that start from an image, and those that lead back to one: few channels on one side.

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
    run_products<T>(by_rows, ReadsList::forward(padded),
                    {weights, args.m, row, 1, rows, row * rows, rows, matrix.part}, nullptr, nullptr, args.n, row,
                    lanes, args.out_lanes);
}

/// Back to a few channels: each place of the source is worth a window of numbers, the columns of each of its
/// rows and all their channels in a line. A row of the result is the sum of the lines that fall on it.
template <class T>
struct ColumnSums {
    static constexpr Size kBytes = 512 << 10;  // of windows at a time
    static constexpr Size kBandRows = 16;      // of a band at least, where there are several

    const Conv<T>& args;
    const Windows& windows;
    WeightMatrix<T> matrix;  // from the source to windows
    Size line, lines, pitch, plane, row_places, width;
    Finisher<T> finisher;

    ColumnSums(const Conv<T>& conv, const Part<T>& part)
        : args(conv), windows(conv.windows), finisher(conv.end) {
        line = windows.kernel[2] * args.out_lanes;
        lines = windows.kernel[0] * windows.kernel[1];
        matrix = {ordered_weights(), lines * line, args.m, 1, 1, 1, lines * line, part};
        pitch = blocks_of(matrix.outs, kLanes<T>) * kLanes<T>;
        plane = windows.z.product();
        row_places = windows.z[2];
        const Size reached = (row_places - 1) * windows.strides[2] + windows.kernel[2];
        width = at_least(reached, windows.pads[2] + windows.x[2]) * args.out_lanes;
    }

    /// The weights in the order (source, row, column, channel).
    const T* ordered_weights() const {
        const Size columns = windows.kernel[2], lanes = args.out_lanes;
        T* weights = scratch<T>(Scratch::filters, args.m * lines * line);
        T* to = weights;
        for (Size m = 0; m < args.m; ++m)
            for (Size row = 0; row < lines; ++row)
                for (Size column = 0; column < columns; ++column)
                    for (Size c = 0; c < lanes; ++c)
                        *to++ = c < args.c ? args.w[((m * args.c + c) * lines + row) * columns + column] : T(0);
        return weights;
    }

    /// The rows of the result are shared out in bands, each made from the windows of all rows of the source that fall
    /// on it: bands that meet both compute the few that fall on both.
    void run() const {
        const Size panels = blocks_of(matrix.outs, kPanel<T>), panel_size = args.m * kPanel<T>;
        T* weights = scratch<T>(Scratch::weights, panels * panel_size);
        fill_panels(matrix, 0, panels, {nullptr, 1, false}, weights, panel_size);
        const T* src = parted(args.src, args.src_part,
                              args.n * blocks_of(args.m, kLanesOfBlock) * plane * kLanesOfBlock);
        const Size x_rows = windows.x[0] * windows.x[1];
        const Size bands = at_most(blocks_of(usable_threads(), args.n), blocks_of(x_rows, kBandRows));
        const SlotSums<T> sums(finisher, args.n, x_rows);
        parallel_for(args.n * bands, args.n * plane * matrix.outs * args.m, [&](Size task) {
            const Size sample = task / bands, band = task % bands;
            const Size first = band * x_rows / bands, last = (band + 1) * x_rows / bands;
            T* totals = scratch<T>(Scratch::totals, (last - first) * width);
            fill_line(T(0), (last - first) * width, totals);
            add_windows(src, sample, first, last, weights, panel_size, totals);
            for (Size row = first; row < last; ++row) {
                Totals counted{};
                finish(sample, row, totals + (row - first) * width + windows.pads[2] * args.out_lanes, counted);
                sums.add(sample, row, counted);
            }
        });
        sums.settle();
    }

    /// Add all windows that fall on some rows of the result.
    void add_windows(const T* src, Size sample, Size first_row, Size last_row, const T* weights, Size panel_size,
                     T* totals) const {
        Size begin = windows.z[0] * windows.z[1], end = 0;  // of the source's rows
        for (Size row = first_row; row < last_row; ++row)
            for_source_rows(row, [&](Size z_row, Size) {
                begin = at_most(begin, z_row);
                end = at_least(end, z_row + 1);
            });
        if (begin >= end) return;  // all windows of these rows lie in the padding
        const Size at_once =
            at_most(end - begin, at_least(1, kBytes / (row_places * pitch * static_cast<Size>(sizeof(T)))));
        T* numbers = scratch<T>(Scratch::inputs, at_once * row_places * pitch);
        for (Size first = begin; first < end; first += at_once) {
            const Size last = at_most(first + at_once, end);
            fill_windows(src, sample, first, last, weights, panel_size, numbers);
            for (Size row = first_row; row < last_row; ++row)
                add_lines(row, first, last, numbers, totals + (row - first_row) * width);
        }
    }

    /// The windows of some rows of the source.
    void fill_windows(const T* src, Size sample, Size first_row, Size last_row, const T* weights, Size panel_size,
                      T* numbers) const {
        const Size begin = first_row * row_places, count = (last_row - first_row) * row_places;
        const T* of_sample = src + sample * blocks_of(args.m, kLanesOfBlock) * plane * kLanesOfBlock;
        const TileSource<T> source{of_sample, plane * kLanesOfBlock, kLanesOfBlock, 0, args.m, kLanesOfBlock, 1, kPanel<T>, 0};
        for (Size i = 0; i < count; i += kTilePlaces) {
            const Size some = at_most(kTilePlaces, count - i);
            Size places[kTilePlaces];
            for (Size p = 0; p < some; ++p) places[p] = begin + i + p;
            for (Size out0 = 0; out0 < matrix.outs; out0 += kPanel<T>)
                tile_for<T>(some, matrix.outs - out0, false)(source, places, weights + out0 / kPanel<T> * panel_size,
                                                             {1, 1}, numbers + i * pitch + out0, pitch);
        }
    }

    /// Add what falls on a row of the result, in the order of the source's rows.
    void add_lines(Size x_row, Size first, Size last, const T* numbers, T* to) const {
        const Size step = windows.strides[2] * args.out_lanes;
        for_source_rows(x_row, [&](Size z_row, Size window_row) {
            if (z_row < first || z_row >= last) return;
            const T* from = numbers + (z_row - first) * row_places * pitch + window_row * line;
            // Vectors that overlap are not added one after the other: a sum is not read while it is written.
            const Size apart = blocks_of(blocks_of(line, kLanes<T>) * kLanes<T>, step);
            for (Size first_place = 0; first_place < apart; ++first_place)
                for (Size i = first_place; i < row_places; i += apart)
                    for_vectors<T>(line, [=](Size at, auto lanes) LRPFAST_INLINE_LAMBDA {
                        T* sum = to + i * step + at;
                        lanes.put(sum, lanes.get(sum) + lanes.get(from + i * pitch + at));
                    });
        });
    }

    /// body(row of the source, row of its windows) for all that fall on a row of the result, in the source's order.
    template <class Body>
    void for_source_rows(Size x_row, const Body& body) const {
        const Size d = x_row / windows.x[1], h = x_row % windows.x[1];
        for (Size depth = windows.kernel[0] - 1; depth >= 0; --depth)
            for (Size row = windows.kernel[1] - 1; row >= 0; --row) {
                const Size z_plane = source_of(0, d, depth), z_line = source_of(1, h, row);
                if (z_plane < 0 || z_line < 0) continue;
                body(z_plane * windows.z[1] + z_line, depth * windows.kernel[1] + row);
            }
    }

    /// The place of the source, along an axis, that a window's tap brings to place x; negative if none.
    Size source_of(int axis, Size x, Size tap) const {
        const Size ahead = x + windows.pads[axis] - tap * windows.dilations[axis], stride = windows.strides[axis];
        return ahead >= 0 && ahead % stride == 0 && ahead / stride < windows.z[axis] ? ahead / stride : -1;
    }

    void finish(Size sample, Size row, const T* results, Totals& totals) const {
        const Size lanes = args.out_lanes, count = windows.x[2] * lanes;
        const Size at = (sample * windows.x[0] * windows.x[1] + row) * count;
        finisher.lanes(results, windows.x[2], lanes, at, 0, totals);
    }
};
