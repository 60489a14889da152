#include "reads.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

namespace lrpfast {
namespace {

Size ceil_div(Size a, Size b) { return a / b + (a % b > 0 ? 1 : 0); }

/// An axis with the memory that it points to.
struct OwnedAxis {
    Size count, first, step, offset, source_step, tap_step;
    std::vector<Size> tap_index, sources;

    /// Fill in the sources: the taps are there, and an input has `size` places.
    void read(Size size) {
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
    std::deque<OwnedAxis> axes;  // stay where they are
    std::vector<Reads> all;

    void add(const Windows& windows, const Triple& in, const Triple& out, OwnedAxis d, OwnedAxis h,
             OwnedAxis w) {
        Reads reads{{}, windows.kernel, in, out};
        int at = 0;
        for (OwnedAxis* axis : {&d, &h, &w}) {
            axes.push_back(std::move(*axis));
            reads.axes[at++] = axes.back().view();
        }
        all.push_back(reads);
    }
};

ReadsList::ReadsList(Content* content) : content_(content) {}

ReadsList::~ReadsList() { delete content_; }

Size ReadsList::size() const { return static_cast<Size>(content_->all.size()); }

const Reads& ReadsList::operator[](Size i) const { return content_->all[static_cast<std::size_t>(i)]; }

ReadsList ReadsList::forward(const Windows& windows) {
    auto content = std::make_unique<Content>();
    content->add(windows, windows.x, windows.z, forward_axis(windows, 0), forward_axis(windows, 1),
                 forward_axis(windows, 2));
    return ReadsList(content.release());
}

ReadsList ReadsList::vjp(const Windows& windows) {
    auto content = std::make_unique<Content>();
    Triple firsts;
    for (int at = 0; at < 3; ++at) firsts.at[at] = std::min(windows.strides[at], windows.x[at]);
    for (Size d = 0; d < firsts[0]; ++d)
        for (Size h = 0; h < firsts[1]; ++h)
            for (Size w = 0; w < firsts[2]; ++w)
                content->add(windows, windows.z, windows.x, vjp_axis(windows, 0, d), vjp_axis(windows, 1, h),
                             vjp_axis(windows, 2, w));
    return ReadsList(content.release());
}

}  // namespace lrpfast
