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

/// One axis: output j < count lies at first + j · step, and reads in[sources[tap · count + j]], which is
/// in[offset + j · source_step + tap · tap_step] or kOutside.
struct AxisReads {
    Size count, first, step, taps;
    Size offset, source_step, tap_step;
    const Size* tap_index;  // of each tap, in the kernel
    const Size* sources;
};

/// All three axes. Places are flat indices of a plane.
struct Reads {
    AxisReads axes[3];
    Triple kernel, in, out;

    /// Whether each output reads its own place, and nothing else.
    bool pointwise() const {
        bool all = taps() == 1;
        for (int at = 0; at < 3; ++at) {
            const AxisReads& axis = axes[at];
            all = all && in[at] == out[at] && axis.count == out[at] && axis.sources[0] == 0 &&
                  axis.sources[axis.count - 1] == axis.count - 1;
        }
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

/// One window that covers all of x, once?
inline bool is_one_window(const Windows& windows) {
    bool one = true;
    for (int at = 0; at < 3; ++at)
        one = one && windows.z[at] == 1 && windows.pads[at] == 0 && windows.kernel[at] == windows.x[at] &&
              (windows.dilations[at] == 1 || windows.kernel[at] == 1);
    return one;
}

}  // namespace lrpfast
