// The step in the middle of a rule: relevance over stabilised denominators.

/// The sums of one chunk of elements for the ledger, lane by lane.
template <class T>
struct LedgerLanes {
    Wide<T> taken{}, bias{}, stabilizer{}, dead{};

    LRPFAST_INLINE void add(const Wide<T>& z, const Wide<T>& s, const Wide<T>& share,
                            const Wide<T>& stabilized) {
        const Vec<double> none{};
        for (int p = 0; p < kParts<T>; ++p) {
            const auto is_zero = z.part[p] == none;
            taken.part[p] += share.part[p];
            stabilizer.part[p] += is_zero ? none : s.part[p] * (stabilized.part[p] - z.part[p]);
            dead.part[p] += is_zero ? share.part[p] : none;
        }
    }
    LRPFAST_INLINE void add_bias(const Wide<T>& s, const Wide<T>& biases) {
        for (int p = 0; p < kParts<T>; ++p) bias.part[p] += s.part[p] * biases.part[p];
    }
    void add_to(double* sums) const {
        sums[0] += lane_sum(taken);
        sums[1] += lane_sum(bias);
        sums[2] += lane_sum(stabilizer);
        sums[3] += lane_sum(dead);
    }
};

/// Elements [first, first + count) of one sample; all have the bias *bias, or with `many` each its own.
template <class T>
void divide_line(const Divide<T>& args, const T* z, const T* r, const T* gate_z, T* out, T epsilon,
                 Size count, const T* bias, bool many, LedgerLanes<T>& ledger) {
    const Vec<T> zero{}, scale = splat(args.scale), eps = splat(epsilon);
    for_vectors<T>(count, [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
        const Vec<T> at = lanes.get(z + i);
        Vec<T> share = lanes.get(r + i) * scale;
        if (args.gate != 0) {
            const Vec<T> gate = lanes.get(gate_z + i);
            share = (args.gate > 0 ? gate > zero : gate < zero) ? share : zero;
        }
        const Vec<T> signed_eps = at < zero ? -eps : eps;
        Vec<T> stabilized = at + signed_eps;
        if (args.clip) {
            const Vec<T> size = at < zero ? -at : at;
            stabilized = size < eps ? signed_eps : at;  // a NaN stays
        }
        const Vec<T> s = stabilized != zero ? share / stabilized : zero;
        lanes.put(out + i, s);

        ledger.add(widen<T>(at), widen<T>(s), widen<T>(share), widen<T>(stabilized));
        if (bias != nullptr)
            ledger.add_bias(widen<T>(s), widen<T>(many ? lanes.get(bias + i) : splat(*bias)));
    });
}

/// Each sample's ε: times the root mean square of its z, if asked for.
template <class T>
void fill_epsilons(const Divide<T>& args, T* epsilons) {
    for (Size n = 0; n < args.z_samples; ++n) epsilons[n] = args.epsilon;
    if (!args.norm_scale) return;
    const Size size = args.m * args.inner;
    const auto add = [&](Size sample, Size first, Size count, double* sums) {
        const T* from = args.z + sample * size + first;
        Wide<T> squares{};
        for_vectors<T>(count, [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
            const Wide<T> z = widen<T>(lanes.get(from + i));
            for (int p = 0; p < kParts<T>; ++p) squares.part[p] += z.part[p] * z.part[p];
        });
        sums[0] = lane_sum(squares);
    };
    sum_chunks<1>(args.z_samples, size, kSumChunk, 16 * args.z_samples * size, add,
                  [&](Size sample, const double* total) {
                      epsilons[sample] *=
                          static_cast<T>(__builtin_sqrt(total[0] / static_cast<double>(size)));
                  });
}

template <class T>
void divide(const Divide<T>& args) {
    T* epsilons = scratch<T>(Scratch::source, args.z_samples);
    fill_epsilons(args, epsilons);
    // A line is one channel, or all of them where each is one element.
    const bool flat = args.inner == 1;
    const Size lines = flat ? 1 : args.m, length = flat ? args.m : args.inner;
    const Size lines_at_once = at_least(1, kSumChunk / length), size = args.m * args.inner;
    const auto add_line = [&](Size sample, Size line, Size first, Size count, LedgerLanes<T>& ledger) {
        const Size of_z = args.z_samples == 1 ? 0 : sample, at = line * length + first;
        divide_line(args, args.z + of_z * size + at, args.r + sample * size + at,
                    ahead(args.gate_z, sample * size + at), args.out + sample * size + at, epsilons[of_z],
                    count, ahead(args.bias, flat ? first : line), flat, ledger);
    };
    const auto put = [&](Size sample, const double* total) {
        for (int i = 0; i < 4; ++i) args.ledger[4 * sample + i] += total[i];
    };
    if (flat)
        sum_chunks<4>(
            args.n, length, kSumChunk, 50 * args.n * size,
            [&](Size sample, Size first, Size count, double* sums) {
                LedgerLanes<T> ledger;
                add_line(sample, 0, first, count, ledger);
                ledger.add_to(sums);
            },
            put);
    else
        sum_chunks<4>(
            args.n, lines, lines_at_once, 50 * args.n * size,
            [&](Size sample, Size first, Size count, double* sums) {
                LedgerLanes<T> ledger;
                for (Size line = first; line < first + count; ++line)
                    add_line(sample, line, 0, length, ledger);
                ledger.add_to(sums);
            },
            put);
}
