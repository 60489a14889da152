// How results are written: the ending that all kernels share, and the sums that are taken on the way.
//
// Which of its parts an ending has is decided once a call: each combination is a function of its own.

enum { kSum, kMagnitude, kTaken, kBias, kStabilizer, kDead, kTotals };

/// The sums of some elements: of what is written, and the ledger's.
struct Totals {
    double of[kTotals];
};

constexpr Size kNarrowSums = 8;  // numbers that are added up in T

/// The same, lane by lane, for so few vectors.
template <class T>
struct LaneTotals {
    Vec<T> of[kTotals];
};

/// The values of the channels from `channel` on, zero beyond the last; null gives zeros.
template <class T>
LRPFAST_INLINE Vec<T> channel_values(const T* from, Size channel, Size channels) {
    if (from == nullptr || channel >= channels) return Vec<T>{};
    const Size count = channels - channel;
    return count >= kLanes<T> ? load(from + channel) : load(from + channel, count);
}

/// Which parts an ending has. `bias` is there in any case, zeros if need be.
enum class Last { nothing, clamp, quotient };
template <bool TIMES, bool PLUS, Last LAST, bool SUMS>
struct Mode {
    static constexpr bool times = TIMES, plus = PLUS, sums = SUMS;
    static constexpr Last last = LAST;
};

/// Relevance over the denominators z, counted in the ledger: `bias` is what of z is the bias' part, `own_bias` what
/// is so where z > 0, and with the other sign where z < 0, if denominators are mirrored.
template <class T, class Lanes>
LRPFAST_INLINE Vec<T> quotient_of(const Quotient<T>& q, const Lanes& lanes, Vec<T> z, Size at, Vec<T> bias, Vec<T> own_bias,
                                  T epsilon, LaneTotals<T>& totals) {
    const Vec<T> zero{}, eps = splat(epsilon);
    Vec<T> share = lanes.get(q.r + at) * q.scale;
    if (q.gate != 0) {
        const Vec<T> gate = lanes.get(q.gate_z + at);
        share = (q.gate > 0 ? gate > zero : gate < zero) ? share : zero;
    }
    if (q.mirrored != nullptr) share = lanes.get(q.gate_z + at) != zero ? share : zero;
    const Vec<T> signed_eps = z < zero ? -eps : eps;
    Vec<T> stabilized = z + signed_eps;
    if (q.clip) {
        const Vec<T> size = z < zero ? -z : z;
        stabilized = size < eps ? signed_eps : z;  // a NaN stays
    }
    const Vec<T> s = stabilized != zero ? share / stabilized : zero;
    const auto is_zero = z == zero;
    totals.of[kTaken] += share;
    totals.of[kBias] = multiply_add(s, bias, totals.of[kBias]);
    totals.of[kStabilizer] = is_zero ? totals.of[kStabilizer] : multiply_add(s, stabilized - z, totals.of[kStabilizer]);
    totals.of[kDead] += is_zero ? share : zero;
    if (q.mirrored != nullptr) {
        const Vec<T> mirrored = lanes.get(q.gate_z + at) < zero ? -s : s;
        totals.of[kBias] = multiply_add(mirrored, own_bias, totals.of[kBias]);
        lanes.put(q.mirrored + at, mirrored);
    }
    return s;
}

/// Write `v` to out[at …]; `bias` and `quotient_bias` are those of its elements.
template <class T, class M, class Lanes>
LRPFAST_INLINE void put(const Ending<T>& end, const Lanes& lanes, Vec<T> v, Size at, Vec<T> bias, Vec<T> quotient_bias,
                        T epsilon, LaneTotals<T>& totals) {
    v = v + bias;
    if (M::times) {
        const Vec<T> times = minimum(splat(end.times_high), lanes.get(end.times + at));
        v = v * (end.times_part.is_identity() ? times : part_of(times, end.times_part));
    }
    if ((M::plus || M::last == Last::clamp) && end.kept != nullptr) lanes.put(end.kept + at, v);
    if (M::last == Last::quotient && end.quotient.mirrored != nullptr)
        v = lanes.get(end.quotient.gate_z + at) < Vec<T>{} ? -v : v;
    if (M::plus) v = lanes.get(end.plus + at) * end.plus_factor + v;
    if (M::last == Last::clamp) {
        if (end.slope != T(1)) v = v < Vec<T>{} ? v * end.slope : v;
        v = minimum(splat(end.high), maximum(splat(end.low), v));
    }
    if (M::last == Last::quotient) v = quotient_of(end.quotient, lanes, v, at, quotient_bias, bias, epsilon, totals);
    lanes.put(end.out + at, v);
    if (M::sums) {
        const Vec<T> counted = lanes.counted(v);
        totals.of[kSum] += counted;
        totals.of[kMagnitude] += magnitude<T>(counted);
    }
}

/// Lanes that have been added up in T go on in float64.
template <class T>
struct WideTotals {
    Wide<T> of[kTotals];
};

/// body(i) for the totals that mode M has. The numbers are constants even before loops are unrolled: only then do
/// totals stay in registers.
template <class M, int I = M::sums ? kSum : kTaken, class Body>
LRPFAST_INLINE void for_totals(const Body& body) {
    if constexpr (I < (M::last == Last::quotient ? kTotals : kTaken)) {
        body(std::integral_constant<int, I>{});
        for_totals<M, I + 1>(body);
    }
}

template <class T, class M>
LRPFAST_INLINE void widen_totals(WideTotals<T>& wide, LaneTotals<T>& lanes) {
    for_totals<M>([&](auto i) LRPFAST_INLINE_LAMBDA {
        constexpr int at = decltype(i)::value;
        add_wide<T>(wide.of[at], lanes.of[at]);
        lanes.of[at] = Vec<T>{};
    });
}

template <class T, class M>
LRPFAST_INLINE void add_totals(Totals& totals, const WideTotals<T>& wide) {
    for_totals<M>([&](auto i) LRPFAST_INLINE_LAMBDA {
        constexpr int at = decltype(i)::value;
        totals.of[at] += lane_sum<T>(wide.of[at]);
    });
}

/// Results for some places of blocked arrays: `outs` channels from `out0` on, at `places` of one sample.
template <class T>
struct PlaceResults {
    const T *results, *others;  // null, or what counts where `times` is not positive
    Size pitch;  // from one place's to the next
    const Size* places;
    Size count, out0, outs;
    Size sample, blocks, plane;  // of the array: blocks a sample, places a block
};

// Copies of the arguments, since a store through a pointer might change what references lead to.

template <class T, class M>
void finish_places(const Ending<T>& ending, const PlaceResults<T>& some, Totals& totals) {
    const Ending<T> end = ending;
    const PlaceResults<T> from = some;
    LaneTotals<T> lane_totals{};
    WideTotals<T> wide_totals{};
    for (Size o = 0; o < from.outs; o += kLanes<T>) {
        const Size channel = from.out0 + o;
        const Size block = (from.sample * from.blocks + channel / kLanesOfBlock) * from.plane;
        const Vec<T> bias = channel_values(end.bias, channel, end.channels),
                     quotient_bias = channel_values(end.quotient.bias, channel, end.channels);
        for (Size first = 0; first < from.count; first += kNarrowSums) {
            for (Size i = first; i < at_most(first + kNarrowSums, from.count); ++i) {
                const Size at = (block + from.places[i]) * kLanesOfBlock + channel % kLanesOfBlock;
                Vec<T> result = load(from.results + i * from.pitch + o);
                if (M::times && from.others != nullptr)
                    result = load(end.times + at) > Vec<T>{} ? result : load(from.others + i * from.pitch + o);
                put<T, M>(end, Full<T>{}, result, at, bias, quotient_bias, end.quotient.epsilon, lane_totals);
            }
            widen_totals<T, M>(wide_totals, lane_totals);
        }
    }
    add_totals<T, M>(totals, wide_totals);
}

/// Ask for lines of memory, so that they are in the nearer caches when they are needed.
template <class T>
LRPFAST_INLINE void prefetch_lines(const T* from, Size count) {
    constexpr Size kLine = 64 / static_cast<Size>(sizeof(T));
    for (Size i = 0; i < count; i += kLine) __builtin_prefetch(from + i, 0, 2);
}

/// Ask for what the ending of these results, from i0 to i1, will read and write.
template <class T>
LRPFAST_INLINE void prefetch_places(const Ending<T>& end, const PlaceResults<T>& of, Size i0, Size i1) {
    const T* const arrays[] = {end.times, end.plus, end.quotient.r, end.out};
    const Size first = of.places[i0], count = of.places[i1 - 1] + 1 - first;
    if (count > 2 * (i1 - i0)) return;  // they lie apart
    for (Size o = 0; o < of.outs; o += kLanesOfBlock) {
        const Size at = ((of.sample * of.blocks + (of.out0 + o) / kLanesOfBlock) * of.plane + first) * kLanesOfBlock;
        for (const T* array : arrays)
            if (array != nullptr) prefetch_lines(array + at, count * kLanesOfBlock);
    }
}

/// Results for `count` elements from out[at] on. Element i is of channel `channel + i % period`; a period is 1, a
/// multiple of kLanes, or no less than `count`.
template <class T>
struct LineResults {
    const T* results;
    Size count, at, channel, period;
    T epsilon;
};

/// The values of the channels of a line's elements from `i` on; null gives zeros.
template <class T>
LRPFAST_INLINE Vec<T> channels_at(const T* of, const LineResults<T>& line, Size i, Size channels) {
    if (of == nullptr) return Vec<T>{};
    if (line.period == 1) return splat(of[line.channel]);
    return channel_values(of, line.channel + (i < line.period ? i : i % line.period), channels);
}

template <class T, class M>
void finish_line(const Ending<T>& ending, const LineResults<T>& some, Totals& totals) {
    const Ending<T> end = ending;
    const LineResults<T> from = some;
    constexpr Size kPiece = kNarrowSums * kLanes<T>;
    WideTotals<T> wide_totals{};
    for (Size first = 0; first < from.count; first += kPiece) {
        LaneTotals<T> lane_totals{};
        for_vectors<T>(at_most(kPiece, from.count - first), [&](Size j, auto lanes) LRPFAST_INLINE_LAMBDA {
            const Size i = first + j;
            put<T, M>(end, lanes, lanes.get(from.results + i), from.at + i,
                      channels_at(end.bias, from, i, end.channels),
                      channels_at(end.quotient.bias, from, i, end.channels), from.epsilon, lane_totals);
        });
        widen_totals<T, M>(wide_totals, lane_totals);
    }
    add_totals<T, M>(totals, wide_totals);
}

/// An ending as functions.
template <class T>
struct Finisher {
    const Ending<T>& end;
    void (*finish_some_places)(const Ending<T>&, const PlaceResults<T>&, Totals&);
    void (*finish_some_line)(const Ending<T>&, const LineResults<T>&, Totals&);

    explicit Finisher(const Ending<T>& ending) : end(ending) {
        if (end.sums != nullptr)
            choose_times<true>();
        else
            choose_times<false>();
    }

    bool counts() const { return end.sums != nullptr || end.quotient.r != nullptr; }

    void places(const PlaceResults<T>& results, Totals& totals) const { finish_some_places(end, results, totals); }
    void line(const LineResults<T>& results, Totals& totals) const { finish_some_line(end, results, totals); }
    /// `count` channels in a row.
    void channels(const T* results, Size count, Size at, Size channel, Totals& totals) const {
        line({results, count, at, channel, count, end.quotient.epsilon}, totals);
    }
    /// Some places in a row, with `lanes` channels each.
    void lanes(const T* results, Size places, Size lanes, Size at, Size channel, Totals& totals) const {
        const bool any_lanes = end.bias == nullptr && end.quotient.bias == nullptr;
        const Size count = any_lanes || lanes == 1 || lanes % kLanes<T> == 0 ? places : 1;
        for (Size i = 0; i < places; i += count)
            line({results + i * lanes, count * lanes, at + i * lanes, channel, any_lanes ? count * lanes : lanes,
                  end.quotient.epsilon},
                 totals);
    }

  private:
    template <bool SUMS>
    void choose_times() {
        end.times != nullptr ? choose_plus<true, SUMS>() : choose_plus<false, SUMS>();
    }
    template <bool TIMES, bool SUMS>
    void choose_plus() {
        end.plus != nullptr ? choose_last<TIMES, true, SUMS>() : choose_last<TIMES, false, SUMS>();
    }
    template <bool TIMES, bool PLUS, bool SUMS>
    void choose_last() {
        if (end.quotient.r != nullptr)
            choose<Mode<TIMES, PLUS, Last::quotient, SUMS>>();
        else if (end.clamps)
            choose<Mode<TIMES, PLUS, Last::clamp, SUMS>>();
        else
            choose<Mode<TIMES, PLUS, Last::nothing, SUMS>>();
    }
    template <class M>
    void choose() {
        finish_some_places = finish_places<T, M>;
        finish_some_line = finish_line<T, M>;
    }
};

/// Sums of a call: tasks add to slots of their own, which are added up in order afterwards, so that
/// results depend neither on threads nor on the batch.
template <class T>
class SlotSums {
  public:
    SlotSums(const Finisher<T>& finisher, Size samples, Size slots_per_sample)
        : end_(finisher.end), samples_(samples), slots_(finisher.counts() ? slots_per_sample : 0) {
        sums_ = scratch<Totals>(Scratch::sums, samples_ * slots_);
        for (Size i = 0; i < samples_ * slots_; ++i) sums_[i] = Totals{};
    }
    /// Add to a slot; no two tasks have the same.
    void add(Size sample, Size slot, const Totals& totals) const {
        if (slots_ == 0) return;
        Totals& to = sums_[sample * slots_ + slot];
        for (int i = 0; i < kTotals; ++i) to.of[i] += totals.of[i];
    }
    /// Hand the sums over; call it once, when all tasks are done.
    void settle() const {
        for (Size sample = 0; slots_ > 0 && sample < samples_; ++sample) {
            Totals total{};
            for (Size slot = sample * slots_; slot < (sample + 1) * slots_; ++slot)
                for (int i = 0; i < kTotals; ++i) total.of[i] += sums_[slot].of[i];
            if (end_.sums != nullptr) {
                end_.sums[2 * sample] = total.of[kSum];
                end_.sums[2 * sample + 1] = total.of[kMagnitude];
            }
            if (end_.quotient.r != nullptr)
                for (int i = 0; i < 4; ++i) end_.quotient.ledger[4 * sample + i] += total.of[kTaken + i];
        }
    }

  private:
    const Ending<T>& end_;
    Size samples_, slots_;
    Totals* sums_;
};
