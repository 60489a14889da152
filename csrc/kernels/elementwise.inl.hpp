// Kernels whose elements do not meet: factors per channel, endings alone, changes of order.

constexpr Size kChunk = 4096;  // elements of a task, whose sums are added up first

/// An elementwise kernel: value(lanes, element, factors) gives a result; `w`, per channel, may be null.
template <class T, class Value>
struct Elements {
    const Ending<T>& end;
    const T* w;
    Part<T> w_part;
    Size n, blocks, inner, lanes;
    const Value& value;
    const T* epsilons;  // of each sample, or null

    bool by_channel() const { return w != nullptr || end.bias != nullptr || end.quotient.bias != nullptr; }

    void run() const {
        // Elements in a line: of channels in a row; of a block, whose channels come back at each place; of a place.
        const Size size = blocks * inner * lanes;
        const bool in_a_row = !by_channel() || inner == 1, in_blocks = lanes == 1 || lanes % kLanes<T> == 0;
        const Size length = in_a_row ? size : in_blocks ? inner * lanes : lanes, period = in_a_row ? size : lanes;
        // Large planes are gone through side by side: then threads have the same places as in convolutions.
        const Size planes = inner * lanes >= 2 * kChunk ? blocks : 1, plane = size / planes;
        const Size tasks = planes * blocks_of(plane, kChunk);
        const Finisher<T> finisher(end);
        const SlotSums<T> sums(finisher, n, tasks);
        parallel_for(n * tasks, n * size * 16, [&](Size task) {
            const Size sample = task / tasks, part = task % tasks;
            const Size in_plane = part / planes * kChunk, first = part % planes * plane + in_plane;
            const Size last = first + at_most(kChunk, plane - in_plane);
            Totals totals{};
            const T epsilon = epsilons != nullptr ? epsilons[sample] : end.quotient.epsilon;
            for (Size at = first, count; at < last; at += count) {
                count = at_most(length - at % length, last - at);
                const Size channel = in_a_row ? at : in_blocks ? at / length * lanes : at % length;
                put(finisher, {nullptr, count, sample * size + at, channel, period, epsilon}, totals);
            }
            sums.add(sample, part, totals);
        });
        sums.settle();
    }

    /// Compute and write a line.
    void put(const Finisher<T>& finisher, LineResults<T> line, Totals& totals) const {
        T* results = scratch<T>(Scratch::result, line.count);
        line.results = results;
        for_vectors<T>(line.count, [&](Size i, auto lanes_of) LRPFAST_INLINE_LAMBDA {
            const Vec<T> factors = part_of(channels_at(w, line, i, end.channels), w_part);
            lanes_of.put(results + i, value(lanes_of, line.at + i, factors));
        });
        finisher.line(line, totals);
    }
};

template <class T, class Value>
void run_elements(const Ending<T>& end, const T* w, Part<T> w_part, Size n, Size blocks, Size inner, Size lanes,
                  const T* epsilons, const Value& value) {
    Elements<T, Value>{end, w, w_part, n, blocks, inner, lanes, value, epsilons}.run();
}

template <class T>
void affine(const Affine<T>& args) {
    run_elements(args.end, args.w, args.w_part, args.n, args.blocks, args.inner, args.lanes, static_cast<T*>(nullptr),
                 [&](auto lanes, Size at, Vec<T> factors) LRPFAST_INLINE_LAMBDA {
                     return part_of(lanes.get(args.src + at), args.src_part) * factors;
                 });
}

template <class T>
void collect(const Collect<T>& args) {
    run_elements(args.end, static_cast<T*>(nullptr), {1, 1}, args.n, args.blocks, args.inner, args.lanes,
                 static_cast<T*>(nullptr), [&](auto lanes, Size at, Vec<T>) LRPFAST_INLINE_LAMBDA {
                     return part_of(lanes.get(args.src + at), args.src_part);
                 });
}

/// Each sample's ε: times the root mean square of its z, if asked for.
template <class T>
void fill_epsilons(const Divide<T>& args, T* epsilons) {
    const Size size = args.blocks * args.inner * args.lanes;
    for (Size n = 0; n < args.n; ++n) epsilons[n] = args.end.quotient.epsilon;
    if (args.norm_size == 0) return;
    for (Size n = 0; n < args.z_samples; ++n) {
        Wide<T> squares{};
        for_vectors<T>(size, [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
            const Wide<T> z = widen<T>(lanes.get(args.z + n * size + i));
            for (int p = 0; p < kParts<T>; ++p) squares.part[p] += z.part[p] * z.part[p];
        });
        const double root = __builtin_sqrt(lane_sum<T>(squares) / static_cast<double>(args.norm_size));
        epsilons[n] *= static_cast<T>(root);
    }
    if (args.z_samples == 1)
        for (Size n = 1; n < args.n; ++n) epsilons[n] = epsilons[0];
}

template <class T>
void divide(const Divide<T>& args) {
    T* epsilons = scratch<T>(Scratch::source, args.n);
    fill_epsilons(args, epsilons);
    const Size size = args.blocks * args.inner * args.lanes;
    const bool shared = args.z_samples == 1;
    run_elements(args.end, static_cast<T*>(nullptr), {1, 1}, args.n, args.blocks, args.inner, args.lanes, epsilons,
                 [&](auto lanes, Size at, Vec<T>) LRPFAST_INLINE_LAMBDA {
                     return lanes.get(args.z + (shared ? at % size : at));
                 });
}

/// to[i · to_step] = from[i · from_step].
template <class T>
LRPFAST_INLINE void copy_apart(const T* from, Size from_step, Size count, T* to, Size to_step) {
    for (Size i = 0; i < count; ++i) to[i * to_step] = from[i * from_step];
}

/// Other lanes, some places at a time.
template <class T>
void reorder(const Reorder<T>& args) {
    constexpr Size kPlaces = 256;
    const Size src_blocks = blocks_of(args.channels, args.src_lanes), out_blocks = blocks_of(args.channels, args.out_lanes);
    const Size chunks = blocks_of(args.inner, kPlaces);
    const Finisher<T> finisher(args.end);
    const SlotSums<T> sums(finisher, args.n, chunks);
    parallel_for(args.n * chunks, args.n * args.inner * args.channels * 16, [&](Size task) {
        const Size sample = task / chunks, first = task % chunks * kPlaces, count = at_most(kPlaces, args.inner - first);
        Totals totals{};
        T* line = scratch<T>(Scratch::result, kPlaces * args.out_lanes);
        for (Size block = 0; block < out_blocks; ++block) {
            for (Size lane = 0; lane < args.out_lanes; ++lane) {
                const Size channel = block * args.out_lanes + lane;
                const bool there = channel < args.channels;
                const T nothing = 0;
                const T* from = there ? args.src + ((sample * src_blocks + channel / args.src_lanes) * args.inner + first) *
                                                       args.src_lanes + channel % args.src_lanes
                                      : &nothing;
                copy_apart(from, there ? args.src_lanes : 0, count, line + lane, args.out_lanes);
            }
            finisher.lanes(line, count, args.out_lanes,
                           ((sample * out_blocks + block) * args.inner + first) * args.out_lanes,
                           block * args.out_lanes, totals);
        }
        sums.add(sample, task % chunks, totals);
    });
    sums.settle();
}

template <class T>
void sums(const Sums<T>& args) {
    typedef Mode<false, false, Last::nothing, true> Only;
    constexpr Size kSumPiece = kNarrowSums * kLanes<T>;
    Ending<T> end{};
    end.sums = args.out;
    const Finisher<T> finisher(end);
    const Size chunks = blocks_of(args.size, kChunk);
    const SlotSums<T> sums(finisher, args.n, chunks);
    parallel_for(args.n * chunks, 16 * args.n * args.size, [&](Size task) {
        const Size first = task % chunks * kChunk;
        const T* from = args.src + task / chunks * args.size + first;
        Totals totals{};
        const Size count = at_most(kChunk, args.size - first);
        WideTotals<T> wide_totals{};
        for (Size at = 0; at < count; at += kSumPiece) {
            LaneTotals<T> lane_totals{};
            for_vectors<T>(at_most(kSumPiece, count - at), [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
                const Vec<T> x = lanes.get(from + at + i);
                lane_totals.of[kSum] += x;
                lane_totals.of[kMagnitude] += magnitude<T>(x);
            });
            widen_totals<T, Only>(wide_totals, lane_totals);
        }
        add_totals<T, Only>(totals, wide_totals);
        sums.add(task / chunks, task % chunks, totals);
    });
    sums.settle();
}
