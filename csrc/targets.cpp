// All kernels for one instruction set. Compiled once for each, with LRPFAST_TARGET its name and
// LRPFAST_VECTOR_BYTES its width.
//
// The instruction set is switched on by a pragma, after the standard headers: their inline functions
// are shared by the whole program, and must not be compiled to instructions that a CPU may lack. With
// GCC it holds up to the end of the file, where the templates are instantiated.
#include "reads.hpp"
#include "threads.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define LRPFAST_TEXT_(text) #text
#define LRPFAST_TEXT(text) LRPFAST_TEXT_(text)
#define LRPFAST_JOIN_(a, b) a##b
#define LRPFAST_JOIN(a, b) LRPFAST_JOIN_(a, b)

#ifdef LRPFAST_ISA
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target(LRPFAST_ISA))), apply_to = function)
#else
// The pragma takes no macro but as a string of its own.
#define LRPFAST_PRAGMA(text) _Pragma(#text)
#define LRPFAST_GCC_TARGET(isa) LRPFAST_PRAGMA(GCC target(isa))
LRPFAST_GCC_TARGET(LRPFAST_ISA)
#endif
#endif

namespace lrpfast {
namespace LRPFAST_TARGET {

#include "simd.hpp"
#include "kernels/ending.inl.hpp"
#include "kernels/panels.inl.hpp"
#include "kernels/tiles.inl.hpp"
#include "kernels/gemm.inl.hpp"
#include "kernels/chunks.inl.hpp"
#include "kernels/thin.inl.hpp"
#include "kernels/products.inl.hpp"
#include "kernels/images.inl.hpp"
#include "kernels/winograd.inl.hpp"
#include "kernels/conv.inl.hpp"
#include "kernels/planes.inl.hpp"
#include "kernels/elementwise.inl.hpp"

}  // namespace LRPFAST_TARGET

extern const Kernels LRPFAST_JOIN(LRPFAST_TARGET, _kernels);
const Kernels LRPFAST_JOIN(LRPFAST_TARGET, _kernels) = {
    LRPFAST_TEXT(LRPFAST_TARGET),
#define KERNEL(name, Arguments) LRPFAST_TARGET::name<float>,
    {
#include "kernels.def"
        LRPFAST_TARGET::conv_form<float>,
        LRPFAST_TARGET::panels_size<float>,
        LRPFAST_TARGET::fill_all_panels<float>,
    },
#undef KERNEL
#define KERNEL(name, Arguments) LRPFAST_TARGET::name<double>,
    {
#include "kernels.def"
        LRPFAST_TARGET::conv_form<double>,
        LRPFAST_TARGET::panels_size<double>,
        LRPFAST_TARGET::fill_all_panels<double>,
    },
#undef KERNEL
};

}  // namespace lrpfast

#if defined(LRPFAST_ISA) && defined(__clang__)
#pragma clang attribute pop
#endif
