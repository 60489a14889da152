// Which places of the input the outputs of a window operator read.
//
// Convolution, pooling and their transposes all have the form
//
//     out[j] = Σ over taps of  weight[tap] · in[source(tap, j)]          (per axis)
//
// For one axis the sources are a small table, with kOutside where a tap falls on padding. A transpose with
// strides is one such sum for each residue of the output's index modulo the strides: each has only the taps
// that meet that residue, so nothing is multiplied by inserted zeros.
#pragma once

#include "kernels.hpp"

namespace lrpfast {

/// A source that lies on padding. Three of them still add up to a negative number.
constexpr Size kOutside = -(Size{1} << 40);

/// One axis: output j < count lies at first + j · step, and reads in[sources[tap · count + j]].
struct AxisReads {
    Size count, first, step, taps;
    const Size* tap_index;  // of each tap, in the kernel
    const Size* sources;
};

/// All three axes. Places are flat indices of a plane.
struct Reads {
    AxisReads axes[3];
    Triple kernel, in, out;

    /// Whether each output reads its own place, and nothing else.
    bool pointwise() const {
        bool all = taps() == 1 && in.product() == out.product() && count() == out.product();
        for (const AxisReads& axis : axes) all = all && axis.step == 1 && axis.first == 0 && axis.sources[0] == 0;
        return all;
    }
    /// Outputs, and taps of each.
    Size count() const { return axes[0].count * axes[1].count * axes[2].count; }
    Size taps() const { return axes[0].taps * axes[1].taps * axes[2].taps; }
    /// The kernel's flat index of a tap.
    Size tap_index(Size tap) const {
        const Size w = tap % axes[2].taps, h = tap / axes[2].taps % axes[1].taps,
                   d = tap / axes[2].taps / axes[1].taps;
        return (axes[0].tap_index[d] * kernel[1] + axes[1].tap_index[h]) * kernel[2] + axes[2].tap_index[w];
    }
    /// The place of output j, and the places that it reads: source(tap) for each tap, negative if outside.
    Size out_place(Size j) const {
        const Size w = j % axes[2].count, h = j / axes[2].count % axes[1].count,
                   d = j / axes[2].count / axes[1].count;
        return ((axes[0].first + d * axes[0].step) * out[1] + axes[1].first + h * axes[1].step) * out[2] +
               axes[2].first + w * axes[2].step;
    }
    template <class Put>
    void for_sources(Size j, const Put& put) const {
        const Size w = j % axes[2].count, h = j / axes[2].count % axes[1].count,
                   d = j / axes[2].count / axes[1].count;
        Size tap = 0;
        for (Size td = 0; td < axes[0].taps; ++td) {
            const Size at_d = axes[0].sources[td * axes[0].count + d];
            for (Size th = 0; th < axes[1].taps; ++th) {
                const Size at_h = axes[1].sources[th * axes[1].count + h];
                const Size row = at_d < 0 || at_h < 0 ? kOutside : (at_d * in[1] + at_h) * in[2];
                for (Size tw = 0; tw < axes[2].taps; ++tw)
                    put(tap++, row + axes[2].sources[tw * axes[2].count + w]);
            }
        }
    }
};

/// The sums that make up an operator. Together they write each element of the output once.
///
/// Everything that touches a standard container is compiled in reads.cpp: code for wide instruction
/// sets must not instantiate templates that it shares with the rest of the program.
class ReadsList {
  public:
    ReadsList(const ReadsList&) = delete;
    ReadsList& operator=(const ReadsList&) = delete;
    ~ReadsList();

    /// z from x: one sum.
    static ReadsList forward(const Windows& windows);
    /// x from z: one sum for each residue of x modulo the strides.
    static ReadsList vjp(const Windows& windows);

    Size size() const;
    const Reads& operator[](Size i) const;

  private:
    struct Content;
    explicit ReadsList(Content* content);
    Content* content_;
};

/// No neighbours, no strides: every output reads its own place.
inline bool is_pointwise(const Windows& windows) {
    bool all = true;
    for (int at = 0; at < 3; ++at)
        all = all && windows.kernel[at] == 1 && windows.strides[at] == 1 && windows.pads[at] == 0 &&
              windows.x[at] == windows.z[at];
    return all;
}

/// One window that covers all of x, once?
inline bool is_one_window(const Windows& windows) {
    bool one = true;
    for (int at = 0; at < 3; ++at)
        one = one && windows.z[at] == 1 && windows.pads[at] == 0 && windows.kernel[at] == windows.x[at] &&
              (windows.dilations[at] == 1 || windows.kernel[at] == 1);
    return one;
}

}  // namespace lrpfast
