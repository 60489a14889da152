// Places in a row, and what they read: what tiles go through.

constexpr Size kChunkPlaces = 56;  // places of a chunk at most

/// How many chunks of equal size make `count` places; two at least, if they are some tiles each, for two threads.
inline Size chunks_of(Size count) {
    const Size chunks = blocks_of(count, kChunkPlaces);
    return chunks == 1 && count >= 4 * kTilePlaces ? 2 : chunks;
}

/// Some outputs of one plane in a row: where each goes, and what its taps read. They are shared out to tiles as
/// equally as can be.
struct Chunk {
    Size count, tiles;
    Size out[kChunkPlaces];
    Size* sources;  // [tile][tap][most places of a tile]

    Size first_of(Size tile) const { return tile * count / tiles; }

    Chunk(const Reads& reads, Size chunk, Size chunks, Size tile_places) {
        const Size first = chunk * reads.count() / chunks;
        count = (chunk + 1) * reads.count() / chunks - first;
        tiles = blocks_of(count, tile_places);
        const AxisReads &planes = reads.axes[0], &rows = reads.axes[1], &columns = reads.axes[2];
        const Size of_tile = reads.taps() * tile_places;
        sources = scratch<Size>(Scratch::places, tiles * of_tile);
        if (reads.pointwise()) {
            for (Size i = 0; i < count; ++i) out[i] = first + i;
            for (Size tile = 0; tile < tiles; ++tile)
                for (Size p = 0; p < tile_places; ++p) sources[tile * of_tile + p] = first + first_of(tile) + p;
            return;
        }
        Size w = first % columns.count, h = first / columns.count % rows.count,
             d = first / columns.count / rows.count;
        for (Size tile = 0; tile < tiles; ++tile)
            for (Size i = first_of(tile); i < first_of(tile + 1); ++i) {
                out[i] = ((planes.first + d * planes.step) * reads.out[1] + rows.first + h * rows.step) *
                             reads.out[2] + columns.first + w * columns.step;
                Size* source = sources + tile * of_tile + i - first_of(tile);
                for (Size td = 0; td < planes.taps; ++td)
                    for (Size th = 0; th < rows.taps; ++th) {
                        const Size plane = planes.sources[td * planes.count + d],
                                   row = rows.sources[th * rows.count + h];
                        const Size start =
                            plane < 0 || row < 0 ? kOutside : (plane * reads.in[1] + row) * reads.in[2];
                        for (Size tw = 0; tw < columns.taps; ++tw, source += tile_places)
                            *source = start + columns.sources[tw * columns.count + w];
                    }
                if (++w < columns.count) continue;
                w = 0;
                if (++h < rows.count) continue;
                h = 0;
                ++d;
            }
    }
};
