// Operators that keep channels apart: depthwise convolution, sum- and max-pooling. Lanes are channels.

/// What a task works on: some rows of a block's outputs. Those of one band lie side by side in all blocks, so that
/// threads have the same places as in convolutions.
struct Band {
    Size sample, block, index, count;

    Size begin_of(Size rows) const { return index * rows / count; }
    Size end_of(Size rows) const { return (index + 1) * rows / count; }
};

/// body(band) for all blocks.
template <class Body>
void for_bands(Size n, Size blocks, Size bands, Size work, const Body& body) {
    parallel_for(n * bands * blocks, work, [&](Size task) {
        body(Band{task / (bands * blocks), task % blocks, task / blocks % bands, bands});
    });
}

/// body(finisher, band, totals) for all blocks; each band has a slot of its own for its sums.
template <class T, class Body>
void for_bands(const Ending<T>& end, Size n, Size blocks, Size bands, Size work, const Body& body) {
    const Finisher<T> finisher(end);
    const SlotSums<T> sums(finisher, n, bands * blocks);
    for_bands(n, blocks, bands, work, [&](const Band& band) {
        Totals totals{};
        body(finisher, band, totals);
        sums.add(band.sample, band.index * blocks + band.block, totals);
    });
    sums.settle();
}

constexpr Size kRowsOfBand = 14;  // at least

/// How many bands a block's outputs are shared out in.
inline Size bands_of(const ReadsList& list) {
    Size rows = 0;
    for (Size i = 0; i < list.size(); ++i) rows = at_least(rows, list[i].axes[1].count);
    return at_least(1, rows / kRowsOfBand);
}

/// For run_tasks: what all outputs of all channels cost.
inline Size plane_work(const ReadsList& list, Size planes) {
    Size work = 0;
    for (Size i = 0; i < list.size(); ++i) work += list[i].count() * (list[i].taps() * 2 + 16);
    return work * planes;
}

/// The rows of one sum's outputs: body(row of outputs, rows of sources and their taps).
struct SourceRow {
    Size first_tap, start;  // the first of the row's taps; the place of its column 0
};

/// body(first place, rows, count of rows): for each row of a band, the rows of sources inside the input.
template <class Body>
LRPFAST_INLINE void for_output_rows(const Reads& reads, const Band& band, const Body& body) {
    const AxisReads &planes = reads.axes[0], &rows = reads.axes[1];
    SourceRow* sources = scratch<SourceRow>(Scratch::places, at_least(1, planes.taps * rows.taps));
    for (Size d = 0; d < planes.count; ++d)
        for (Size h = band.begin_of(rows.count); h < band.end_of(rows.count); ++h) {
            Size count = 0;
            for (Size td = 0; td < planes.taps; ++td)
                for (Size th = 0; th < rows.taps; ++th) {
                    const Size plane = planes.sources[td * planes.count + d],
                               row = rows.sources[th * rows.count + h];
                    if (plane < 0 || row < 0) continue;
                    sources[count++] = {(td * rows.taps + th) * reads.axes[2].taps,
                                        (plane * reads.in[1] + row) * reads.in[2]};
                }
            const Size out_row =
                ((planes.first + d * planes.step) * reads.out[1] + rows.first + h * rows.step) * reads.out[2];
            body(out_row + reads.axes[2].first, sources, count);
        }
}

// --- depthwise convolution ---

/// One row of outputs of one block. It reads max(low, min(src, high)).
template <class T>
struct DepthwiseRow {
    const Reads& reads;
    const T* src;      // the block's plane
    T low, high;
    const T* weights;  // (tap, lane)
    const SourceRow* rows;
    Size row_count;

    LRPFAST_INLINE Vec<T> read(Size at) const { return minimum(splat(high), maximum(splat(low), load(src + at))); }
};

/// Windows that slide: PLACES outputs whose first taps lie SLOPE columns apart, `column` the first of them, and whose
/// TAPS taps lie side by side. Each vector of the source is loaded once.
template <class T, int TAPS, int SLOPE, int PLACES, bool BORDER>
LRPFAST_INLINE void slide(const DepthwiseRow<T>& row, Size column, Size lane, T* results) {
    constexpr int kWindow = (PLACES - 1) * SLOPE + TAPS;
    const Size width = row.reads.in[2];
    Vec<T> sums[PLACES] = {};
    for (Size r = 0; r < row.row_count; ++r) {
        const Size first = (row.rows[r].start + column) * kLanesOfBlock + lane;
        const T* w = row.weights + row.rows[r].first_tap * kLanesOfBlock + lane;
        Vec<T> x[kWindow];
        LRPFAST_UNROLL
        for (int i = 0; i < kWindow; ++i)
            x[i] = !BORDER || (column + i >= 0 && column + i < width) ? row.read(first + i * kLanesOfBlock) : Vec<T>{};
        LRPFAST_UNROLL
        for (int tap = 0; tap < TAPS; ++tap) {
            const Vec<T> weight = load(w + tap * kLanesOfBlock);
            LRPFAST_UNROLL
            for (int p = 0; p < PLACES; ++p) sums[p] = multiply_add(x[p * SLOPE + tap], weight, sums[p]);
        }
    }
    LRPFAST_UNROLL
    for (int p = 0; p < PLACES; ++p) store(results + p * kLanesOfBlock + lane, sums[p]);
}

template <class T, int TAPS, int SLOPE>
void sliding_row(const DepthwiseRow<T>& given, T* results) {
    constexpr int kPlaces = 6;
    const DepthwiseRow<T> row = given;
    const AxisReads& columns = row.reads.axes[2];
    const Size first = columns.offset + at_most(0, columns.tap_step * (TAPS - 1)), width = row.reads.in[2];
    for (Size lane = 0; lane < kLanesOfBlock; lane += kLanes<T>) {
        Size j = 0;
        for (; j + kPlaces <= columns.count; j += kPlaces) {
            const Size column = first + j * SLOPE;
            if (column >= 0 && column + (kPlaces - 1) * SLOPE + TAPS <= width)
                slide<T, TAPS, SLOPE, kPlaces, false>(row, column, lane, results + j * kLanesOfBlock);
            else
                slide<T, TAPS, SLOPE, kPlaces, true>(row, column, lane, results + j * kLanesOfBlock);
        }
        for (; j + 2 <= columns.count; j += 2)
            slide<T, TAPS, SLOPE, 2, true>(row, first + j * SLOPE, lane, results + j * kLanesOfBlock);
        if (j < columns.count)
            slide<T, TAPS, SLOPE, 1, true>(row, first + j * SLOPE, lane, results + j * kLanesOfBlock);
    }
}

/// Windows of any kind.
template <class T>
void any_row(const DepthwiseRow<T>& row, T* results) {
    const AxisReads& columns = row.reads.axes[2];
    for (Size j = 0; j < columns.count; ++j)
        for (Size lane = 0; lane < kLanesOfBlock; lane += kLanes<T>) {
            Vec<T> sum{};
            for (Size r = 0; r < row.row_count; ++r)
                for (Size tap = 0; tap < columns.taps; ++tap) {
                    const Size column = columns.sources[tap * columns.count + j];
                    if (column < 0) continue;
                    const T* w = row.weights + (row.rows[r].first_tap + tap) * kLanesOfBlock + lane;
                    sum = multiply_add(row.read((row.rows[r].start + column) * kLanesOfBlock + lane), load(w), sum);
                }
            store(results + j * kLanesOfBlock + lane, sum);
        }
}

template <class T>
using RowFunction = void (*)(const DepthwiseRow<T>&, T*);

/// How to go along rows.
template <class T>
RowFunction<T> row_function(const AxisReads& columns) {
    if (columns.taps > 1 && columns.tap_step != 1 && columns.tap_step != -1) return any_row<T>;
    if (columns.source_step == 1) switch (columns.taps) {
            case 1: return sliding_row<T, 1, 1>;
            case 2: return sliding_row<T, 2, 1>;
            case 3: return sliding_row<T, 3, 1>;
            case 5: return sliding_row<T, 5, 1>;
            case 7: return sliding_row<T, 7, 1>;
        }
    if (columns.source_step == 2) switch (columns.taps) {
            case 3: return sliding_row<T, 3, 2>;
            case 5: return sliding_row<T, 5, 2>;
        }
    return any_row<T>;
}

/// (tap, lane) of the block's filters; `taps` are those of `reads`, or, if `ascending`, go through columns from left to
/// right in any case.
template <class T>
const T* depthwise_weights(const Depthwise<T>& args, const Reads& reads, Size block, bool ascending) {
    const Size taps = reads.taps(), channels = at_most(kLanesOfBlock, args.c - block * kLanesOfBlock);
    T* weights = scratch<T>(Scratch::weights, taps * kLanesOfBlock);
    const Size kernel = args.windows.kernel.product(), columns = reads.axes[2].taps;
    const bool reversed = ascending && reads.axes[2].tap_step < 0;
    for (Size tap = 0; tap < taps; ++tap) {
        const Size index = reads.tap_index(reversed ? tap + columns - 1 - 2 * (tap % columns) : tap);
        for (Size lane = 0; lane < kLanesOfBlock; ++lane)
            weights[tap * kLanesOfBlock + lane] =
                lane < channels ? part_of(args.w[(block * kLanesOfBlock + lane) * kernel + index], args.w_part) : T(0);
    }
    return weights;
}

constexpr Size kRowsPlaces = 64;  // rows are finished together until they are as many places

template <class T>
void depthwise_sum(const Depthwise<T>& args, const Reads& reads, const Band& band, const Finisher<T>& finisher,
                   Totals& totals) {
    const Size blocks = blocks_of(args.c, kLanesOfBlock), at = band.sample * blocks + band.block;
    const T* src = args.src + at * reads.in.product() * kLanesOfBlock;
    const T low = args.src_part.negative == T(0) ? T(0) : -static_cast<T>(__builtin_inf());
    const RowFunction<T> compute = row_function<T>(reads.axes[2]);
    const T* weights = depthwise_weights(args, reads, band.block, compute != any_row<T>);
    const Size width = reads.axes[2].count, most = kRowsPlaces + width;
    T* results = scratch<T>(Scratch::result, most * kLanesOfBlock);
    Size* places = scratch<Size>(Scratch::filters, most);
    PlaceResults<T> some{results, nullptr, kLanesOfBlock, places, 0, band.block * kLanesOfBlock, kLanesOfBlock,
                         band.sample, blocks, reads.out.product()};
    for_output_rows(reads, band, [&](Size place, const SourceRow* rows, Size row_count) {
        compute({reads, src, low, args.src_high, weights, rows, row_count}, results + some.count * kLanesOfBlock);
        for (Size j = 0; j < width; ++j) places[some.count++] = place + j * reads.axes[2].step;
        if (some.count < kRowsPlaces) return;
        finisher.places(some, totals);
        some.count = 0;
    });
    finisher.places(some, totals);
}

template <class T>
void run_depthwise(const Depthwise<T>& given, const ReadsList& list) {
    const Size blocks = blocks_of(given.c, kLanesOfBlock);
    Depthwise<T> args = given;
    // Rows clamp what they read. Other parts are copied.
    if (given.src_part.positive != T(1) || (given.src_part.negative != T(0) && given.src_part.negative != T(1))) {
        args.src = parted(given.src, given.src_part, args.n * blocks * list[0].in.product() * kLanesOfBlock,
                          given.src_high);
        args.src_part = {T(1), T(1)};
        args.src_high = static_cast<T>(__builtin_inf());
    }
    for_bands(args.end, args.n, blocks, bands_of(list), plane_work(list, args.n * args.c),
              [&](const Finisher<T>& finisher, const Band& band, Totals& totals) {
                  for (Size i = 0; i < list.size(); ++i) depthwise_sum(args, list[i], band, finisher, totals);
              });
}

template <class T>
void depthwise_forward(const Depthwise<T>& args) {
    run_depthwise(args, ReadsList::forward(args.windows));
}

template <class T>
void depthwise_vjp(const Depthwise<T>& args) {
    run_depthwise(args, ReadsList::vjp(args.windows));
}

// --- pooling ---

/// body(j, place, sources, count) for each output of a row, by way of `rows`; the sources are those inside the input.
template <class Body>
LRPFAST_INLINE void for_row_windows(const Reads& reads, Size place, const SourceRow* rows, Size row_count,
                                    const Body& body) {
    const AxisReads& columns = reads.axes[2];
    Size* sources = scratch<Size>(Scratch::weights, at_least(1, reads.taps()));
    for (Size j = 0; j < columns.count; ++j) {
        Size count = 0;
        for (Size r = 0; r < row_count; ++r)
            for (Size tap = 0; tap < columns.taps; ++tap) {
                const Size column = columns.sources[tap * columns.count + j];
                if (column >= 0) sources[count++] = rows[r].start + column;
            }
        body(j, place + j * columns.step, sources, count);
    }
}

/// The same for all outputs of a band: body(place, sources, count, results) leaves kLanesOfBlock results, which
/// are finished row by row.
template <class T, class Body>
LRPFAST_INLINE void finish_windows(const Reads& reads, const Band& band, Size blocks, const Finisher<T>& finisher,
                                   Totals& totals, const Body& body) {
    const Size width = reads.axes[2].count;
    T* results = scratch<T>(Scratch::result, width * kLanesOfBlock);
    Size* places = scratch<Size>(Scratch::filters, width);
    for_output_rows(reads, band, [&](Size first, const SourceRow* rows, Size row_count) {
        for_row_windows(reads, first, rows, row_count,
                        [&](Size j, Size place, const Size* sources, Size count) LRPFAST_INLINE_LAMBDA {
                            places[j] = place;
                            body(place, sources, count, results + j * kLanesOfBlock);
                        });
        finisher.places({results, nullptr, kLanesOfBlock, places, width, band.block * kLanesOfBlock, kLanesOfBlock,
                         band.sample, blocks, reads.out.product()},
                        totals);
    });
}

/// One band of a sum-pooling; gains are per place of the input or of the output, null for none.
template <class T>
void sum_windows(const SumPool<T>& args, const Reads& reads, const Band& band, const T* in_gains, const T* out_gains,
                 const Finisher<T>& finisher, Totals& totals) {
    const T* src = args.src + (band.sample * args.blocks + band.block) * reads.in.product() * kLanesOfBlock;
    finish_windows(reads, band, args.blocks, finisher, totals,
                   [&](Size place, const Size* sources, Size count, T* results) LRPFAST_INLINE_LAMBDA {
                       for (Size lane = 0; lane < kLanesOfBlock; lane += kLanes<T>) {
                           Vec<T> sum{};
                           for (Size i = 0; i < count; ++i) {
                               Vec<T> x = part_of(load(src + sources[i] * kLanesOfBlock + lane), args.src_part);
                               if (in_gains != nullptr) x = x * part_of(in_gains[sources[i]], args.w_part);
                               sum = sum + x;
                           }
                           if (out_gains != nullptr) sum = sum * part_of(out_gains[place], args.w_part);
                           store(results + lane, sum);
                       }
                   });
}

template <class T>
void run_sumpool(const SumPool<T>& args, const ReadsList& list, const T* in_gains, const T* out_gains) {
    for_bands(args.end, args.n, args.blocks, bands_of(list), plane_work(list, args.n * args.blocks * kLanesOfBlock),
              [&](const Finisher<T>& finisher, const Band& band, Totals& totals) {
                  for (Size i = 0; i < list.size(); ++i)
                      sum_windows(args, list[i], band, in_gains, out_gains, finisher, totals);
              });
}

/// Global pooling has too many products for float32: it adds up in float64.
template <class T>
void global_sum_forward(const SumPool<T>& args) {
    const Size size = args.windows.x.product();
    for_bands(args.end, args.n, args.blocks, 1, args.n * args.blocks * size * kLanesOfBlock * 2,
              [&](const Finisher<T>& finisher, const Band& band, Totals& totals) {
                  const Size at = band.sample * args.blocks + band.block;
                  const T* src = args.src + at * size * kLanesOfBlock;
                  T results[kLanesOfBlock];
                  for (Size lane = 0; lane < kLanesOfBlock; lane += kLanes<T>) {
                      Wide<T> sums{};
                      for (Size i = 0; i < size; ++i)
                          add_wide<T>(sums, part_of(load(src + i * kLanesOfBlock + lane), args.src_part));
                      store(results + lane, narrow<T>(sums) * part_of(*args.w, args.w_part));
                  }
                  finisher.channels(results, kLanesOfBlock, at * kLanesOfBlock, band.block * kLanesOfBlock, totals);
              });
}

template <class T>
void sumpool_forward(const SumPool<T>& args) {
    if (is_one_window(args.windows)) return global_sum_forward(args);
    run_sumpool<T>(args, ReadsList::forward(args.windows), nullptr, args.w);
}

template <class T>
void sumpool_vjp(const SumPool<T>& args) {
    run_sumpool<T>(args, ReadsList::vjp(args.windows), args.w, nullptr);
}

/// A signed integer for each lane, as comparisons give them.
template <class T>
using Ints = decltype(Vec<T>{} > Vec<T>{});

template <class T>
LRPFAST_INLINE Ints<T> splat_index(Size index) {
    return static_cast<std::remove_reference_t<decltype(Ints<T>{}[0])>>(index) - Ints<T>{};
}

template <class T>
void maxpool_forward(const MaxPool<T>& args) {
    typedef std::int32_t Indices __attribute__((vector_size(kLanes<T> * sizeof(std::int32_t))));
    const ReadsList list = ReadsList::forward(args.windows);
    const Reads& reads = list[0];
    const Size work = plane_work(list, args.n * args.blocks * kLanesOfBlock);
    for_bands(args.n, args.blocks, bands_of(list), work, [&](const Band& band) {
        const Size at = band.sample * args.blocks + band.block;
        const T* src = args.src + at * reads.in.product() * kLanesOfBlock;
        for_output_rows(reads, band, [&](Size first, const SourceRow* rows, Size row_count) {
            for_row_windows(reads, first, rows, row_count, [&](Size, Size place, const Size* sources,
                                                               Size count) LRPFAST_INLINE_LAMBDA {
                const Size to = (at * reads.out.product() + place) * kLanesOfBlock;
                for (Size lane = 0; lane < kLanesOfBlock; lane += kLanes<T>) {
                    Vec<T> best = splat(-static_cast<T>(__builtin_inf()));
                    Ints<T> winners{};
                    for (Size i = 0; i < count; ++i) {
                        const Vec<T> x = load(src + sources[i] * kLanesOfBlock + lane);
                        const Ints<T> better = x > best;
                        best = better ? x : best;
                        winners = better ? splat_index<T>(sources[i]) : winners;
                    }
                    const Indices indices = __builtin_convertvector(winners, Indices);
                    store(args.out + to + lane, best);
                    __builtin_memcpy(args.winners + to + lane, &indices, sizeof indices);
                }
            });
        });
    });
}

/// Each place takes what the windows that it won hand back.
template <class T>
void maxpool_vjp(const MaxPoolVjp<T>& args) {
    typedef std::int32_t Indices __attribute__((vector_size(kLanes<T> * sizeof(std::int32_t))));
    const ReadsList list = ReadsList::vjp(args.windows);
    for_bands(args.end, args.n, args.blocks, bands_of(list), plane_work(list, args.n * args.blocks * kLanesOfBlock),
              [&](const Finisher<T>& finisher, const Band& band, Totals& totals) {
                  for (Size i = 0; i < list.size(); ++i) {
                      const Size first = (band.sample * args.blocks + band.block) * list[i].in.product() * kLanesOfBlock;
                      const T* src = args.src + first;
                      const std::int32_t* winners = args.winners + first;
                      finish_windows(list[i], band, args.blocks, finisher, totals,
                                     [&](Size place, const Size* windows, Size count, T* results)
                                         LRPFAST_INLINE_LAMBDA {
                          for (Size lane = 0; lane < kLanesOfBlock; lane += kLanes<T>) {
                              Vec<T> sum{};
                              for (Size w = 0; w < count; ++w) {
                                  Indices indices;
                                  __builtin_memcpy(&indices, winners + windows[w] * kLanesOfBlock + lane,
                                                   sizeof indices);
                                  const Ints<T> won =
                                      __builtin_convertvector(indices, Ints<T>) == splat_index<T>(place);
                                  sum = sum + (won ? load(src + windows[w] * kLanesOfBlock + lane) : Vec<T>{});
                              }
                              store(results + lane, sum);
                          }
                      });
                  }
              });
}
