// Panels: weights in the order in which tiles read them.

/// Output channels of a panel.
template <class T>
constexpr Size kPanel = kTileVectors * kLanes<T>;

/// part(min(from[i], high)) for a line.
template <class T>
void copy_line(const Part<T>& part, const T* from, Size count, T* to, T high = static_cast<T>(__builtin_inf())) {
    if (part.is_identity() && high == static_cast<T>(__builtin_inf()))
        for_vectors<T>(
            count, [=](Size i, auto lanes) LRPFAST_INLINE_LAMBDA { lanes.put(to + i, lanes.get(from + i)); });
    else
        for_vectors<T>(count, [=](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
            lanes.put(to + i, part_of(minimum(splat(high), lanes.get(from + i)), part));
        });
}

/// part(min(from, high)) for a whole array: itself, or a copy.
template <class T>
const T* parted(const T* from, const Part<T>& part, Size size, T high = static_cast<T>(__builtin_inf())) {
    if (part.is_identity() && high == static_cast<T>(__builtin_inf())) return from;
    constexpr Size kPiece = 1 << 14;
    T* copy = scratch<T>(Scratch::parted, size);
    parallel_for(blocks_of(size, kPiece), size * 16, [=](Size task) {
        const Size first = task * kPiece;
        copy_line(part, from + first, at_most(kPiece, size - first), copy + first, high);
    });
    return copy;
}

template <class T>
void fill_line(T value, Size count, T* to) {
    const Vec<T> values = splat(value);
    for_vectors<T>(count, [=](Size i, auto lanes) LRPFAST_INLINE_LAMBDA { lanes.put(to + i, values); });
}

template <class T>
void add_line(const T* from, Size count, T* to) {
    for_vectors<T>(
        count, [=](Size i, auto lanes) LRPFAST_INLINE_LAMBDA { lanes.put(to + i, lanes.get(to + i) + lanes.get(from + i)); });
}

constexpr Size kLastingBytes = 512 << 10;  // that stay in the cache, though they lie apart

/// The weights as a matrix from sources to outputs: element (out, source, tap) of group g is
/// w[g · group_step + out · out_step + source · source_step + tap].
template <class T>
struct WeightMatrix {
    const T* w;
    Size outs, sources, groups;  // outputs and sources of each group
    Size taps, out_step, source_step;
    Part<T> part;

    Size all_outs() const { return outs * groups; }

    /// Whether a panel's lines evict one another from the cache, as those that are a power of two apart do.
    bool lines_evict() const {
        constexpr Size kSets = 1 << 10;
        const Size line = source_step * static_cast<Size>(sizeof(T));
        return sources * line > kLastingBytes && line % kSets == 0;
    }

    /// Whether tiles may read the weights where they lie: a source's are in a line. Lines that evict one another have to
    /// be long, or to copy them costs less.
    bool lies_as_panels() const {
        return taps == 1 && groups == 1 && out_step == 1 && outs % kLanes<T> == 0 &&
               (!lines_evict() || kPanel<T> * sizeof(T) >= 256);
    }

    /// Of how many sources all tiles take the products before those of the next, so that lines last so long.
    Size lasting_lines() const {
        const Size line = source_step * static_cast<Size>(sizeof(T));
        return lines_evict() ? at_least(1, kLastingBytes / line / kLanesOfBlock) * kLanesOfBlock : sources;
    }
    Size group_step() const { return at_least(outs * out_step, sources * source_step); }
};

#if defined(__clang__) || __GNUC__ >= 12
#define LRPFAST_SHUFFLE(Integer, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LRPFAST_SHUFFLE(Integer, a, b, ...) __builtin_shuffle(a, b, SquareRow<Integer>::type{__VA_ARGS__})
#endif

/// The side of the squares that are transposed at a time: 32 bytes.
template <class T>
constexpr int kSquare = static_cast<int>(32 / sizeof(T));
template <class T>
struct SquareRow {
    typedef T type __attribute__((vector_size(32)));
};

/// Transposes eight rows of eight numbers, or four of four.
LRPFAST_INLINE void transpose_rows(SquareRow<float>::type* r) {
    typedef SquareRow<float>::type V;
    V t[8], u[8];
    LRPFAST_UNROLL
    for (int i = 0; i < 8; i += 2) {
        t[i] = LRPFAST_SHUFFLE(std::int32_t, r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = LRPFAST_SHUFFLE(std::int32_t, r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    LRPFAST_UNROLL
    for (int i = 0; i < 8; i += 4)
        LRPFAST_UNROLL
        for (int j = 0; j < 2; ++j) {
            u[i + 2 * j] = LRPFAST_SHUFFLE(std::int32_t, t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            u[i + 2 * j + 1] = LRPFAST_SHUFFLE(std::int32_t, t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    LRPFAST_UNROLL
    for (int i = 0; i < 4; ++i) {
        r[i] = LRPFAST_SHUFFLE(std::int32_t, u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = LRPFAST_SHUFFLE(std::int32_t, u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}
LRPFAST_INLINE void transpose_rows(SquareRow<double>::type* r) {
    typedef SquareRow<double>::type V;
    V t[4];
    LRPFAST_UNROLL
    for (int i = 0; i < 4; i += 2) {
        t[i] = LRPFAST_SHUFFLE(std::int64_t, r[i], r[i + 1], 0, 4, 2, 6);
        t[i + 1] = LRPFAST_SHUFFLE(std::int64_t, r[i], r[i + 1], 1, 5, 3, 7);
    }
    LRPFAST_UNROLL
    for (int i = 0; i < 2; ++i) {
        r[i] = LRPFAST_SHUFFLE(std::int64_t, t[i], t[i + 2], 0, 1, 4, 5);
        r[i + 2] = LRPFAST_SHUFFLE(std::int64_t, t[i], t[i + 2], 2, 3, 6, 7);
    }
}

/// to[j · to_step + i] = part(from[i · from_step + j]) for a square.
template <class T>
LRPFAST_INLINE void transpose_square(const T* from, Size from_step, T* to, Size to_step, const Part<T>& part) {
    typename SquareRow<T>::type rows[kSquare<T>];
    LRPFAST_UNROLL
    for (int i = 0; i < kSquare<T>; ++i) {
        __builtin_memcpy(&rows[i], from + i * from_step, sizeof rows[i]);
        rows[i] = part_of(rows[i], part);
    }
    transpose_rows(rows);
    LRPFAST_UNROLL
    for (int j = 0; j < kSquare<T>; ++j) __builtin_memcpy(to + j * to_step, &rows[j], sizeof rows[j]);
}

/// The same for rows × columns numbers.
template <class T>
void transpose(const T* from, Size from_step, Size rows, Size columns, T* to, Size to_step,
               const Part<T>& part) {
    constexpr Size kSide = kSquare<T>, kLine = 64 / static_cast<Size>(sizeof(T));
    const Size whole_rows = rows / kSide * kSide, whole_columns = columns / kSide * kSide;
    // A line of the cache is read to its end: rows that are a power of two apart evict each other.
    for (Size strip = 0; strip < whole_columns; strip += kLine)
        for (Size i = 0; i < whole_rows; i += kSide)
            for (Size j = strip; j < at_most(strip + kLine, whole_columns); j += kSide)
                transpose_square(from + i * from_step + j, from_step, to + j * to_step + i, to_step, part);
    for (Size i = 0; i < rows; ++i)
        for (Size j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
            to[j * to_step + i] = part_of(from[i * from_step + j], part);
}

/// Which of a kernel's taps a panel holds, in order.
struct PanelTaps {
    const Size* index;  // null: all of them
    Size count;
    bool reversed;
};

/// The rows for `sources` sources of one group and `outs` of its outputs, from `w` to `to`.
template <class T>
void fill_group(const WeightMatrix<T>& matrix, const T* w, Size outs, Size sources, const PanelTaps& taps,
                T* to) {
    const Size row = kPanel<T>, rows = taps.count * row;
    if (taps.index == nullptr && !taps.reversed && matrix.source_step == matrix.taps) {
        transpose(w, matrix.out_step, outs, sources * matrix.taps, to, row, matrix.part);
    } else if (taps.index == nullptr) {
        for (Size s = 0; s < sources; ++s, w += matrix.source_step, to += rows)
            transpose(w, matrix.out_step, outs, matrix.taps, taps.reversed ? to + rows - row : to,
                      taps.reversed ? -row : row, matrix.part);
    } else {
        for (Size s = 0; s < sources; ++s, w += matrix.source_step)
            for (Size t = 0; t < taps.count; ++t, to += row)
                for (Size o = 0; o < outs; ++o)
                    to[o] = part_of(w[o * matrix.out_step + taps.index[t]], matrix.part);
    }
}

/// Fill a panel for the output channels from `out0` on, and the sources [source0, source0 + count) of all
/// groups. Zero where a source is not of the output's group, and beyond the last output.
template <class T>
void fill_panel(const WeightMatrix<T>& matrix, Size out0, Size source0, Size count, const PanelTaps& taps,
                T* panel) {
    const Size outs = at_most(kPanel<T>, matrix.all_outs() - out0), rows = taps.count * kPanel<T>;
    if (matrix.groups > 1 || outs < kPanel<T>) fill_line(T(0), count * rows, panel);
    for (Size o = 0, some; o < outs; o += some) {
        const Size group = (out0 + o) / matrix.outs, in_group = (out0 + o) % matrix.outs;
        some = at_most(outs - o, matrix.outs - in_group);
        const Size first = group * matrix.sources, begin = at_least(source0, first);
        const Size end = at_most(source0 + count, first + matrix.sources);
        if (begin < end)
            fill_group(matrix,
                       matrix.w + group * matrix.group_step() + in_group * matrix.out_step +
                           (begin - first) * matrix.source_step,
                       some, end - begin, taps, panel + (begin - source0) * rows + o);
    }
}

/// The sources that a panel's outputs read: [first, last).
template <class T>
void panel_sources(const WeightMatrix<T>& matrix, Size out0, Size& first, Size& last) {
    const Size end = at_most(out0 + kPanel<T>, matrix.all_outs());
    first = out0 / matrix.outs * matrix.sources;
    last = ((end - 1) / matrix.outs + 1) * matrix.sources;
}

/// Fill the panels [panel0, panel1), `panel_size` apart, with all of their sources.
template <class T>
void fill_panels(const WeightMatrix<T>& matrix, Size panel0, Size panel1, const PanelTaps& taps, T* panels,
                 Size panel_size) {
    panel1 = at_most(panel1, blocks_of(matrix.all_outs(), kPanel<T>));
    const bool lines = matrix.taps == 1 && matrix.out_step == 1 && matrix.groups == 1;
    if (!lines || taps.count != 1) {
        for (Size panel = panel0; panel < panel1; ++panel, panels += panel_size) {
            Size first, last;
            panel_sources(matrix, panel * kPanel<T>, first, last);
            fill_panel(matrix, panel * kPanel<T>, first, last - first, taps, panels);
        }
        return;
    }
    // A source's weights lie in a line: it is read once, in one go.
    for (Size s = 0; s < matrix.sources; ++s)
        for (Size panel = panel0; panel < panel1; ++panel) {
            const Size out0 = panel * kPanel<T>, outs = at_most(kPanel<T>, matrix.outs - out0);
            T* to = panels + (panel - panel0) * panel_size + s * kPanel<T>;
            if (outs < kPanel<T>) fill_line(T(0), kPanel<T>, to);
            copy_line(matrix.part, matrix.w + s * matrix.source_step + out0, outs, to);
        }
}

/// Sources of any panel, at most.
template <class T>
Size most_sources(const WeightMatrix<T>& matrix) {
    if (matrix.groups == 1) return matrix.sources;
    return at_most(matrix.groups, blocks_of(kPanel<T>, matrix.outs) + 1) * matrix.sources;
}

/// Numbers of any panel, for so many of the taps.
template <class T>
Size size_of_panel(const WeightMatrix<T>& matrix, Size taps) {
    return most_sources(matrix) * taps * kPanel<T>;
}

/// The taps of a panel in the order of `reads`.
template <class T>
PanelTaps taps_of(const WeightMatrix<T>& matrix, const Reads& reads) {
    Size* index = scratch<Size>(Scratch::places, reads.taps());
    bool all = reads.taps() == matrix.taps;
    for (Size tap = 0; tap < reads.taps(); ++tap) {
        index[tap] = reads.tap_index(tap);
        all = all && index[tap] == tap;
    }
    return {all ? nullptr : index, reads.taps(), false};
}
