// Products with few output channels, such as those that lead back to an image: lanes are source channels, and
// each output is the sum over its lanes.

constexpr int kThinPlaces = 3;  // 9 sums, 3 values and a weight in 16 registers
constexpr int kThinOuts = 3;

/// results[p · outs + o] for PLACES places × kThinOuts outputs. Weights are (output, block, tap, lane), with
/// kLanesOfBlock lanes, zero beyond the last channel.
/// With `Full` a source has kLanesOfBlock lanes, which need no check.
template <class T, int PLACES, bool Full>
void thin_tile(const TileSource<T>& from, const Size* places, const T* weights, Size weights_step, Size outs,
               T* results, Size results_step) {
    alignas(64) static const T nothing[kLanesOfBlock] = {};
    Vec<T> sums[PLACES][kThinOuts] = {};
    const T* block = from.src;
    const T* w[kThinOuts];
    LRPFAST_UNROLL
    for (int o = 0; o < kThinOuts; ++o) w[o] = weights + at_most(o, outs - 1) * weights_step;
    for (Size left = from.channels; left > 0; left -= from.lanes, block += from.block_step)
        for (Size tap = 0; tap < from.taps; ++tap) {
            const T* x[PLACES];
            LRPFAST_UNROLL
            for (int p = 0; p < PLACES; ++p) {
                const Size place = places[tap * kThinPlaces + p];
                x[p] = place < 0 ? nothing : block + place * from.place_step;
            }
            const Size count = from.lanes;
            for (Size k = 0; k < count; k += kLanes<T>) {
                const bool whole = Full || count - k >= kLanes<T>;
                Vec<T> values[PLACES];
                LRPFAST_UNROLL
                for (int p = 0; p < PLACES; ++p) {
                    values[p] = whole ? load(x[p] + k) : load(x[p] + k, count - k);
                }
                LRPFAST_UNROLL
                for (int o = 0; o < kThinOuts; ++o) {
                    const Vec<T> weight = load(w[o] + k);
                    LRPFAST_UNROLL
                    for (int p = 0; p < PLACES; ++p) sums[p][o] = multiply_add(values[p], weight, sums[p][o]);
                }
            }
            LRPFAST_UNROLL
            for (int o = 0; o < kThinOuts; ++o) w[o] += kLanesOfBlock;
        }
    LRPFAST_UNROLL
    for (int p = 0; p < PLACES; ++p) {
        LRPFAST_UNROLL
        for (int o = 0; o < kThinOuts; ++o)
            if (o < outs) results[p * results_step + o] = lane_sum<T>(sums[p][o]);
    }
}

/// One of the sums of a convolution whose outputs have fewer lanes than a block, all in one block.
template <class T>
struct ThinProduct {
    const Linear<T>& args;
    const Reads& reads;
    WeightMatrix<T> matrix;
    Size samples, src_lanes, out_lanes, chunks;
    Finisher<T> finisher;

    ThinProduct(const Linear<T>& linear, const Reads& sum, const WeightMatrix<T>& weights, Size n, Size of_src,
                Size of_out)
        : args(linear), reads(sum), matrix(weights), samples(n), src_lanes(of_src), out_lanes(of_out),
          chunks(chunks_of(sum.count())), finisher(linear.end) {}

    Size all_chunks() const { return samples * chunks; }
    Size tasks() const { return at_most(all_chunks(), usable_threads() > 1 ? 4 * usable_threads() : 1); }
    Size sources() const { return matrix.sources * matrix.groups; }
    Size blocks() const { return blocks_of(sources(), src_lanes); }
    Size work() const {
        return samples * reads.count() * matrix.all_outs() * (sources() * reads.taps() + 32);
    }

    /// All weights, (output, block, tap, lane).
    void fill_weights(T* to) const {
        for (Size o = 0; o < matrix.all_outs(); ++o)
            for (Size block = 0; block < blocks(); ++block)
                for (Size tap = 0; tap < reads.taps(); ++tap)
                    for (Size lane = 0; lane < kLanesOfBlock; ++lane)
                        *to++ = weight(o, block * src_lanes + lane, lane, reads.tap_index(tap));
    }
    T weight(Size out, Size source, Size lane, Size tap) const {
        const Size group = out / matrix.outs, from = source - group * matrix.sources;
        if (lane >= src_lanes || from < 0 || from >= matrix.sources) return T(0);
        return part_of(matrix.w[group * matrix.group_step() + (out - group * matrix.outs) * matrix.out_step +
                                from * matrix.source_step + tap],
                       matrix.part);
    }

    void run(Size task, const SlotSums<T>& sums, Size slot0) const {
        const Size step = blocks() * reads.taps() * kLanesOfBlock, in = reads.in.product();
        T* weights = scratch<T>(Scratch::weights, matrix.all_outs() * step);
        fill_weights(weights);
        for (Size at = task * all_chunks() / tasks(); at < (task + 1) * all_chunks() / tasks(); ++at) {
            const Size sample = at / chunks;
            const Chunk places(reads, at % chunks, chunks, kThinPlaces);
            const Size channels = reads.taps() > 0 ? sources() : 0;
            const TileSource<T> source{args.src + sample * blocks() * in * src_lanes, in * src_lanes, src_lanes, 0,
                                       channels, src_lanes, reads.taps(), 0, 0};
            Totals totals{};
            for (Size tile = 0; tile < places.tiles; ++tile)
                run_tile(source, places, tile, sample, weights, step, totals);
            sums.add(sample, slot0 + at % chunks, totals);
        }
    }

    template <bool Full>
    static auto tile_of(Size places) {
        return places == 3 ? thin_tile<T, 3, Full> : places == 2 ? thin_tile<T, 2, Full> : thin_tile<T, 1, Full>;
    }

    void run_tile(const TileSource<T>& source, const Chunk& places, Size tile, Size sample, const T* weights,
                  Size step, Totals& totals) const {
        T results[kThinPlaces * kLanesOfBlock] = {};
        const Size first = places.first_of(tile), count = places.first_of(tile + 1) - first;
        const Size* of_tile = places.sources + tile * reads.taps() * kThinPlaces;
        const auto multiply = src_lanes == kLanesOfBlock ? tile_of<true>(count) : tile_of<false>(count);
        for (Size o = 0; o < matrix.all_outs(); o += kThinOuts)
            multiply(source, of_tile, weights + o * step, step, matrix.all_outs() - o, results + o, kLanesOfBlock);
        for (Size p = 0; p < count; ++p)
            finisher.channels(results + p * kLanesOfBlock, out_lanes,
                              (sample * reads.out.product() + places.out[first + p]) * out_lanes, 0, totals);
    }
};
