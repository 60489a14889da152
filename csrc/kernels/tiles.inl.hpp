// Register tiles: the products of a few places with a panel of weights.
//
// Lanes are output channels. A tile holds up to kTilePlaces places × kTileVectors vectors of sums; for each
// source channel it loads one row of the panel and a number per place. Sums grow in the order of the
// products, whatever tile a place belongs to.

/// What a tile reads: `blocks` blocks of source channels, `taps` places in each.
///
/// Block b begins at src + b · block_step; `lanes` of its channels lie at each place. The panel has a row of up to
/// kPanel weights for each (source channel, tap).
template <class T>
struct TileSource {
    const T* src;
    Size block_step, place_step;
    Size first_lane, channels;  // all channels count from the first block's first lane
    Size lanes, taps;
    Size row_step;   // from the panel's rows of one channel to those of the next
    Size panel_gap;  // and more from one block to the next
};

/// to[p · pitch + …] = Σ over channels and taps of source × panel, for PLACES places × VECTORS vectors; or of
/// source × part(panel), if FILTERED and `Filter` can take that part.
/// places[tap · kTilePlaces + p] is negative where there is nothing to read.
template <class T, int PLACES, int VECTORS, bool FILTERED>
void multiply_tile(const TileSource<T>& from, const Size* places, const T* panel, const Part<T>& part, T* to,
                   Size pitch) {
    const Filter<T> filter(part);
    alignas(64) static const T nothing[kLanesOfBlock] = {};
    Vec<T> sums[PLACES][VECTORS] = {};
    const T* row = panel;  // of the block's first channel
    const T* block = from.src;
    const Size row_step = from.row_step;
    Size first = from.first_lane;
    for (Size left = from.channels; left > 0; first = 0) {
        const Size count = at_most(left, from.lanes - first);
        for (Size tap = 0; tap < from.taps; ++tap) {
            const T* x[PLACES];
            LRPFAST_UNROLL
            for (int p = 0; p < PLACES; ++p) {
                const Size place = places[tap * kTilePlaces + p];
                x[p] = place < 0 ? nothing : block + place * from.place_step + first;
                __builtin_prefetch(x[p] + PLACES * from.place_step);  // which the next tile is likely to read
            }
            const T* w = row + tap * kPanel<T>;
            for (Size k = 0; k < count; ++k, w += row_step) {
                Vec<T> weights[VECTORS];
                LRPFAST_UNROLL
                for (int v = 0; v < VECTORS; ++v) {
                    weights[v] = load(w + v * kLanes<T>);
                    if (FILTERED) weights[v] = filter.of(weights[v]);
                }
                LRPFAST_UNROLL
                for (int p = 0; p < PLACES; ++p) {
                    const Vec<T> value = splat(x[p][k]);
                    LRPFAST_UNROLL
                    for (int v = 0; v < VECTORS; ++v)
                        sums[p][v] = multiply_add(value, weights[v], sums[p][v]);
                }
            }
        }
        row += count * row_step + from.panel_gap;
        block += from.block_step;
        left -= count;
    }
    LRPFAST_UNROLL
    for (int p = 0; p < PLACES; ++p) {
        LRPFAST_UNROLL
        for (int v = 0; v < VECTORS; ++v) store(to + p * pitch + v * kLanes<T>, sums[p][v]);
    }
}

template <class T>
using TileFunction = void (*)(const TileSource<T>&, const Size*, const T*, const Part<T>&, T*, Size);

template <class T, int VECTORS, bool FILTERED>
TileFunction<T> tile_of_width(Size places) {
    switch (places) {
        case 1: return multiply_tile<T, 1, VECTORS, FILTERED>;
        case 2: return multiply_tile<T, 2, VECTORS, FILTERED>;
        case 3: return multiply_tile<T, 3, VECTORS, FILTERED>;
        case 4: return multiply_tile<T, 4, VECTORS, FILTERED>;
        case 5: return multiply_tile<T, 5, VECTORS, FILTERED>;
        default: return multiply_tile<T, 6, VECTORS, FILTERED>;
    }
}

template <class T, bool FILTERED>
TileFunction<T> filtered_tile(Size places, Size vectors) {
    if (vectors <= 1) return tile_of_width<T, 1, FILTERED>(places);
    if (vectors == 2 || kTileVectors == 2) return tile_of_width<T, 2, FILTERED>(places);
    constexpr int kThree = kTileVectors < 3 ? kTileVectors : 3;
    if (vectors == 3) return tile_of_width<T, kThree, FILTERED>(places);
    return tile_of_width<T, kTileVectors, FILTERED>(places);
}

/// The tile for that many places and output channels.
template <class T>
TileFunction<T> tile_for(Size places, Size channels, bool filtered) {
    const Size vectors = blocks_of(channels, kLanes<T>);
    return filtered ? filtered_tile<T, true>(places, vectors) : filtered_tile<T, false>(places, vectors);
}
