// Window operators as sums of shifted reads.
//
// Convolution, pooling and their transposes all have the form
//
//     out[j] = Σ over taps of  weight[tap] · in[j · step + tap's place]     (per axis)
//
// Split `in` by its index modulo `step` (its phases) and write all of its rows behind each other,
// with zeros in between for the padding. Then "the input of output j" is, for each tap, one number away
// from j: in[q + shift(tap)], where q counts the positions of that long line of samples, planes, rows
// and columns. A kernel then needs no case for strides, padding, dilation or borders, and its loops
// run over q without a break. Some positions between the rows belong to no output; what is computed
// for them is thrown away. Zeros after a row serve as those before the next one.
//
// A transpose with strides is one such sum for each residue of the output's index modulo the strides:
// each has only the taps that meet that residue, so nothing is multiplied by inserted zeros.
#pragma once

#include <vector>

#include "kernels.hpp"

namespace lrpfast {

/// One axis: position i of phase f reads in[i · step + f − pad]; position j < count writes
/// out[j · out_step + out_first].
struct ShiftAxis {
    struct Tap {
        Size index, phase, shift;  // `phase` counts in `phases`
    };
    Size in_size, step, pad;
    Size count, out_size, out_step, out_first;
    std::vector<Size> phases;
    std::vector<Tap> taps;
    Size pitch;  // positions from one row to the next

    Size phase_count() const;
    /// Position i of a phase lies at in[i · step + origin(phase)], if inside.
    Size origin(Size phase) const;
    Size furthest() const;
    /// The positions [first, last) of a phase that lie inside of `in`, within the first `length`.
    void inside(Size phase, Size length, Size& first, Size& last) const;
};

/// A sum of shifted reads over three axes.
struct Shifts {
    struct Tap {
        Size index;  // in the kernel, row-major
        Size phase;  // which plane of the strip
        Size shift;
    };
    ShiftAxis axes[3];
    std::vector<Tap> all_taps;  // row-major in the kernel
    Size phases;
    Size furthest;  // the greatest shift

    const Tap* taps() const;
    Size tap_count() const;
    /// Positions of one sample.
    Size pitch() const { return axes[0].pitch * axes[1].pitch * axes[2].pitch; }
    /// Positions from the first to the last output of `n` samples.
    Size extent(Size n) const;
    Size in_size() const { return axes[0].in_size * axes[1].in_size * axes[2].in_size; }
    Size out_size() const { return axes[0].out_size * axes[1].out_size * axes[2].out_size; }
};

/// The sums that make up an operator. Together they write each element of the output once.
///
/// Everything that touches a standard container is compiled in shifts.cpp: code for wide instruction
/// sets must not instantiate templates that it shares with the rest of the program.
class ShiftList {
  public:
    ShiftList(const ShiftList&) = delete;
    ShiftList& operator=(const ShiftList&) = delete;
    ~ShiftList();

    /// z from x: one sum.
    static ShiftList forward(const Windows& windows);
    /// x from z: one sum for each residue of x modulo the strides.
    static ShiftList vjp(const Windows& windows);

    Size size() const;
    const Shifts& operator[](Size i) const;

  private:
    explicit ShiftList(std::vector<Shifts> all);
    std::vector<Shifts> all_;
};

}  // namespace lrpfast
