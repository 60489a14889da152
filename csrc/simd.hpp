// Vectors of whatever width the target has, on the compilers' vector extensions.
// Included once for each target, inside of its namespace and target region (see targets.cpp).

// Of a register tile, in places and vectors of channels: as many sums as the registers hold.
constexpr int kTilePlaces = 6;
#if LRPFAST_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int kTileVectors = 4;  // 24 sums in 32 registers
#else
constexpr int kTileVectors = 2;  // 12 sums in 16 registers
#endif

// Arrays of vectors stay in registers only if every loop over them is unrolled.
#if defined(__clang__)
#define LRPFAST_UNROLL _Pragma("unroll")
#else
#define LRPFAST_UNROLL _Pragma("GCC unroll 36")
#endif
#define LRPFAST_INLINE inline __attribute__((always_inline))
#define LRPFAST_INLINE_LAMBDA __attribute__((always_inline))

template <class T>
struct VectorOf {
    typedef T type __attribute__((vector_size(LRPFAST_VECTOR_BYTES)));
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
constexpr Size kLanes = LRPFAST_VECTOR_BYTES / static_cast<Size>(sizeof(T));

template <class T>
LRPFAST_INLINE Vec<T> load(const T* from) {
    Vec<T> v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

template <class T>
LRPFAST_INLINE void store(T* to, Vec<T> v) {
    __builtin_memcpy(to, &v, sizeof v);
}

/// a · b + c, rounded once where the target can: explicitly, and nowhere else (-ffp-contract=off), so that
/// a result cannot depend on which loop the compiler chose to contract.
#if LRPFAST_VECTOR_BYTES == 64
LRPFAST_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
LRPFAST_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif LRPFAST_VECTOR_BYTES == 32
LRPFAST_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
LRPFAST_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#elif defined(__aarch64__)
LRPFAST_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
LRPFAST_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#else
template <class V>
LRPFAST_INLINE V multiply_add(V a, V b, V c) {
    return a * b + c;
}
#endif

template <int BYTES>
struct IntegerOf;
template <>
struct IntegerOf<4> {
    typedef std::uint32_t type;
};
template <>
struct IntegerOf<8> {
    typedef std::uint64_t type;
};

template <class T>
LRPFAST_INLINE Vec<T> splat(T value) {
    return value - Vec<T>{};
}

// The first `count` lanes, 0 < count < kLanes; the others are zero when loaded, and not touched in memory.
#if LRPFAST_VECTOR_BYTES == 64
LRPFAST_INLINE Vec<float> load(const float* from, Size count) {
    return (Vec<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
}
LRPFAST_INLINE Vec<double> load(const double* from, Size count) {
    return (Vec<double>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), from);
}
LRPFAST_INLINE void store(float* to, Vec<float> v, Size count) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)v);
}
LRPFAST_INLINE void store(double* to, Vec<double> v, Size count) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), (__m512d)v);
}
#elif LRPFAST_VECTOR_BYTES == 32
LRPFAST_INLINE __m256i first_lanes32(Size count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
LRPFAST_INLINE __m256i first_lanes64(Size count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
LRPFAST_INLINE Vec<float> load(const float* from, Size count) {
    return (Vec<float>)_mm256_maskload_ps(from, first_lanes32(count));
}
LRPFAST_INLINE Vec<double> load(const double* from, Size count) {
    return (Vec<double>)_mm256_maskload_pd(from, first_lanes64(count));
}
LRPFAST_INLINE void store(float* to, Vec<float> v, Size count) {
    _mm256_maskstore_ps(to, first_lanes32(count), (__m256)v);
}
LRPFAST_INLINE void store(double* to, Vec<double> v, Size count) {
    _mm256_maskstore_pd(to, first_lanes64(count), (__m256d)v);
}
#else
template <class T>
LRPFAST_INLINE Vec<T> load(const T* from, Size count) {
    Vec<T> v{};
    for (int i = 0; i < kLanes<T> - 1; ++i)
        if (i < count) v[i] = from[i];
    return v;
}
template <class T>
LRPFAST_INLINE void store(T* to, Vec<T> v, Size count) {
    for (int i = 0; i < kLanes<T> - 1; ++i)
        if (i < count) to[i] = v[i];
}
#endif

/// Call body(i, load, store) for each vector of [0, count): the end of a line goes through the
/// same arithmetic as its middle, so that no result depends on where in a vector it came to lie.
template <class T>
struct Full {
    static LRPFAST_INLINE Vec<T> get(const T* from) { return load(from); }
    static LRPFAST_INLINE void put(T* to, Vec<T> v) { store(to, v); }
    static LRPFAST_INLINE Vec<T> counted(Vec<T> v) { return v; }
};
template <class T>
struct Rest {
    Size count;
    LRPFAST_INLINE Vec<T> get(const T* from) const { return load(from, count); }
    LRPFAST_INLINE void put(T* to, Vec<T> v) const { store(to, v, count); }
    /// Zeros in the lanes that are none of the line's.
    LRPFAST_INLINE Vec<T> counted(Vec<T> v) const {
        for (int i = 1; i < kLanes<T>; ++i) v[i] = i < count ? v[i] : T(0);
        return v;
    }
};
template <class T, class Body>
LRPFAST_INLINE void for_vectors(Size count, const Body& body) {
    Size i = 0;
    for (; i + kLanes<T> <= count; i += kLanes<T>) body(i, Full<T>{});
    if (i < count) body(i, Rest<T>{count - i});
}

/// positive · max(v, 0) + negative · min(v, 0), for a vector or a number; a NaN stays.
template <class V, class T>
LRPFAST_INLINE V part_of(V v, const Part<T>& part) {
    return v * (v > V{} ? part.positive - V{} : part.negative - V{});
}
// Numbers' signs are hard to predict, so no branch here: maximum and minimum are one instruction each.
LRPFAST_INLINE float part_of(float v, const Part<float>& part) {
    return part.positive * (0 > v ? 0 : v) + part.negative * (0 < v ? 0 : v);
}
LRPFAST_INLINE double part_of(double v, const Part<double>& part) {
    return part.positive * (0 > v ? 0 : v) + part.negative * (0 < v ? 0 : v);
}

// The larger, and the smaller, of two numbers; a NaN in `v` stays.
#if LRPFAST_VECTOR_BYTES == 64
LRPFAST_INLINE Vec<float> maximum(Vec<float> low, Vec<float> v) { return (Vec<float>)_mm512_maskz_max_ps(0xFFFF, (__m512)low, (__m512)v); }
LRPFAST_INLINE Vec<double> maximum(Vec<double> low, Vec<double> v) { return (Vec<double>)_mm512_maskz_max_pd(0xFF, (__m512d)low, (__m512d)v); }
LRPFAST_INLINE Vec<float> minimum(Vec<float> high, Vec<float> v) { return (Vec<float>)_mm512_maskz_min_ps(0xFFFF, (__m512)high, (__m512)v); }
LRPFAST_INLINE Vec<double> minimum(Vec<double> high, Vec<double> v) { return (Vec<double>)_mm512_maskz_min_pd(0xFF, (__m512d)high, (__m512d)v); }
#elif LRPFAST_VECTOR_BYTES == 32
LRPFAST_INLINE Vec<float> maximum(Vec<float> low, Vec<float> v) { return (Vec<float>)_mm256_max_ps((__m256)low, (__m256)v); }
LRPFAST_INLINE Vec<double> maximum(Vec<double> low, Vec<double> v) { return (Vec<double>)_mm256_max_pd((__m256d)low, (__m256d)v); }
LRPFAST_INLINE Vec<float> minimum(Vec<float> high, Vec<float> v) { return (Vec<float>)_mm256_min_ps((__m256)high, (__m256)v); }
LRPFAST_INLINE Vec<double> minimum(Vec<double> high, Vec<double> v) { return (Vec<double>)_mm256_min_pd((__m256d)high, (__m256d)v); }
#else
template <class V>
LRPFAST_INLINE V maximum(V low, V v) {
    return v < low ? low : v;
}
template <class V>
LRPFAST_INLINE V minimum(V high, V v) {
    return v > high ? high : v;
}
#endif

/// An unsigned integer for each lane.
template <class T>
struct BitsOf {
    typedef typename IntegerOf<sizeof(T)>::type Integer;
    typedef Integer type __attribute__((vector_size(LRPFAST_VECTOR_BYTES)));
    static constexpr Integer kAll = static_cast<Integer>(~Integer{0});
    static constexpr Integer kNoSign = static_cast<Integer>(kAll >> 1);
};

template <class T>
LRPFAST_INLINE Vec<T> magnitude(Vec<T> v) {
    return (Vec<T>)((typename BitsOf<T>::type)v & BitsOf<T>::kNoSign);
}

/// Parts that a tile can take of weights as it loads them, at no cost: all of them, those of one sign, or the
/// magnitudes.
template <class T>
struct Filter {
    typename BitsOf<T>::type bits;
    Vec<T> low, high;

    static bool can(const Part<T>& part) {
        const T p = part.positive, n = part.negative;
        return (p == T(1) && (n == T(1) || n == T(0) || n == T(-1))) || (p == T(0) && (n == T(1) || n == T(0)));
    }
    explicit Filter(const Part<T>& part) {
        const T infinity = static_cast<T>(__builtin_inf());
        bits = (part.negative == T(-1) ? BitsOf<T>::kNoSign : BitsOf<T>::kAll) - typename BitsOf<T>::type{};
        low = splat(part.negative == T(0) ? T(0) : -infinity);
        high = splat(part.positive == T(0) ? T(0) : infinity);
    }
    LRPFAST_INLINE Vec<T> of(Vec<T> v) const { return minimum(high, maximum(low, (Vec<T>)((typename BitsOf<T>::type)v & bits))); }
};

/// As many doubles as Vec<T> has lanes, in one vector or two.
template <class T>
constexpr int kParts = static_cast<int>(sizeof(double) / sizeof(T));
template <class T>
struct Wide {
    Vec<double> part[kParts<T>];
};

/// As many doubles as half a vector has floats; GCC takes the general form apart.
typedef float HalfVector __attribute__((vector_size(LRPFAST_VECTOR_BYTES / 2)));
#if LRPFAST_VECTOR_BYTES == 64
LRPFAST_INLINE Vec<double> widen_half(HalfVector v) { return (Vec<double>)_mm512_maskz_cvtps_pd(0xFF, (__m256)v); }
#elif LRPFAST_VECTOR_BYTES == 32
LRPFAST_INLINE Vec<double> widen_half(HalfVector v) { return (Vec<double>)_mm256_cvtps_pd((__m128)v); }
#else
LRPFAST_INLINE Vec<double> widen_half(HalfVector v) { return __builtin_convertvector(v, Vec<double>); }
#endif

template <class T>
LRPFAST_INLINE Wide<T> widen(Vec<T> v) {
    if constexpr (kParts<T> == 1) {
        return {{v}};
    } else {
        HalfVector halves[2];
        __builtin_memcpy(halves, &v, sizeof v);
        return {{widen_half(halves[0]), widen_half(halves[1])}};
    }
}

/// to += v
template <class T>
LRPFAST_INLINE void add_wide(Wide<T>& to, Vec<T> v) {
    const Wide<T> more = widen<T>(v);
    to.part[0] += more.part[0];
    if constexpr (kParts<T> > 1) to.part[1] += more.part[1];
}

template <class T>
LRPFAST_INLINE Vec<T> narrow(const Wide<T>& v) {
    typedef T Narrow __attribute__((vector_size(LRPFAST_VECTOR_BYTES / kParts<T>)));
    Vec<T> all;
    for (int p = 0; p < kParts<T>; ++p) {
        const Narrow part = __builtin_convertvector(v.part[p], Narrow);
        __builtin_memcpy(reinterpret_cast<char*>(&all) + static_cast<std::size_t>(p) * sizeof part, &part, sizeof part);
    }
    return all;
}

/// The sum of the lanes, by halves.
template <class T, int BYTES = LRPFAST_VECTOR_BYTES>
struct LaneSum {
    typedef T Half __attribute__((vector_size(BYTES / 2)));
    template <class V>
    static LRPFAST_INLINE T of(const V& v) {
        Half low, high;
        __builtin_memcpy(&low, &v, sizeof low);
        __builtin_memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
        return LaneSum<T, BYTES / 2>::of(low + high);
    }
};
template <class T>
struct LaneSum<T, sizeof(T)> {
    template <class V>
    static LRPFAST_INLINE T of(const V& v) {
        return v[0];
    }
};
template <class T>
LRPFAST_INLINE T lane_sum(const Vec<T>& v) {
    return LaneSum<T>::of(v);
}
template <class T>
LRPFAST_INLINE double lane_sum(const Wide<T>& v) {
    double sum = 0;
    for (int p = 0; p < kParts<T>; ++p) sum += lane_sum<double>(v.part[p]);
    return sum;
}

/// Where lane i comes from when the groups of LANES lanes of two vectors are halved: the first halves of all of a's
/// groups, then of b's; or, SECOND, the second halves.
template <class T, int LANES, bool SECOND>
constexpr int half_lane(int i) {
    constexpr int kAll = static_cast<int>(kLanes<T>), kHalf = LANES / 2;
    const int in_vector = i % (kAll / 2), group = in_vector / kHalf;
    return i / (kAll / 2) * kAll + group * LANES + in_vector % kHalf + (SECOND ? kHalf : 0);
}

template <class T, int LANES, bool SECOND, std::size_t... I>
LRPFAST_INLINE Vec<T> halves(Vec<T> a, Vec<T> b, std::index_sequence<I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, half_lane<T, LANES, SECOND>(static_cast<int>(I))...);
#else
    return __builtin_shuffle(a, b, typename BitsOf<T>::type{half_lane<T, LANES, SECOND>(static_cast<int>(I))...});
#endif
}

/// lane_sum of each of kLanes vectors: the same additions, many at a time. The vectors are lost.
template <class T, int LANES = static_cast<int>(kLanes<T>)>
LRPFAST_INLINE Vec<T> lane_sums(Vec<T>* v) {
    if constexpr (LANES == 1) {
        return v[0];
    } else {
        const std::make_index_sequence<static_cast<std::size_t>(kLanes<T>)> all;
        LRPFAST_UNROLL
        for (int i = 0; i < LANES / 2; ++i)
            v[i] = halves<T, LANES, false>(v[2 * i], v[2 * i + 1], all) +
                   halves<T, LANES, true>(v[2 * i], v[2 * i + 1], all);
        return lane_sums<T, LANES / 2>(v);
    }
}

constexpr Size at_most(Size a, Size b) { return a < b ? a : b; }
constexpr Size at_least(Size a, Size b) { return a > b ? a : b; }
constexpr Size blocks_of(Size size, Size block) { return (size + block - 1) / block; }

template <class T>
T* scratch(Scratch use, Size count) {
    return static_cast<T*>(scratch_bytes(use, static_cast<std::size_t>(count) * sizeof(T)));
}

template <class Body>
void call_body(const void* body, Size i) {
    (*static_cast<const Body*>(body))(i);
}

/// body(i) for i in [0, count), on several threads; see run_tasks for `work`.
template <class Body>
void parallel_for(Size count, Size work, const Body& body) {
    run_tasks(count, work, call_body<Body>, &body);
}
