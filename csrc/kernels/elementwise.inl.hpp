// Kernels that treat every element alone, and sums over samples.

constexpr Size kChunk = 16384;  // elements of a task

/// body(i, lanes) for each vector of [0, size), on several threads.
template <class T, class Body>
void parallel_vectors(Size size, const Body& body) {
    parallel_for(blocks_of(size, kChunk), 16 * size, [&](Size chunk) {
        const Size first = chunk * kChunk;
        for_vectors<T>(at_most(kChunk, size - first),
                       [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA { body(first + i, lanes); });
    });
}

template <class T>
void clamp_forward(const Clamp<T>& args) {
    const Vec<T> slope = splat(args.slope), low = splat(args.low), high = splat(args.high);
    parallel_vectors<T>(args.size, [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
        Vec<T> x = lanes.get(args.src + i);
        x = x < Vec<T>{} ? x * slope : x;  // each choice leaves a NaN as it is
        x = x < low ? low : x;
        lanes.put(args.out + i, x > high ? high : x);
    });
}

template <class T>
void collect(const Collect<T>& args) {
    parallel_vectors<T>(args.size, [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
        Vec<T> x = part_of(lanes.get(args.src + i), args.src_part);
        if (args.times != nullptr) x = x * part_of(lanes.get(args.times + i), args.times_part);
        if (args.accumulate) x = lanes.get(args.out + i) + x;
        lanes.put(args.out + i, x);
    });
}

constexpr Size kSumChunk = 4096;  // elements whose sums are added up first, whatever the number of threads

/// add(first, count, sums) adds a chunk of one sample's elements to sums[COUNT]; the chunks' sums are
/// added in order and given to put(sample, sums).
template <int COUNT, class Add, class Put>
void sum_chunks(Size samples, Size size, Size chunk, Size work, const Add& add, const Put& put) {
    const Size chunks = blocks_of(size, chunk);
    double* sums = scratch<double>(Scratch::offsets, samples * chunks * COUNT);
    parallel_for(samples * chunks, work, [&](Size task) {
        const Size sample = task / chunks, first = task % chunks * chunk;
        double* of_task = sums + task * COUNT;
        for (int i = 0; i < COUNT; ++i) of_task[i] = 0;
        add(sample, first, at_most(chunk, size - first), of_task);
    });
    for (Size sample = 0; sample < samples; ++sample) {
        double total[COUNT] = {};
        for (Size task = sample * chunks; task < (sample + 1) * chunks; ++task)
            for (int i = 0; i < COUNT; ++i) total[i] += sums[task * COUNT + i];
        put(sample, total);
    }
}

template <class T>
void sums(const Sums<T>& args) {
    const auto add = [&](Size sample, Size first, Size count, double* sums) {
        const T* from = args.src + sample * args.size + first;
        Wide<T> plain{}, absolute{};
        for_vectors<T>(count, [&](Size i, auto lanes) LRPFAST_INLINE_LAMBDA {
            const Wide<T> x = widen<T>(lanes.get(from + i));
            for (int p = 0; p < kParts<T>; ++p) {
                plain.part[p] += x.part[p];
                absolute.part[p] += x.part[p] < Vec<double>{} ? -x.part[p] : x.part[p];
            }
        });
        sums[0] = lane_sum(plain);
        sums[1] = lane_sum(absolute);
    };
    sum_chunks<2>(args.n, args.size, kSumChunk, 16 * args.n * args.size, add,
                  [&](Size sample, const double* total) {
                      args.out[2 * sample] = total[0];
                      args.out[2 * sample + 1] = total[1];
                  });
}
