// What a kernel is given, and the tables of kernels. The meaning of every argument is defined by
// the NumPy backend (src/lrpfast/backends/numpy_.py); pointers are to C-contiguous arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace lrpfast {

using Size = std::ptrdiff_t;

/// The lanes of blocked arrays: as many channels of one place lie together.
constexpr Size kLanesOfBlock = 16;

struct Triple {
    Size at[3];
    Size operator[](int axis) const { return at[axis]; }
    Size product() const { return at[0] * at[1] * at[2]; }
};

/// Scales the two signs of an array: positive · max(a, 0) + negative · min(a, 0).
template <class T>
struct Part {
    T positive, negative;
    bool is_identity() const { return positive == T(1) && negative == T(1); }
};

/// The geometry of convolutions and pooling: x is the side that windows are taken from, z the other.
struct Windows {
    Triple x, z, kernel, strides, pads, dilations;
};

/// scale · [gate] · r over the stabilised result; `r` is null for none. With `mirrored` the result changes its sign
/// where gate_z < 0, before `plus` is added, and `mirrored` receives the quotient times the sign of gate_z.
template <class T>
struct Quotient {
    const T *r, *gate_z, *bias;
    T* mirrored;
    double* ledger;  // 4 numbers a sample
    T epsilon, scale;
    int gate;
    bool clip;
};

/// out = f(part(min(times, times_high)) ⊙ (result + bias) + plus_factor · plus), f nothing, a clamp or a quotient;
/// pointers may be null.
template <class T>
struct Ending {
    T *out, *kept;
    const T *bias, *times, *plus;
    Part<T> times_part;
    T times_high;
    Quotient<T> quotient;
    double* sums;  // 2 numbers a sample
    T plus_factor, slope, low, high;
    bool clamps;
    Size channels;  // as many values have the biases
};

/// The result of a linear operator: A · part(src), A made of part(w).
template <class T>
struct Linear {
    const T *src, *w;
    Part<T> src_part, w_part;
    Ending<T> end;
};

template <class T>
struct Gemm : Linear<T> {
    Size n, m, k;  // w is (m, k)
};

template <class T>
struct Conv : Linear<T> {
    Windows windows;
    const T* panels;       // w, packed by `fill_panels` of the table; null: the kernel packs it itself
    Size n, m, c, groups;  // x has c channels, z has m
    Size src_lanes, out_lanes;
    bool by_sign;          // where `end.times` is not positive other_part stands for w_part
    Part<T> other_part;
    bool exact;  // sums of zeros have to be zero: no form that makes them out of rounded differences
};

/// It reads min(src, src_high).
template <class T>
struct Depthwise : Linear<T> {
    Windows windows;
    T src_high;
    Size n, c;  // in blocks of kLanesOfBlock
};

template <class T>
struct SumPool : Linear<T> {
    Windows windows;
    Size n, blocks;  // of kLanesOfBlock channels
};

template <class T>
struct MaxPool {
    const T* src;
    T* out;
    std::int32_t* winners;
    Windows windows;
    Size n, blocks;  // of kLanesOfBlock channels
};

template <class T>
struct MaxPoolVjp {
    const T* src;
    const std::int32_t* winners;
    Ending<T> end;
    Windows windows;
    Size n, blocks;  // of kLanesOfBlock channels
};

/// Arrays (n, blocks, inner, lanes); w has end.channels values, and is null for Collect.
template <class T>
struct Elementwise : Linear<T> {
    Size n, blocks, inner, lanes;
};
template <class T>
struct Affine : Elementwise<T> {};
template <class T>
struct Collect : Elementwise<T> {};

template <class T>
struct Divide {
    const T* z;
    Ending<T> end;
    Size z_samples, norm_size;
    Size n, blocks, inner, lanes;
};

template <class T>
struct Reorder {
    const T* src;
    Ending<T> end;
    Size n, channels, inner, src_lanes, out_lanes;
};

template <class T>
struct Sums {
    const T* src;
    double* out;
    Size n, size;
};

template <class T>
struct Table {
#define KERNEL(name, Arguments) void (*name)(const Arguments<T>&);
#include "kernels.def"
#undef KERNEL
    /// In words: the form in which conv_forward, or conv_vjp, computes, and why.
    const char* (*conv_form)(const Conv<T>&, bool transposed);
    /// The numbers of the panels into which conv_forward, or conv_vjp, had better find w packed; 0 for none.
    Size (*panels_size)(const Conv<T>&, bool transposed);
    void (*fill_panels)(const Conv<T>&, bool transposed, T* panels);
};

/// All kernels, compiled for one instruction set.
struct Kernels {
    const char* target;
    Table<float> f32;
    Table<double> f64;
};

}  // namespace lrpfast
