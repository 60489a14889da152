// Convolutions and their transposes: which form computes them, and how their weights are packed beforehand.

/// A convolution, or its transpose, by the form that computes it.
template <class T>
struct ConvForm {
    const Conv<T>& args;
    bool transposed;
    WeightMatrix<T> matrix;
    enum { winograd, by_rows, by_columns, by_tiles } form;
    const char* name;  // of the form, and why it is no faster one

    ConvForm(const Conv<T>& conv, bool is_transposed)
        : args(conv), transposed(is_transposed) {
        const Windows& windows = conv.windows;
        const Size m = conv.m / conv.groups, c = conv.c / conv.groups, taps = windows.kernel.product();
        matrix = transposed ? WeightMatrix<T>{conv.w, c, m, conv.groups, taps, taps, c * taps, conv.w_part}
                            : WeightMatrix<T>{conv.w, m, c, conv.groups, taps, c * taps, taps, conv.w_part};
        const bool rows_in_line = conv.groups == 1 && windows.kernel[2] > 1 && windows.dilations[2] == 1;
        const bool full_src = conv.src_lanes == kLanesOfBlock, full_out = conv.out_lanes == kLanesOfBlock;
        name = WinogradProduct<T>::obstacle(conv, transposed ? windows.x : windows.z, matrix.sources,
                                            matrix.outs);
        if (name == nullptr)
            form = winograd, name = "by Winograd's F(4×4, 3×3)";
        else if (rows_in_line && !transposed && !full_src && full_out)
            form = by_rows, name = "by rows of windows, as there are few channels to read";
        else if (rows_in_line && transposed && !full_out && full_src)
            form = by_columns, name = "by columns of windows, as there are few channels to write";
        else
            form = by_tiles;
        if (form == by_tiles && !full_out) name = "by sums of lanes, as there are few channels to write";
    }

    ReadsList reads() const { return transposed ? ReadsList::vjp(args.windows) : ReadsList::forward(args.windows); }

    void run() const {
        const bool in_tiles = form == by_tiles && args.out_lanes == kLanesOfBlock;
        if (args.by_sign && !in_tiles) return run_by_sign();
        if (form == winograd) return run_winograd(args, matrix, transposed);
        if (form == by_rows) return run_by_rows(args, matrix);
        if (form == by_columns) return ColumnSums<T>(args, matrix.part).run();
        run_products<T>(args, reads(), matrix, args.by_sign ? &args.other_part : nullptr, args.panels, args.n,
                        args.src_lanes, args.src_lanes, args.out_lanes);
    }

    /// One product for each sign of what multiplies it.
    void run_by_sign() const {
        const Triple& plane = transposed ? args.windows.x : args.windows.z;
        const Size size = args.n * blocks_of(matrix.all_outs(), args.out_lanes) * plane.product() * args.out_lanes;
        Conv<T> one = args, other = args;
        one.by_sign = other.by_sign = false;
        one.end = {};
        one.end.out = scratch<T>(Scratch::others, size);
        one.end.times = args.end.times;
        one.end.times_part = {args.end.times_part.positive, T(0)};
        one.end.times_high = args.end.times_high;
        one.end.plus = args.end.plus;
        one.end.plus_factor = args.end.plus_factor;
        one.end.channels = args.end.channels;
        ConvForm<T>(one, transposed).run();
        other.w_part = args.other_part;
        other.end.times_part = {T(0), args.end.times_part.negative};
        other.end.plus = one.end.out;
        other.end.plus_factor = T(1);
        ConvForm<T>(other, transposed).run();
    }

    /// Packing beforehand pays, but where weights are read as they lie, or copied line by line.
    Size panels_size() const {
        const bool lines = matrix.taps == 1 && matrix.out_step == 1 && matrix.outs % kLanes<T> == 0;
        return form != by_tiles || args.out_lanes < kLanesOfBlock || lines ? 0 : for_panels([](auto&&...) {});
    }

    /// fill(reads, panels, panel size, where they begin) for each sum; returns the size of all.
    template <class Fill>
    Size for_panels(const Fill& fill) const {
        const ReadsList list = reads();
        const Size panels = blocks_of(blocks_of(matrix.all_outs(), kLanesOfBlock) * kLanesOfBlock, kPanel<T>);
        Size at = 0;
        for (Size i = 0; i < list.size(); ++i) {
            const Size size = size_of_panel(matrix, list[i].taps());
            fill(list[i], panels, size, at);
            at += panels * size;
        }
        return at;
    }

    void fill_panels(T* to) const {
        WeightMatrix<T> whole = matrix;
        whole.part = {1, 1};
        for_panels([&](const Reads& some, Size panels, Size size, Size at) {
            LRPFAST_TARGET::fill_panels(whole, 0, panels, taps_of(whole, some), to + at, size);
        });
    }
};

template <class T>
const char* conv_form(const Conv<T>& args, bool transposed) {
    return ConvForm<T>(args, transposed).name;
}

template <class T>
Size panels_size(const Conv<T>& args, bool transposed) {
    return ConvForm<T>(args, transposed).panels_size();
}

template <class T>
void fill_all_panels(const Conv<T>& args, bool transposed, T* panels) {
    ConvForm<T>(args, transposed).fill_panels(panels);
}

template <class T>
void conv_forward(const Conv<T>& args) {
    ConvForm<T>(args, false).run();
}

template <class T>
void conv_vjp(const Conv<T>& args) {
    ConvForm<T>(args, true).run();
}
