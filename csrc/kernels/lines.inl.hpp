// Lines of numbers: how inputs are brought into the order of shifts.hpp, and results out of it.

/// One window that covers all of x, once?
inline bool is_one_window(const Windows& windows) {
    bool one = true;
    for (int at = 0; at < 3; ++at)
        one = one && windows.z[at] == 1 && windows.pads[at] == 0 && windows.kernel[at] == windows.x[at] &&
              (windows.dilations[at] == 1 || windows.kernel[at] == 1);
    return one;
}

/// What is copied into a strip: one channel's planes, scaled by sign, times an optional plane `gain`.
template <class T>
struct Source {
    const T* plane;  // the channel's plane of the first sample
    Size samples, sample_step;
    Part<T> part;
    const T* gain;
    Part<T> gain_part;
};

/// to[i] = part(from[i · step]), for a step that the compiler knows or, with STEP = 0, does not.
template <class T, int STEP>
void copy_spaced(const Part<T>& part, const T* from, Size step, Size count, T* to) {
    if (STEP != 0) step = STEP;
    if (part.is_identity())
        for (Size i = 0; i < count; ++i) to[i] = from[i * step];
    else
        for (Size i = 0; i < count; ++i) to[i] = part_of(from[i * step], part);
}

/// to[i] = part(from[i])
template <class T>
void copy_line(const Part<T>& part, const T* from, Size count, T* to) {
    if (part.is_identity())
        for_vectors<T>(
            count, [=](Size i, auto lanes) LRPFAST_INLINE_LAMBDA { lanes.put(to + i, lanes.get(from + i)); });
    else
        for_vectors<T>(count, [=](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
            lanes.put(to + i, part_of(lanes.get(from + i), part));
        });
}

/// to[i] = part(from[i · step]) · part(gain[i · step])
template <class T>
void copy_scaled(const Source<T>& source, const T* from, const T* gain, Size step, Size count, T* to) {
    if (step == 1)
        copy_line(source.part, from, count, to);
    else if (step == 2)
        copy_spaced<T, 2>(source.part, from, step, count, to);
    else
        copy_spaced<T, 0>(source.part, from, step, count, to);
    if (gain != nullptr)
        for (Size i = 0; i < count; ++i) to[i] *= part_of(gain[i * step], source.gain_part);
}

template <class T>
void fill_line(T value, Size count, T* to) {
    const Vec<T> values = splat(value);
    for_vectors<T>(count, [=](Size i, auto lanes) LRPFAST_INLINE_LAMBDA { lanes.put(to + i, values); });
}

/// Goes through the rows of a line of positions, in order.
struct RowWalk {
    const ShiftAxis* axes;
    Size sample, plane, row;

    RowWalk(const Shifts& shifts, Size at) : axes(shifts.axes) {
        row = at % axes[1].pitch;
        at /= axes[1].pitch;
        plane = at % axes[0].pitch;
        sample = at / axes[0].pitch;
    }
    void step() {
        if (++row < axes[1].pitch) return;
        row = 0;
        if (++plane < axes[0].pitch) return;
        plane = 0;
        ++sample;
    }
};

/// Write the positions [first, first + length) of every phase of the input, `fill` where there is none.
template <class T>
void fill_strip(const Shifts& shifts, const Source<T>& source, T fill, Size first, Size length, T* strip,
                Size strip_pitch) {
    const ShiftAxis &planes = shifts.axes[0], &rows = shifts.axes[1], &columns = shifts.axes[2];
    for (Size phase = 0; phase < shifts.phases; ++phase) {
        const Size column_phase = phase % columns.phase_count();
        const Size row_phase = phase / columns.phase_count() % rows.phase_count();
        const Size plane_phase = phase / columns.phase_count() / rows.phase_count();
        const Size plane_origin = planes.origin(plane_phase), row_origin = rows.origin(row_phase);
        const Size column_origin = columns.origin(column_phase);
        T* const line = strip + phase * strip_pitch - first;  // where position 0 would be
        Size begin, end;                                      // the columns that exist
        columns.inside(column_phase, columns.pitch, begin, end);

        Size filled = first;  // up to where the strip is written
        RowWalk walk(shifts, first / columns.pitch);
        for (Size start = first - first % columns.pitch; start < first + length;
             start += columns.pitch, walk.step()) {
            const Size d = walk.plane * planes.step + plane_origin, h = walk.row * rows.step + row_origin;
            if (walk.sample >= source.samples || d < 0 || d >= planes.in_size || h < 0 || h >= rows.in_size)
                continue;
            const Size from = at_least(start + begin, first), to = at_most(start + end, first + length);
            if (from >= to) continue;
            fill_line(fill, from - filled, line + filled);
            const Size at =
                (d * rows.in_size + h) * columns.in_size + (from - start) * columns.step + column_origin;
            copy_scaled(source, source.plane + walk.sample * source.sample_step + at, ahead(source.gain, at),
                        columns.step, to - from, line + from);
            filled = to;
        }
        fill_line(fill, first + length - filled, line + filled);
    }
}

/// The end that all linear kernels share: out (+)= part(times) ⊙ (part(gain) ⊙ result + bias).
template <class T>
struct Ending {
    const T *bias, *times, *gain;
    T* out;
    Part<T> times_part, gain_part;
    bool accumulate;

    explicit Ending(const Linear<T>& args)
        : bias(args.bias),
          times(args.times),
          gain(nullptr),
          out(args.out),
          times_part(args.times_part),
          gain_part{1, 1},
          accumulate(args.accumulate) {}

    /// The value of an element, or a vector of elements, V.
    template <class V>
    LRPFAST_INLINE V value(V result, V gain_value, V bias_value, V times_value, V out_value) const {
        if (gain != nullptr) result = result * part_of(gain_value, gain_part);
        if (bias != nullptr) result = result + bias_value;
        if (times != nullptr) result = result * part_of(times_value, times_part);
        if (accumulate) result = out_value + result;
        return result;
    }

    /// Results for out[at …]; one bias for all of them.
    void put_line(const T* result, Size count, Size at, Size gain_at, const T* channel_bias) const {
        const Vec<T> bias_value = splat(bias != nullptr ? *channel_bias : T(0));
        for_vectors<T>(count, [=](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
            const auto maybe = [&](const T* from, Size offset) LRPFAST_INLINE_LAMBDA {
                return from != nullptr ? lanes.get(from + offset) : Vec<T>{};
            };
            lanes.put(out + at + i, value(lanes.get(result + i), maybe(gain, gain_at + i), bias_value,
                                          maybe(times, at + i), maybe(accumulate ? out : nullptr, at + i)));
        });
    }

    /// Results for out[at …]; a bias for each.
    void put_biased(const T* result, Size count, Size at, const T* biases) const {
        for_vectors<T>(count, [=](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
            const auto maybe = [&](const T* from, Size offset) LRPFAST_INLINE_LAMBDA {
                return from != nullptr ? lanes.get(from + offset) : Vec<T>{};
            };
            lanes.put(out + at + i, value(lanes.get(result + i), Vec<T>{}, maybe(biases, i),
                                          maybe(times, at + i), maybe(accumulate ? out : nullptr, at + i)));
        });
    }

    /// Results for out[at], out[at + step] …; gains are of no use there.
    void put_spread(const T* result, Size count, Size at, Size step, const T* channel_bias) const {
        const T bias_value = bias != nullptr ? *channel_bias : T(0);
        for (Size i = 0; i < count; ++i, at += step)
            out[at] = value(result[i], T(0), bias_value, times != nullptr ? times[at] : T(0),
                            accumulate ? out[at] : T(0));
    }
};

/// Hand put(result, count, at) the results [first, first + length) that belong to outputs, row by row;
/// `at` is the index in the sample's plane of outputs.
template <class T, class Put>
LRPFAST_INLINE void for_output_rows(const Shifts& shifts, Size samples, Size first, Size length,
                                    const T* result, const Put& put) {
    const ShiftAxis &planes = shifts.axes[0], &rows = shifts.axes[1], &columns = shifts.axes[2];
    RowWalk walk(shifts, first / columns.pitch);
    for (Size start = first - first % columns.pitch; start < first + length;
         start += columns.pitch, walk.step()) {
        if (walk.sample >= samples) return;
        if (walk.plane >= planes.count || walk.row >= rows.count) continue;
        const Size from = at_least(0, first - start), to = at_most(columns.count, first + length - start);
        if (from >= to) continue;
        const Size plane = walk.plane * planes.out_step + planes.out_first;
        const Size row = walk.row * rows.out_step + rows.out_first;
        const Size column = from * columns.out_step + columns.out_first;
        put(result + start + from - first, to - from, walk.sample,
            (plane * rows.out_size + row) * columns.out_size + column);
    }
}

/// Write one channel's results; `out_at` is where its plane of the first sample begins.
template <class T>
void put_results(const Shifts& shifts, const Ending<T>& ending, Size samples, Size sample_step, Size first,
                 Size length, const T* result, Size out_at, const T* channel_bias) {
    const Size step = shifts.axes[2].out_step;
    for_output_rows(shifts, samples, first, length, result,
                    [&](const T* line, Size count, Size sample, Size at) {
                        const Size to = out_at + sample * sample_step + at;
                        if (step == 1)
                            ending.put_line(line, count, to, at, channel_bias);
                        else
                            ending.put_spread(line, count, to, step, channel_bias);
                    });
}
