// Dense layers. Weights are read as they lie, once for all samples of a block: with few samples the
// memory is what limits, and a packed copy would double its traffic.
//
// The order in which an output's products are added depends on k (or m) alone.

/// sums[r · pitch + c] += Σ_k x[r, k] · part(w)[c, k] over `depth` products, for a tile of R × C.
template <class T, int R, int C, bool Whole>
void add_dots(const T* x, Size x_pitch, const T* w, Size w_pitch, const Part<T>& part, Size depth, T* sums,
              Size pitch) {
    Vec<T> tile[R * C] = {};
    for_vectors<T>(depth, [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
        Vec<T> b[C];
        for (int c = 0; c < C; ++c) {
            b[c] = lanes.get(w + c * w_pitch + i);
            if (!Whole) b[c] = part_of(b[c], part);
        }
        for (int r = 0; r < R; ++r) {
            const Vec<T> a = lanes.get(x + r * x_pitch + i);
            for (int c = 0; c < C; ++c) tile[r * C + c] = multiply_add(a, b[c], tile[r * C + c]);
        }
    });
    constexpr int kLines = static_cast<int>(kLanes<T>);
    T found[R * C];
    if constexpr (R * C % kLines == 0) {
        for (int i = 0; i < R * C; i += kLines) store(found + i, lane_sums<T>(tile + i));
    } else {
        for (int i = 0; i < R * C; ++i) found[i] = lane_sum<T>(tile[i]);
    }
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) sums[r * pitch + c] += found[r * C + c];
}

/// For run_tasks: to read w takes as long as the products of a sample.
template <class T>
Size gemm_work(const Gemm<T>& args) {
    return (args.n + 1) * args.m * args.k;
}

constexpr Size kGemmDepth = 1024;  // products that are added up before they join the rest
constexpr Size kGemmRows = 64;     // outputs of a task
constexpr Size kGemmSamples = 32;  // samples of a task

/// The outputs [m0, m1) of the samples [n0, n1).
template <class T, bool Whole>
void gemm_block(const Gemm<T>& args, const T* src, Size n0, Size n1, Size m0, Size m1,
                const Finisher<T>& finisher, const SlotSums<T>& slots) {
    T* sums = scratch<T>(Scratch::result, kGemmSamples * kGemmRows);
    for (Size i = 0; i < (n1 - n0) * kGemmRows; ++i) sums[i] = 0;
    // With few samples each row of w is best read in one go, with many its blocks stay in the cache.
    const Size rows = n1 - n0 <= 16 ? 4 : kGemmRows;
    for (Size m = m0; m < m1; m += rows)
        for (Size k = 0; k < args.k; k += kGemmDepth) {
            const Size depth = at_most(kGemmDepth, args.k - k);
            const auto tile = [&](auto add, Size n, Size row) {
                add(src + n * args.k + k, args.k, args.w + row * args.k + k, args.k, args.w_part, depth,
                    sums + (n - n0) * kGemmRows + row - m0, kGemmRows);
            };
            const Size end = at_most(m + rows, m1);
            for (Size row = m; row < end; row += row + 4 <= end ? 4 : 1) {
                const bool four = row + 4 <= end;
                Size n = n0;
                for (; n + 4 <= n1; n += 4)
                    four ? tile(add_dots<T, 4, 4, Whole>, n, row) : tile(add_dots<T, 4, 1, Whole>, n, row);
                for (; n < n1; ++n)
                    four ? tile(add_dots<T, 1, 4, Whole>, n, row) : tile(add_dots<T, 1, 1, Whole>, n, row);
            }
        }
    for (Size n = n0; n < n1; ++n) {
        Totals totals{};
        finisher.channels(sums + (n - n0) * kGemmRows, m1 - m0, n * args.m + m0, m0, totals);
        slots.add(n, m0 / kGemmRows, totals);
    }
}

template <class T>
void gemm_forward(const Gemm<T>& args) {
    const T* src = parted(args.src, args.src_part, args.n * args.k);
    const Size blocks = blocks_of(args.m, kGemmRows);
    const Finisher<T> finisher(args.end);
    const SlotSums<T> slots(finisher, args.n, blocks);
    parallel_for(blocks * blocks_of(args.n, kGemmSamples), gemm_work(args), [&](Size task) {
        const Size m = task % blocks * kGemmRows, n = task / blocks * kGemmSamples;
        const auto block = args.w_part.is_identity() ? gemm_block<T, true> : gemm_block<T, false>;
        block(args, src, n, at_most(n + kGemmSamples, args.n), m, at_most(m + kGemmRows, args.m), finisher, slots);
    });
    slots.settle();
}

/// sums[r, i] += Σ_g s[g, r] · part(rows[g])[i] for 4 rows of w and R samples.
template <class T, int R, bool Whole>
void add_rows(const T* const (&rows)[4], const T (&s)[4][R], const Part<T>& part, Size count, T* sums,
              Size pitch) {
    for_vectors<T>(count, [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
        Vec<T> w[4];
        for (int g = 0; g < 4; ++g) {
            w[g] = lanes.get(rows[g] + i);
            if (!Whole) w[g] = part_of(w[g], part);
        }
        for (int r = 0; r < R; ++r) {
            Vec<T> sum = load(sums + r * pitch + i);
            for (int g = 0; g < 4; ++g) sum = multiply_add(splat(s[g][r]), w[g], sum);
            store(sums + r * pitch + i, sum);
        }
    });
}

constexpr Size kVjpSums = 32768;  // outputs times samples of a task: they stay in the nearest cache
constexpr Size kVjpRows = 64;     // rows of w that stay in the cache for all samples
constexpr Size kVjpSlot = 512;    // outputs whose sums are added up first
constexpr Size kVjpDepth = 512;   // products that are added up before they join the rest

/// Add the rows [m0, m1) of w, times s, to R samples' sums; rows that no sample needs are left out.
template <class T, int R, bool Whole>
void add_needed_rows(const T* s, Size s_pitch, const T* w, Size w_pitch, Size m0, Size m1,
                     const Part<T>& part, Size count, T* sums, Size pitch) {
    const T* rows[4];
    T factors[4][R];
    int filled = 0;
    for (Size m = m0; m < m1; ++m) {
        bool needed = false;
        for (int r = 0; r < R; ++r) needed |= s[r * s_pitch + m] != 0;
        if (!needed) continue;
        rows[filled] = w + m * w_pitch;
        for (int r = 0; r < R; ++r) factors[filled][r] = s[r * s_pitch + m];
        if (++filled < 4) continue;
        add_rows<T, R, Whole>(rows, factors, part, count, sums, pitch);
        filled = 0;
    }
    if (filled == 0) return;
    for (int g = filled; g < 4; ++g) {
        rows[g] = rows[0];
        for (int r = 0; r < R; ++r) factors[g][r] = 0;
    }
    add_rows<T, R, Whole>(rows, factors, part, count, sums, pitch);
}

/// The products of the rows [m0, m1) of w with the samples [n0, n1), for `count` outputs from k0 on, whole vectors
/// of them: by tiles, in the same order as row by row.
template <class T>
void tile_rows(const Gemm<T>& args, const T* src, Size n0, Size n1, Size m0, Size m1, Size k0, Size count, T* sums,
               Size pitch) {
    const TileSource<T> source{src + m0, 0, args.m, 0, m1 - m0, m1 - m0, 1, args.k, 0};
    const Size tiles = blocks_of(n1 - n0, kTilePlaces);
    for (Size k = 0; k < count; k += kPanel<T>)
        for (Size tile = 0; tile < tiles; ++tile) {
            const Size first = tile * (n1 - n0) / tiles, some = (tile + 1) * (n1 - n0) / tiles - first;
            Size samples[kTilePlaces];
            for (Size p = 0; p < some; ++p) samples[p] = n0 + first + p;
            tile_for<T>(some, count - k, !args.w_part.is_identity())(
                source, samples, args.w + m0 * args.k + k0 + k, args.w_part, sums + first * pitch + k, pitch);
        }
}

/// The outputs [k0, k1) of the samples [n0, n1).
template <class T, bool Whole>
void gemm_vjp_block(const Gemm<T>& args, const T* src, Size n0, Size n1, Size k0, Size k1,
                    const Finisher<T>& finisher, const SlotSums<T>& slots) {
    const Size pitch = blocks_of(k1 - k0, kLanes<T>) * kLanes<T>, samples = n1 - n0;
    T* totals = scratch<T>(Scratch::result, 2 * samples * pitch);
    T* sums = totals + samples * pitch;
    for (Size i = 0; i < samples * pitch; ++i) totals[i] = 0;
    const bool by_tiles = samples >= kTilePlaces && Filter<T>::can(args.w_part);
    const Size tiled = by_tiles ? (k1 - k0) / kLanes<T> * kLanes<T> : 0;
    for (Size depth = 0; depth < args.m; depth += kVjpDepth) {
        const Size bottom = at_most(depth + kVjpDepth, args.m);
        for (Size i = 0; i < samples * pitch; ++i) sums[i] = 0;
        if (tiled > 0) tile_rows(args, src, n0, n1, depth, bottom, k0, tiled, sums, pitch);
        for (Size m = depth; m < bottom && tiled < k1 - k0; m += kVjpRows) {
            const auto add = [&](auto add_some, Size n) {
                add_some(src + n * args.m, args.m, args.w + k0 + tiled, args.k, m, at_most(m + kVjpRows, bottom),
                         args.w_part, k1 - k0 - tiled, sums + (n - n0) * pitch + tiled, pitch);
            };
            Size n = n0;
            for (; n + 4 <= n1; n += 4) add(add_needed_rows<T, 4, Whole>, n);
            for (; n < n1; ++n) add(add_needed_rows<T, 1, Whole>, n);
        }
        for (Size i = 0; i < samples * pitch; ++i) totals[i] += sums[i];
    }
    for (Size n = n0; n < n1; ++n, totals += pitch)
        for (Size k = k0; k < k1; k += kVjpSlot) {
            Totals counted{};
            finisher.channels(totals + k - k0, at_most(kVjpSlot, k1 - k), n * args.k + k, k, counted);
            slots.add(n, k / kVjpSlot, counted);
        }
}

template <class T>
void gemm_vjp(const Gemm<T>& args) {
    const T* src = parted(args.src, args.src_part, args.n * args.m);
    const Size fitting = at_least(1, kVjpSums / at_least(1, args.n));  // of many samples a task takes some at a time
    const Size wanted = at_most(at_most(8192, fitting), blocks_of(args.k, usable_threads()));
    const Size columns = blocks_of(wanted, kVjpSlot) * kVjpSlot, blocks = blocks_of(args.k, columns);
    const Finisher<T> finisher(args.end);
    const SlotSums<T> slots(finisher, args.n, blocks_of(args.k, kVjpSlot));
    parallel_for(blocks * blocks_of(args.n, kGemmSamples), gemm_work(args), [&](Size task) {
        const Size k = task % blocks * columns, n = task / blocks * kGemmSamples;
        const auto block = args.w_part.is_identity() ? gemm_vjp_block<T, true> : gemm_vjp_block<T, false>;
        block(args, src, n, at_most(n + kGemmSamples, args.n), k, at_most(k + columns, args.k), finisher, slots);
    });
    slots.settle();
}
