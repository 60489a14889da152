#include "reads.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "memory.hpp"

namespace lrpfast {
namespace {

/// What a vector gets its memory from.
template <class T>
struct TableMemory {
    using value_type = T;

    TableMemory() = default;
    template <class U>
    TableMemory(const TableMemory<U>&) {}

    T* allocate(std::size_t count) {
        return static_cast<T*>(lrpfast::allocate("tables of windows", count * sizeof(T)));
    }
    void deallocate(T* memory, std::size_t) { release(memory); }

    friend bool operator==(const TableMemory&, const TableMemory&) { return true; }
    friend bool operator!=(const TableMemory&, const TableMemory&) { return false; }
};

template <class T>
using List = std::vector<T, TableMemory<T>>;

Size ceil_div(Size a, Size b) { return a / b + (a % b > 0 ? 1 : 0); }

/// An axis with the memory that it points to.
struct OwnedAxis {
    Size count, first, step, offset, source_step, tap_step;
    List<Size> tap_index, sources;

    /// Fill in the sources: the taps are there, and an input has `size` places.
    void read(Size size) {
        sources.reserve(tap_index.size() * static_cast<std::size_t>(count));
        for (Size tap = 0; tap < static_cast<Size>(tap_index.size()); ++tap)
            for (Size j = 0; j < count; ++j) {
                const Size source = offset + j * source_step + tap * tap_step;
                sources.push_back(source >= 0 && source < size ? source : kOutside);
            }
    }

    AxisReads view() const {
        return {count, first, step, static_cast<Size>(tap_index.size()), offset, source_step, tap_step,
                tap_index.data(), sources.data()};
    }
};

OwnedAxis forward_axis(const Windows& windows, int at) {
    OwnedAxis axis{windows.z[at], 0, 1, -windows.pads[at], windows.strides[at], windows.dilations[at], {}, {}};
    for (Size tap = 0; tap < windows.kernel[at]; ++tap) axis.tap_index.push_back(tap);
    axis.read(windows.x[at]);
    return axis;
}

/// Every stride-th x from `first` on. A tap reads z where the stride divides from − tap · dilation; those that do
/// are equally far apart.
OwnedAxis vjp_axis(const Windows& windows, int at, Size first) {
    const Size stride = windows.strides[at], dilation = windows.dilations[at], from = first + windows.pads[at];
    OwnedAxis axis{ceil_div(windows.x[at] - first, stride), first, stride, 0, 1, 0, {}, {}};
    for (Size tap = 0; tap < windows.kernel[at]; ++tap)
        if ((from - tap * dilation) % stride == 0) axis.tap_index.push_back(tap);
    const auto source_of = [&](std::size_t tap) { return (from - axis.tap_index[tap] * dilation) / stride; };
    if (!axis.tap_index.empty()) axis.offset = source_of(0);
    if (axis.tap_index.size() > 1) axis.tap_step = source_of(1) - source_of(0);
    axis.read(windows.z[at]);
    return axis;
}

}  // namespace

struct ReadsList::Content {
    List<OwnedAxis> axes[3];
    List<Reads> all;

    /// Each sum of one axis with each of the others.
    void combine(const Triple& kernel, const Triple& in, const Triple& out) {
        all.reserve(axes[0].size() * axes[1].size() * axes[2].size());
        for (const OwnedAxis& d : axes[0])
            for (const OwnedAxis& h : axes[1])
                for (const OwnedAxis& w : axes[2])
                    all.push_back({{d.view(), h.view(), w.view()}, kernel, in, out});
    }
};

ReadsList::ReadsList(Content* content) : content_(content) {}

ReadsList::~ReadsList() { delete content_; }

Size ReadsList::size() const { return static_cast<Size>(content_->all.size()); }

const Reads& ReadsList::operator[](Size i) const { return content_->all[static_cast<std::size_t>(i)]; }

ReadsList ReadsList::forward(const Windows& windows) {
    auto content = std::make_unique<Content>();
    for (int at = 0; at < 3; ++at) content->axes[at].push_back(forward_axis(windows, at));
    content->combine(windows.kernel, windows.x, windows.z);
    return ReadsList(content.release());
}

ReadsList ReadsList::vjp(const Windows& windows) {
    auto content = std::make_unique<Content>();
    for (int at = 0; at < 3; ++at)
        for (Size first = 0; first < std::min(windows.strides[at], windows.x[at]); ++first)
            content->axes[at].push_back(vjp_axis(windows, at, first));
    content->combine(windows.kernel, windows.z, windows.x);
    return ReadsList(content.release());
}

}  // namespace lrpfast
