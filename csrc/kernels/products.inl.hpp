// Convolutions and their transposes: panels of weights times places of the source.
//
// A task has some panels of output channels, which stay in the cache, and a range of places, which it goes
// through in chunks that stay there too. The panels were packed beforehand, or the task packs its own.

constexpr Size kPanelBytes = 192 << 10;  // of a task's panels, if there are several
constexpr Size kRangeChunks = 8;         // packing pays if a task has at least as many chunks

/// One of the sums of a convolution (see reads.hpp).
template <class T>
struct Product {
    const Linear<T>& args;
    const Reads& reads;
    WeightMatrix<T> matrix;
    const Part<T>* other_part;  // that counts where what multiplies the result is not positive, or null
    const T* packed;            // all panels without `matrix.part`, or null
    Size samples, src_lanes, place_step;
    Finisher<T> finisher;

    Size out_blocks, panels, panel_size, panels_of_task, chunks, ranges;
    Size panel_step, row_step;  // from one panel to the next, and from one channel's rows to the next
    Size depth;  // channels of which all tiles of a chunk take the products before those of the next

    /// `step` numbers lie from one place to the next.
    Product(const Linear<T>& linear, const Reads& sum, const WeightMatrix<T>& weights, const Part<T>* other,
            const T* panels_of_sum, Size n, Size lanes, Size step)
        : args(linear),
          reads(sum),
          matrix(weights),
          other_part(other),
          packed(panels_of_sum),
          samples(n),
          src_lanes(lanes),
          place_step(step),
          finisher(linear.end) {
        out_blocks = blocks_of(matrix.all_outs(), kLanesOfBlock);
        panels = blocks_of(out_blocks * kLanesOfBlock, kPanel<T>);  // the last may have no outputs but padding
        panel_size = panel_step = size_of_panel(matrix, reads.taps());
        row_step = reads.taps() * kPanel<T>;
        depth = matrix.sources * matrix.groups;
        const bool can_filter = Filter<T>::can(matrix.part) && (other == nullptr || Filter<T>::can(*other));
        if (packed == nullptr && matrix.lies_as_panels() && can_filter) {
            packed = matrix.w;
            panel_step = kPanel<T>;
            row_step = matrix.source_step;
            depth = matrix.lasting_lines();
        }
        chunks = chunks_of(reads.count());
        const Size bytes = panel_size * static_cast<Size>(sizeof(T));
        panels_of_task = at_most(panels, at_least(1, kPanelBytes / at_least(1, bytes)));
        ranges = 1;
        // Give each thread something to do, places first if they are more than the weights, as threads then share
        // the smaller of the two; the results do not depend on it.
        const Size wanted = usable_threads() > 1 ? 3 * usable_threads() : 1;
        const Size least = packed != nullptr ? 1 : kRangeChunks, most = at_least(1, all_chunks() / least);
        if (reads.in.product() > matrix.all_outs()) ranges = at_most(most, blocks_of(wanted, panel_groups()));
        while (panels_of_task > 1 && tasks() < wanted) panels_of_task = blocks_of(panels_of_task, 2);
        ranges = at_most(most, at_least(ranges, blocks_of(wanted, panel_groups())));
    }

    Size panel_groups() const { return blocks_of(panels, panels_of_task); }
    Size all_chunks() const { return samples * chunks; }
    Size tasks() const { return panel_groups() * ranges; }
    Size slots() const { return panels * chunks; }
    Size work() const {
        return samples * reads.count() * matrix.all_outs() * (matrix.sources * reads.taps() + 32);
    }

    /// Some panels of weights as tiles are to use them.
    struct Weights {
        const T* panels;
        Part<T> part;   // that tiles have to filter out
        bool filtered;
    };

    void run(Size task, const SlotSums<T>& sums, Size slot0) const {
        const Size panel0 = task % panel_groups() * panels_of_task, range = task / panel_groups();
        const Size panel1 = at_most(panel0 + panels_of_task, panels);
        const Size first = range * all_chunks() / ranges, last = (range + 1) * all_chunks() / ranges;
        const Weights weights = weights_of(panel0, panel1, matrix.part, Scratch::weights);
        const Weights others =
            other_part == nullptr ? weights : weights_of(panel0, panel1, *other_part, Scratch::other_weights);
        for (Size chunk = first; chunk < last; ++chunk) {
            const Chunk places(reads, chunk % chunks, chunks, kTilePlaces);
            for (Size panel = panel0; panel < panel1; ++panel) {
                Totals totals{};
                run_panel(places, chunk / chunks, panel, (panel - panel0) * panel_step, weights, others, totals);
                sums.add(chunk / chunks, slot0 + panel * chunks + chunk % chunks, totals);
            }
        }
    }

    Weights weights_of(Size panel0, Size panel1, const Part<T>& part, Scratch use) const {
        const bool whole = part.is_identity();
        const T* const from = packed + panel0 * panel_step;
        if (packed != nullptr && (whole || Filter<T>::can(part))) return {from, part, !whole};
        T* own = scratch<T>(use, (panel1 - panel0) * panel_size);
        WeightMatrix<T> parted_matrix = matrix;
        parted_matrix.part = part;
        if (packed != nullptr)
            copy_line(part, from, (panel1 - panel0) * panel_size, own);
        else
            fill_panels(parted_matrix, panel0, panel1, taps_of(matrix, reads), own, panel_size);
        return {own, part, false};
    }

    /// One panel, `at` numbers from the first, for the places of one chunk.
    void run_panel(const Chunk& places, Size sample, Size panel, Size at, const Weights& weights,
                   const Weights& others, Totals& totals) const {
        const Size out0 = panel * kPanel<T>, taps = reads.taps(), in = reads.in.product();
        const Size outs = at_most(kPanel<T>, out_blocks * kLanesOfBlock - out0), left = matrix.all_outs() - out0;
        T results[kChunkPlaces * kPanel<T>], more[kChunkPlaces * kPanel<T>];
        const bool by_sign = other_part != nullptr;
        const PlaceResults<T> all{results, by_sign ? more : nullptr, kPanel<T>, places.out, places.count, out0, outs,
                                  sample, out_blocks, reads.out.product()};
        if (left < outs) {
            fill_line(T(0), places.count * kPanel<T>, results);
            if (by_sign) fill_line(T(0), places.count * kPanel<T>, more);
        }
        if (left > 0) {
            Size begin, end;
            panel_sources(matrix, out0, begin, end);
            const Size src_blocks = blocks_of(matrix.sources * matrix.groups, src_lanes);
            TileSource<T> source{
                args.src + (sample * src_blocks + begin / src_lanes) * in * place_step,
                in * place_step, place_step, begin % src_lanes, taps > 0 ? end - begin : 0, src_lanes, taps,
                row_step, 0};
            const Size channels = source.channels;
            for (Size done = 0; done == 0 || done < channels; done += depth) {
                source.channels = at_most(depth, channels - done);
                const Size row = at + done * row_step;
                for (Size tile = 0; tile < places.tiles; ++tile) {
                    const Size first = places.first_of(tile), count = places.first_of(tile + 1) - first;
                    const Size* from = places.sources + tile * taps * kTilePlaces;
                    if (done == 0) prefetch_places(args.end, all, first, first + count);
                    const auto multiply = [&](const Weights& by, T* to) {
                        const auto run_tile = tile_for<T>(count, left, by.filtered);
                        if (done == 0) return run_tile(source, from, by.panels + row, by.part, to, kPanel<T>);
                        T sums[kTilePlaces * kPanel<T>];
                        run_tile(source, from, by.panels + row, by.part, sums, kPanel<T>);
                        for (Size p = 0; p < count; ++p)
                            add_line(sums + p * kPanel<T>, at_most(kPanel<T>, left), to + p * kPanel<T>);
                    };
                    multiply(weights, results + first * kPanel<T>);
                    if (by_sign) multiply(others, more + first * kPanel<T>);
                }
                source.src += depth / src_lanes * source.block_step;
            }
        }
        finisher.places(all, totals);
    }
};

/// out = matrix · part(src), as the sums of `list`; into blocks of kLanesOfBlock channels, or fewer lanes.
/// `packed` holds the panels of all sums, or is null; so is `other`, the part of the weights that counts where the
/// ending multiplies by what is not positive.
template <class T>
void run_products(const Linear<T>& linear, const ReadsList& list, const WeightMatrix<T>& matrix,
                  const Part<T>* other, const T* packed, Size n, Size src_lanes, Size place_step, Size out_lanes) {
    const Size plane = list[0].in.product() * place_step;
    Linear<T> args = linear;
    args.src = parted(linear.src, linear.src_part,
                      n * blocks_of(matrix.sources * matrix.groups, src_lanes) * plane);
    Size slots = 0;
    for (Size i = 0; i < list.size(); ++i)
        slots += out_lanes < kLanesOfBlock
                     ? chunks_of(list[i].count())
                     : Product<T>(args, list[i], matrix, other, packed, n, src_lanes, place_step).slots();
    const SlotSums<T> sums(Finisher<T>(args.end), n, slots);
    Size slot = 0;
    for (Size i = 0; i < list.size(); ++i) {
        if (out_lanes < kLanesOfBlock) {
            const ThinProduct<T> product(args, list[i], matrix, n, src_lanes, out_lanes);
            parallel_for(product.tasks(), product.work(), [&](Size task) { product.run(task, sums, slot); });
            slot += product.chunks;
        } else {
            const Product<T> product(args, list[i], matrix, other, packed, n, src_lanes, place_step);
            parallel_for(product.tasks(), product.work(), [&](Size task) { product.run(task, sums, slot); });
            slot += product.slots();
            if (packed != nullptr) packed += product.panels * product.panel_size;
        }
    }
    sums.settle();
}
