// What a kernel is given, and the tables of kernels. The meaning of every argument is defined by
// the NumPy backend (src/lrpfast/backends/numpy_.py); pointers are to C-contiguous arrays.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lrpfast {

using Size = std::ptrdiff_t;

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

/// out (+)= part(times) ⊙ (A · part(src) + bias); `bias` and `times` may be null.
template <class T>
struct Linear {
    const T *src, *w, *bias, *times;
    T* out;
    Part<T> src_part, w_part, times_part;
    bool accumulate;
};

template <class T>
struct Gemm : Linear<T> {
    Size n, m, k;  // w is (m, k)
};

template <class T>
struct Conv : Linear<T> {
    Windows windows;
    Size n, m, c, groups;  // x has c channels, z has m
};

template <class T>
struct Depthwise : Linear<T> {
    Windows windows;
    Size n, c;
};

template <class T>
struct SumPool : Linear<T> {
    Windows windows;
    Size n, c;
};

template <class T>
struct MaxPool {
    const T* src;
    T* out;
    std::int32_t* winners;
    Windows windows;
    Size n, c;
};

template <class T>
struct MaxPoolVjp {
    const T* src;
    const std::int32_t* winners;
    T* out;
    Size planes, z_size, x_size;
    bool accumulate;
};

template <class T>
struct Clamp {
    const T* src;
    T slope, low, high;
    T* out;
    Size size;
};

template <class T>
struct Collect {
    const T *src, *times;
    T* out;
    Part<T> src_part, times_part;
    Size size;
    bool accumulate;
};

template <class T>
struct Divide {
    const T *z, *r, *gate_z, *bias;
    T* out;
    double* ledger;
    Size z_samples, n, m, inner;
    T scale, epsilon;
    int gate;
    bool clip, norm_scale;
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
};

/// All kernels, compiled for one instruction set.
struct Kernels {
    const char* target;
    Table<float> f32;
    Table<double> f64;
};

}  // namespace lrpfast
