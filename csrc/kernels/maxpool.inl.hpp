// Max-pooling that remembers its winners.

/// Indices in lanes of the width of T.
template <class T>
using IndexVec = decltype(Vec<T>{} > Vec<T>{});

/// The greatest of each position's taps, and the place of the first such tap in its window; −1 where no tap
/// is greater than −∞.
template <class T>
LRPFAST_INLINE void max_taps(const T* strip, const Size* offsets, const Size* places, Size taps, Vec<T>& best,
                             IndexVec<T>& winner) {
    using Index = std::remove_reference_t<decltype(winner[0])>;
    best = splat(-static_cast<T>(__builtin_inf()));
    winner = IndexVec<T>{} - 1;
    for (Size t = 0; t < taps; ++t) {
        const Vec<T> value = load(strip + offsets[t]);
        const auto better = value > best;
        best = better ? value : best;
        winner = better ? IndexVec<T>{} + static_cast<Index>(places[t]) : winner;
    }
}

/// Where the taps of a window lie in the input's plane, as seen from its first tap.
inline void tap_places(const Windows& windows, Size* places) {
    const Triple &kernel = windows.kernel, &steps = windows.dilations;
    for (Size d = 0; d < kernel[0]; ++d)
        for (Size h = 0; h < kernel[1]; ++h)
            for (Size w = 0; w < kernel[2]; ++w)
                *places++ = (d * steps[0] * windows.x[1] + h * steps[1]) * windows.x[2] + w * steps[2];
}

template <class T>
void maxpool_plane(const MaxPool<T>& args, const Shifts& shifts, Size plane) {
    using Index = std::remove_reference_t<decltype(IndexVec<T>{}[0])>;
    const Size extent = shifts.extent(1), taps = shifts.tap_count(), lanes = kLanes<T>;
    const Size pitch = at_most(extent, kPlanePositions) + shifts.furthest + lanes;
    const Size* offsets = tap_offsets(shifts, pitch);
    Size* places = scratch<Size>(Scratch::weights, taps);
    tap_places(args.windows, places);
    T* strip = scratch<T>(Scratch::strip, shifts.phases * pitch);
    T* values = scratch<T>(Scratch::result, kPlanePositions + lanes);
    Index* winners = scratch<Index>(Scratch::source, kPlanePositions + lanes);

    const Source<T> source{args.src + plane * shifts.in_size(), 1, 0, {1, 1}, nullptr, {1, 1}};
    T* out = args.out + plane * shifts.out_size();
    std::int32_t* out_winners = args.winners + plane * shifts.out_size();
    const ShiftAxis* axes = shifts.axes;
    for (Size first = 0; first < extent; first += kPlanePositions) {
        const Size count = at_most(kPlanePositions, extent - first);
        fill_strip(shifts, source, -static_cast<T>(__builtin_inf()), first,
                   blocks_of(count, lanes) * lanes + shifts.furthest, strip, pitch);
        for (Size q = 0; q < count; q += lanes) {
            Vec<T> best;
            IndexVec<T> winner;
            max_taps<T>(strip + q, offsets, places, taps, best, winner);
            store(values + q, best);
            __builtin_memcpy(winners + q, &winner, sizeof winner);
        }
        for_output_rows(shifts, 1, first, count, values, [&](const T* line, Size length, Size, Size at) {
            const Index* line_winners = winners + (line - values);
            const Size w = at % axes[2].count, h = at / axes[2].count % axes[1].count,
                       d = at / axes[2].count / axes[1].count;
            const Size corner =
                ((d * axes[0].step - axes[0].pad) * axes[1].in_size + h * axes[1].step - axes[1].pad) *
                    axes[2].in_size +
                w * axes[2].step - axes[2].pad;
            for (Size i = 0; i < length; ++i) {
                out[at + i] = line[i];
                out_winners[at + i] =
                    line_winners[i] < 0
                        ? 0
                        : static_cast<std::int32_t>(corner + i * axes[2].step + line_winners[i]);
            }
        });
    }
}

template <class T>
void maxpool_forward(const MaxPool<T>& args) {
    const ShiftList list = ShiftList::forward(args.windows);
    parallel_for(args.n * args.c, args.n * args.c * plane_work(list),
                 [&](Size plane) { maxpool_plane(args, list[0], plane); });
}

template <class T>
void maxpool_vjp(const MaxPoolVjp<T>& args) {
    parallel_for(args.planes, args.planes * (64 * args.z_size + 16 * args.x_size), [&](Size plane) {
        const T* src = args.src + plane * args.z_size;
        const std::int32_t* winners = args.winners + plane * args.z_size;
        T* out = args.out + plane * args.x_size;
        if (!args.accumulate)
            for (Size i = 0; i < args.x_size; ++i) out[i] = 0;
        for (Size i = 0; i < args.z_size; ++i) out[winners[i]] += src[i];
    });
}
