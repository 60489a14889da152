// How each family of kernels reads its arguments: their names, their shapes, and what they have to fulfil.
#pragma once

#include <algorithm>

#include "checks.hpp"

namespace lrpfast {

/// For each struct of kernels.hpp: `parameters`, the arguments' names, the first of which has the dtype; and
/// `read`, which fills the struct.
template <template <class> class Arguments>
struct Family;

// --- what they have in common ---

/// A blocked array's axes, and an elementwise one's.
constexpr AxisNames kBlockedAxes = {"n", "blocks", "depth", "height", "width", "lanes"};
constexpr AxisNames kElementAxes = {"n", "blocks", "inner", "lanes"};

inline Size blocks_for(Size channels, Size lanes) { return (channels + lanes - 1) / lanes; }

inline Triple planes(const Shape& blocked) { return {{blocked[2], blocked[3], blocked[4]}}; }

inline void require_blocks(const Reader& in, const std::string& path, const Shape& shape, Size channels) {
    const Size expected = blocks_for(channels, shape.back());
    in.require(shape[1] == expected, path + " has shape " + text(shape) + ", expected " +
                                         std::to_string(expected) + " blocks for " + std::to_string(channels) +
                                         " channels in " + std::to_string(shape.back()) + " lanes");
}

inline void require_full_lanes(const Reader& in, const std::string& path, const Shape& shape) {
    in.require(shape.back() == kLanesOfBlock, path + " has shape " + text(shape) + ", expected " +
                                                  std::to_string(kLanesOfBlock) + " lanes");
}

inline void require_same(const Reader& in, const Shape& src, const std::string& path, const Shape& out,
                         std::initializer_list<std::size_t> axes) {
    for (std::size_t axis : axes)
        in.require(src[axis] == out[axis], "src has shape " + text(src) + " and " + path + " " + text(out) +
                                               ", which differ in axis " + std::to_string(axis));
}

/// Places of a plane are counted in int32, as winners are; so no product of two sizes is more than 63 bits hold.
inline void require_small(const Reader& in, const std::string& what, const Triple& sizes) {
    Size most = std::numeric_limits<std::int32_t>::max();
    for (Size of_axis : sizes.at) most /= of_axis;
    in.require(most > 0, what + " of " + text({sizes[0], sizes[1], sizes[2]}) +
                             " has more places than an int32 can count");
}

/// What an axis' tables of sources may have: 2 GiB.
constexpr Size kMostSources = Size{1} << 28;

inline Windows read_windows(const Reader& in, const Shape& x, const Shape& z, const Triple& kernel) {
    const Windows found{planes(x),
                        planes(z),
                        kernel,
                        in.triple("strides", 1),
                        in.triple("pads", 0),
                        in.triple("dilations", 1)};
    require_small(in, "the input's plane", found.x);
    require_small(in, "the output's plane", found.z);
    require_small(in, "a window", kernel);
    for (int at = 0; at < 3; ++at)
        in.require(kernel[at] <= kMostSources / std::max(found.x[at], found.z[at]),
                   "windows of " + std::to_string(kernel[at]) + " over " + std::to_string(found.x[at]) +
                       " places are too large to be listed");
    return found;
}

template <class T>
void read_quotient(Reader& in, Quotient<T>& to, const Shape& out, Size channels) {
    in.sampled("end.quotient.r", out, to.r, true);
    in.sampled("end.quotient.ledger", {out[0], 4}, to.ledger);
    const Size gate = in.value<Size>("end.quotient.gate", "a whole number");
    in.require(gate >= -1 && gate <= 1,
               "end.quotient.gate is " + std::to_string(gate) + ", expected -1, 0 or 1");
    to.gate = static_cast<int>(gate);
    if (to.gate != 0) {
        in.require(in.has("end.quotient.gate_z"),
                   "end.quotient.gate is " + std::to_string(to.gate) + " but gate_z is None");
        in.sampled("end.quotient.gate_z", out, to.gate_z, true);
    }
    if (in.has("end.quotient.mirrored")) {
        in.require(to.gate == 0, "end.quotient has a gate and mirrored, expected at most one of them");
        in.require(in.has("end.quotient.gate_z"), "end.quotient has mirrored, but gate_z is None");
        in.sampled("end.quotient.gate_z", out, to.gate_z, true);
        in.sampled("end.quotient.mirrored", out, to.mirrored);
    }
    if (in.has("end.quotient.bias")) in.constant("end.quotient.bias", {channels}, to.bias);
    to.epsilon = in.number<T>("end.quotient.epsilon");
    to.scale = in.number<T>("end.quotient.scale");
    to.clip = in.flag("end.quotient.clip");
}

/// The number above which an array is cut off: its signs stay.
template <class T>
T read_bound(const Reader& in, const std::string& path) {
    const T bound = in.number<T>(path);
    in.require(bound >= 0, path + " is " + std::to_string(bound) + ", expected at least 0");
    return bound;
}

/// `out` may be any array that the ending reads: each element is read just before it is written.
template <class T>
void read_ending(Reader& in, Ending<T>& to, const Shape& out, Size channels) {
    in.sampled("end.out", out, to.out, true);
    if (in.has("end.bias")) in.constant("end.bias", {channels}, to.bias);
    if (in.has("end.times")) in.sampled("end.times", out, to.times, true);
    if (in.has("end.plus")) in.sampled("end.plus", out, to.plus, true);
    if (in.has("end.sums")) in.sampled("end.sums", {out[0], 2}, to.sums);
    to.times_part = in.part<T>("end.times_part");
    to.times_high = read_bound<T>(in, "end.times_high");
    to.plus_factor = in.number<T>("end.plus_factor");
    to.clamps = in.has("end.clamp");
    if (to.clamps) {
        in.require(!in.has("end.quotient"), "end has a clamp and a quotient, expected at most one of them");
        const auto clamp = in.value<std::array<double, 3>>("end.clamp", "three numbers: slope, low, high");
        to.slope = static_cast<T>(clamp[0]), to.low = static_cast<T>(clamp[1]), to.high = static_cast<T>(clamp[2]);
    }
    if (in.has("end.kept")) {
        in.require(to.clamps || in.has("end.plus"), "end has kept, but neither plus nor a clamp");
        in.sampled("end.kept", out, to.kept);
    }
    if (in.has("end.quotient")) read_quotient(in, to.quotient, out, channels);
    to.channels = channels;
}

/// The channels of an array that could have some fewer than lanes: as many as the first of these arrays has.
inline Size channels_of(const Reader& in, const Shape& out, std::initializer_list<const char*> per_channel) {
    const Size most = out[1] * out.back();
    for (const std::string path : per_channel) {
        if (path == "end.quotient.bias" && !in.has("end.quotient")) continue;
        if (!in.has(path)) continue;
        const Size found = in.shape(path, {"channels"})[0];
        in.require(blocks_for(found, out.back()) == out[1],
                   path + " has " + std::to_string(found) + " channels, expected " +
                       std::to_string(most - out.back() + 1) + " to " + std::to_string(most) +
                       " for end.out of shape " + text(out));
        return found;
    }
    return most;
}

template <class T>
void read_linear(Reader& in, Linear<T>& to, const Shape& src, const Shape& w, const Shape& out, Size channels) {
    in.sampled("src", src, to.src);
    in.constant("w", w, to.w);
    to.src_part = in.part<T>("src_part");
    to.w_part = in.part<T>("w_part");
    read_ending(in, to.end, out, channels);
}

// --- the families ---

template <>
struct Family<Gemm> {
    static std::vector<const char*> parameters() { return {"src", "w", "src_part", "w_part", "end"}; }

    template <class T>
    static void read(Reader& in, Gemm<T>& to, bool forward) {
        const Shape src = in.shape("src", {"n", forward ? "k" : "m"}), w = in.shape("w", {"m", "k"});
        in.require(w[0] > 0, "w has no rows");
        to.m = w[0], to.k = w[1];
        in.count(src[0], to.n);
        const Shape x{src[0], to.k}, z{src[0], to.m};
        read_linear(in, to, forward ? x : z, w, forward ? z : x, forward ? to.m : to.k);
    }
};

template <>
struct Family<Conv> {
    static std::vector<const char*> parameters() {
        return {"src", "w", "strides", "pads", "dilations", "groups", "src_part", "w_part", "other_part",
                "exact", "end"};
    }

    template <class T>
    static void read(Reader& in, Conv<T>& to, bool forward) {
        const Shape src = in.shape("src", kBlockedAxes), out = in.shape("end.out", kBlockedAxes),
                    w = in.shape("w", {"m", "c / groups", "kd", "kh", "kw"});
        require_same(in, src, "end.out", out, {0});
        to.groups = in.size("groups", 1);
        in.require(w[0] > 0 && w[0] % to.groups == 0, "groups is " + std::to_string(to.groups) +
                                                          ", which does not divide w's " +
                                                          std::to_string(w[0]) + " filters");
        to.m = w[0], to.c = w[1] * to.groups;
        const Size of_src = forward ? to.c : to.m, of_out = forward ? to.m : to.c;
        require_lanes(in, "src", src, of_src);
        require_lanes(in, "end.out", out, of_out);
        to.src_lanes = src.back(), to.out_lanes = out.back();
        to.windows =
            read_windows(in, forward ? src : out, forward ? out : src, {{w[2], w[3], w[4]}});
        to.exact = in.flag("exact");
        to.by_sign = in.has("other_part");
        if (to.by_sign) {
            to.other_part = in.part<T>("other_part");
            in.require(in.has("end.times"), "other_part is given, but end.times is None");
            for (const std::string path : {"end.bias", "end.kept"})
                in.require(!in.has(path), path + " and other_part are given, expected at most one of them");
        }
        in.count(src[0], to.n);
        read_linear(in, to, src, w, out, of_out);
        in.require(!to.by_sign || to.end.quotient.mirrored == nullptr,
                   "end.quotient.mirrored and other_part are given, expected at most one of them");
    }

    /// Blocks of all lanes, or one block of fewer.
    static void require_lanes(const Reader& in, const std::string& path, const Shape& shape, Size channels) {
        const Size lanes = shape.back();
        in.require(lanes == kLanesOfBlock || (lanes < kLanesOfBlock && shape[1] == 1),
                   path + " has shape " + text(shape) + ", expected " + std::to_string(kLanesOfBlock) +
                       " lanes, or one block of fewer");
        require_blocks(in, path, shape, channels);
    }
};

template <>
struct Family<Depthwise> {
    static std::vector<const char*> parameters() {
        return {"src", "w", "strides", "pads", "dilations", "src_part", "src_high", "w_part", "end"};
    }

    template <class T>
    static void read(Reader& in, Depthwise<T>& to, bool forward) {
        const Shape src = in.shape("src", kBlockedAxes), out = in.shape("end.out", kBlockedAxes),
                    w = in.shape("w", {"c", "1", "kd", "kh", "kw"});
        require_same(in, src, "end.out", out, {0, 1, 5});
        require_full_lanes(in, "src", src);
        require_blocks(in, "src", src, w[0]);
        to.c = w[0];
        to.windows =
            read_windows(in, forward ? src : out, forward ? out : src, {{w[2], w[3], w[4]}});
        to.src_high = read_bound<T>(in, "src_high");
        in.count(src[0], to.n);
        read_linear(in, to, src, {to.c, 1, w[2], w[3], w[4]}, out, to.c);
    }
};

template <>
struct Family<SumPool> {
    static std::vector<const char*> parameters() {
        return {"src", "w", "window", "strides", "pads", "dilations", "src_part", "w_part", "end"};
    }

    template <class T>
    static void read(Reader& in, SumPool<T>& to, bool forward) {
        const Shape src = in.shape("src", kBlockedAxes), out = in.shape("end.out", kBlockedAxes);
        require_same(in, src, "end.out", out, {0, 1, 5});
        require_full_lanes(in, "src", src);
        const Shape &x = forward ? src : out, &z = forward ? out : src;
        to.windows = read_windows(in, x, z, in.triple("window", 1));
        to.blocks = src[1];
        in.count(src[0], to.n);
        read_linear(in, to, src, {z[2], z[3], z[4]}, out,
                    channels_of(in, out, {"end.bias", "end.quotient.bias"}));
    }
};

template <>
struct Family<MaxPool> {
    static std::vector<const char*> parameters() {
        return {"src", "window", "strides", "pads", "dilations", "out", "winners"};
    }

    template <class T>
    static void read(Reader& in, MaxPool<T>& to, bool) {
        const Shape x = in.shape("src", kBlockedAxes), z = in.shape("out", kBlockedAxes);
        require_same(in, x, "out", z, {0, 1, 5});
        require_full_lanes(in, "src", x);
        to.windows = read_windows(in, x, z, in.triple("window", 1));
        to.blocks = x[1];
        in.count(x[0], to.n);
        in.sampled("src", x, to.src);
        in.sampled("out", z, to.out);
        in.sampled("winners", z, to.winners);
    }
};

template <>
struct Family<MaxPoolVjp> {
    static std::vector<const char*> parameters() {
        return {"src", "winners", "window", "strides", "pads", "dilations", "end"};
    }

    template <class T>
    static void read(Reader& in, MaxPoolVjp<T>& to, bool) {
        const Shape z = in.shape("src", kBlockedAxes), x = in.shape("end.out", kBlockedAxes);
        require_same(in, z, "end.out", x, {0, 1, 5});
        require_full_lanes(in, "src", z);
        to.windows = read_windows(in, x, z, in.triple("window", 1));
        to.blocks = z[1];
        in.count(z[0], to.n);
        in.sampled("src", z, to.src);
        in.sampled("winners", z, to.winners);
        read_ending(in, to.end, x, channels_of(in, x, {"end.bias", "end.quotient.bias"}));
        if (!in.in_program()) require_inside(in, to);
    }

    /// In a Program winners come from the forward kernel.
    template <class T>
    static void require_inside(const Reader& in, const MaxPoolVjp<T>& to) {
        const Size plane = to.windows.x.product(),
                   count = to.n * to.blocks * to.windows.z.product() * kLanesOfBlock;
        const auto outside = [&](std::int32_t winner) { return winner < 0 || winner >= plane; };
        in.require(std::none_of(to.winners, to.winners + count, outside),
                   "winners has an index outside of a plane of end.out, which has " + std::to_string(plane) +
                       " elements");
    }
};

template <class T>
void read_elementwise(Reader& in, Elementwise<T>& to, std::initializer_list<const char*> per_channel) {
    const Shape src = in.shape("src", kElementAxes);
    const Size channels = channels_of(in, src, per_channel);
    to.blocks = src[1], to.inner = src[2], to.lanes = src[3];
    in.count(src[0], to.n);
    in.sampled("src", src, to.src, true);
    to.src_part = in.part<T>("src_part");
    read_ending(in, to.end, src, channels);
}

template <>
struct Family<Affine> {
    static std::vector<const char*> parameters() { return {"src", "w", "src_part", "w_part", "end"}; }

    template <class T>
    static void read(Reader& in, Affine<T>& to, bool) {
        read_elementwise(in, to, {"w"});
        in.constant("w", {to.end.channels}, to.w);
        to.w_part = in.part<T>("w_part");
    }
};

template <>
struct Family<Collect> {
    static std::vector<const char*> parameters() { return {"src", "src_part", "end"}; }

    template <class T>
    static void read(Reader& in, Collect<T>& to, bool) {
        read_elementwise(in, to, {"end.bias", "end.quotient.bias"});
    }
};

template <>
struct Family<Divide> {
    static std::vector<const char*> parameters() { return {"z", "norm_size", "end"}; }

    template <class T>
    static void read(Reader& in, Divide<T>& to, bool) {
        const Shape z = in.shape("z", kElementAxes), out = in.shape("end.out", kElementAxes);
        in.require(in.has("end.quotient"), "end.quotient is None, expected a Quotient");
        for (const std::string path : {"end.bias", "end.times", "end.plus", "end.clamp", "end.quotient.mirrored"})
            in.require(!in.has(path), path + " is given, expected nothing but a quotient and sums");
        // One z for all samples, or one for each.
        const bool shared = !in.is_view("z") && (in.in_program() || z[0] != out[0]);
        in.require(z[0] == (shared ? 1 : out[0]), "z has " + std::to_string(z[0]) +
                                                      " samples, expected 1 or those of end.out, " +
                                                      std::to_string(out[0]));
        const Shape expected{z[0], out[1], out[2], out[3]};
        to.z_samples = 1;
        if (shared) {
            in.constant("z", expected, to.z);
        } else {
            in.sampled("z", expected, to.z, true);
            in.count(z[0], to.z_samples);
        }
        to.norm_size = in.size("norm_size", 0);
        to.blocks = out[1], to.inner = out[2], to.lanes = out[3];
        in.count(out[0], to.n);
        read_ending(in, to.end, out, channels_of(in, out, {"end.quotient.bias"}));
    }
};

template <>
struct Family<Reorder> {
    static std::vector<const char*> parameters() { return {"src", "channels", "end"}; }

    template <class T>
    static void read(Reader& in, Reorder<T>& to, bool) {
        const Shape src = in.shape("src", kElementAxes), out = in.shape("end.out", kElementAxes);
        require_same(in, src, "end.out", out, {0, 2});
        to.channels = in.size("channels", 1);
        require_blocks(in, "src", src, to.channels);
        require_blocks(in, "end.out", out, to.channels);
        to.inner = src[2], to.src_lanes = src[3], to.out_lanes = out[3];
        in.count(src[0], to.n);
        in.sampled("src", src, to.src);
        read_ending(in, to.end, out, to.channels);
    }
};

template <>
struct Family<Sums> {
    static std::vector<const char*> parameters() { return {"src", "out"}; }

    template <class T>
    static void read(Reader& in, Sums<T>& to, bool) {
        const Shape src = in.shape("src", {"n", "size"});
        to.size = src[1];
        in.count(src[0], to.n);
        in.sampled("src", src, to.src);
        in.sampled("out", {src[0], 2}, to.out);
    }
};

}  // namespace lrpfast
