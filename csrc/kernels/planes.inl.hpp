// Linear operators that keep channels apart: depthwise convolution and sum-pooling.

constexpr Size kPlanePositions = 4096;  // positions of a strip, at most: it should stay in the cache

/// Where the taps of one channel read in its strip.
inline Size* tap_offsets(const Shifts& shifts, Size pitch) {
    Size* offsets = scratch<Size>(Scratch::offsets, shifts.tap_count());
    for (Size t = 0; t < shifts.tap_count(); ++t)
        offsets[t] = shifts.taps()[t].phase * pitch + shifts.taps()[t].shift;
    return offsets;
}

/// to[q] = Σ_t factors[t] · strip[offsets[t] + q] for VECTORS vectors.
template <class T, int VECTORS>
LRPFAST_INLINE void sum_taps(const T* strip, const Size* offsets, const T* factors, Size taps, T* to) {
    Vec<T> sums[VECTORS] = {};
    for (Size t = 0; t < taps; ++t)
        for (int v = 0; v < VECTORS; ++v)
            sums[v] = multiply_add(splat(factors[t]), load(strip + offsets[t] + v * kLanes<T>), sums[v]);
    for (int v = 0; v < VECTORS; ++v) store(to + v * kLanes<T>, sums[v]);
}

/// Gains of sum-pooling, per place of the input or of the output; null for none.
template <class T>
struct Gains {
    const T *in, *out;
};

/// One channel of one sample through one of the sums that make up the operator; `put` gets the results, row
/// by row, as for_output_rows hands them over.
template <class T, class Put>
void sum_plane(const Linear<T>& args, const Shifts& shifts, Size plane, const T* filter, const T* gain,
               const Put& put) {
    const Size extent = shifts.extent(1), taps = shifts.tap_count();
    const Size pitch = at_most(extent, kPlanePositions) + shifts.furthest + 4 * kLanes<T>;
    const Size* offsets = tap_offsets(shifts, pitch);
    T* factors = scratch<T>(Scratch::weights, taps);
    for (Size t = 0; t < taps; ++t)
        factors[t] = filter == nullptr ? T(1) : part_of(filter[shifts.taps()[t].index], args.w_part);
    T* strip = scratch<T>(Scratch::strip, shifts.phases * pitch);
    T* sums = scratch<T>(Scratch::result, kPlanePositions + 4 * kLanes<T>);

    const Source<T> source{args.src + plane * shifts.in_size(), 1, 0, args.src_part, gain, args.w_part};
    for (Size first = 0; first < extent; first += kPlanePositions) {
        const Size count = at_most(kPlanePositions, extent - first);
        const Size whole = blocks_of(count, kLanes<T>) * kLanes<T>;
        fill_strip(shifts, source, T(0), first, whole + shifts.furthest, strip, pitch);
        Size q = 0;
        for (; q + 4 * kLanes<T> <= whole; q += 4 * kLanes<T>)
            sum_taps<T, 4>(strip + q, offsets, factors, taps, sums + q);
        for (; q < whole; q += kLanes<T>) sum_taps<T, 1>(strip + q, offsets, factors, taps, sums + q);
        for_output_rows(shifts, 1, first, count, sums, put);
    }
}

/// One channel of one sample.
template <class T>
void run_plane(const Linear<T>& args, const ShiftList& list, Size plane, Size channel, const T* filter,
               const Gains<T>& gains) {
    Ending<T> ending(args);
    ending.gain = gains.out;
    ending.gain_part = args.w_part;
    const T* bias = ahead(args.bias, channel);
    const Size out_size = list[0].out_size();
    if (list.size() == 1) {
        sum_plane(args, list[0], plane, filter, gains.in, [&](const T* line, Size count, Size, Size at) {
            ending.put_line(line, count, plane * out_size + at, at, bias);
        });
        return;
    }
    // Several sums each give every few elements of a row: they are put together before the end.
    T* whole = scratch<T>(Scratch::source, out_size);
    for (Size i = 0; i < list.size(); ++i) {
        const Size step = list[i].axes[2].out_step;
        sum_plane(args, list[i], plane, filter, gains.in, [&](const T* line, Size count, Size, Size at) {
            for (Size j = 0; j < count; ++j) whole[at + j * step] = line[j];
        });
    }
    ending.put_line(whole, out_size, plane * out_size, 0, bias);
}

/// For run_tasks: a position costs as much as some products, for its copies.
inline Size plane_work(const ShiftList& list) {
    Size work = 0;
    for (Size i = 0; i < list.size(); ++i) work += list[i].extent(1) * (list[i].tap_count() * 4 + 64);
    return work;
}

/// `filters` has one filter a channel, or is null for filters of ones.
template <class T>
void run_planes(const Linear<T>& args, const ShiftList& list, Size n, Size c, const T* filters, Size taps,
                const Gains<T>& gains) {
    parallel_for(n * c, n * c * plane_work(list), [&](Size plane) {
        const Size channel = plane % c;
        run_plane(args, list, plane, channel, filters == nullptr ? nullptr : filters + channel * taps, gains);
    });
}

template <class T>
void depthwise_forward(const Depthwise<T>& args) {
    const Size taps = args.windows.kernel.product();
    run_planes<T>(args, ShiftList::forward(args.windows), args.n, args.c, args.w, taps, {nullptr, nullptr});
}

template <class T>
void depthwise_vjp(const Depthwise<T>& args) {
    const Size taps = args.windows.kernel.product();
    run_planes<T>(args, ShiftList::vjp(args.windows), args.n, args.c, args.w, taps, {nullptr, nullptr});
}

// Global pooling: one window. To go through its taps one by one would cost the square of the plane's size.

template <class T>
void global_sum_forward(const SumPool<T>& args) {
    const Size size = args.windows.x.product();
    Ending<T> ending(args);
    ending.gain = args.w;
    ending.gain_part = args.w_part;
    parallel_for(args.n * args.c, args.n * args.c * size * 16, [&](Size plane) {
        const T* from = args.src + plane * size;
        Wide<T> sums{};
        for_vectors<T>(size, [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
            const Wide<T> x = widen<T>(part_of(lanes.get(from + i), args.src_part));
            for (int p = 0; p < kParts<T>; ++p) sums.part[p] += x.part[p];
        });
        const T sum = static_cast<T>(lane_sum<T>(sums));
        ending.put_line(&sum, 1, plane, 0, ahead(args.bias, plane % args.c));
    });
}

template <class T>
void global_sum_vjp(const SumPool<T>& args) {
    const Size size = args.windows.x.product();
    const Ending<T> ending(args);
    const T gain = part_of(*args.w, args.w_part);
    parallel_for(args.n * args.c, args.n * args.c * size * 16, [&](Size plane) {
        T* line = scratch<T>(Scratch::result, size);
        fill_line(part_of(args.src[plane], args.src_part) * gain, size, line);
        ending.put_line(line, size, plane * size, 0, ahead(args.bias, plane % args.c));
    });
}

template <class T>
void sumpool_forward(const SumPool<T>& args) {
    if (is_one_window(args.windows)) return global_sum_forward(args);
    run_planes<T>(args, ShiftList::forward(args.windows), args.n, args.c, nullptr, 0, {nullptr, args.w});
}

template <class T>
void sumpool_vjp(const SumPool<T>& args) {
    if (is_one_window(args.windows)) return global_sum_vjp(args);
    run_planes<T>(args, ShiftList::vjp(args.windows), args.n, args.c, nullptr, 0, {args.w, nullptr});
}
