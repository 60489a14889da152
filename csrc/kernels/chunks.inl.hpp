// Places in a row, and what they read: what tiles go through.

constexpr Size kChunkPlaces = 48;  // places of a chunk: 8 tiles

/// Some outputs of one plane in a row: where each goes, and what its taps read.
struct Chunk {
    Size count, tile;
    Size out[kChunkPlaces];
    Size* sources;  // [tile][tap][most places of a tile]

    Chunk(const Reads& reads, Size first, Size tile_places) {
        count = at_most(kChunkPlaces, reads.count() - first);
        tile = blocks_of(count, blocks_of(count, tile_places));  // tiles as equal as can be
        const AxisReads &planes = reads.axes[0], &rows = reads.axes[1], &columns = reads.axes[2];
        const Size of_tile = reads.taps() * tile_places;
        sources = scratch<Size>(Scratch::places, blocks_of(count, tile) * of_tile);
        Size w = first % columns.count, h = first / columns.count % rows.count,
             d = first / columns.count / rows.count;
        Size* to = sources;
        for (Size i = 0, in_tile = 0; i < count; ++i) {
            out[i] = ((planes.first + d * planes.step) * reads.out[1] + rows.first + h * rows.step) *
                         reads.out[2] + columns.first + w * columns.step;
            Size* source = to + in_tile;
            for (Size td = 0; td < planes.taps; ++td)
                for (Size th = 0; th < rows.taps; ++th) {
                    const Size plane = planes.sources[td * planes.count + d],
                               row = rows.sources[th * rows.count + h];
                    const Size start =
                        plane < 0 || row < 0 ? kOutside : (plane * reads.in[1] + row) * reads.in[2];
                    for (Size tw = 0; tw < columns.taps; ++tw, source += tile_places)
                        *source = start + columns.sources[tw * columns.count + w];
                }
            if (++in_tile == tile) in_tile = 0, to += of_tile;
            if (++w < columns.count) continue;
            w = 0;
            if (++h < rows.count) continue;
            h = 0;
            ++d;
        }
    }
};
