#include "shifts.hpp"

#include <algorithm>
#include <utility>

namespace lrpfast {
namespace {

Size ceil_div(Size a, Size b) { return a / b + (a % b > 0 ? 1 : 0); }

/// Let rows follow each other as closely as the zeros between them can be shared.
void close_up(ShiftAxis& axis) {
    const Size length = axis.count + axis.furthest();
    Size shared = axis.furthest();
    for (std::size_t f = 0; f < axis.phases.size(); ++f) {
        Size first, last;
        axis.inside(static_cast<Size>(f), length, first, last);
        shared = std::min(shared, first < last ? std::min(first, length - last) : length / 2);
    }
    axis.pitch = length - shared;
}

Size phase_of(std::vector<Size>& phases, Size residue) {
    const auto found = std::find(phases.begin(), phases.end(), residue);
    if (found == phases.end()) {
        phases.push_back(residue);
        return static_cast<Size>(phases.size()) - 1;
    }
    return found - phases.begin();
}

ShiftAxis forward_axis(const Windows& windows, int at) {
    ShiftAxis axis{};
    axis.in_size = windows.x[at];
    axis.step = windows.strides[at];
    axis.pad = windows.pads[at];
    axis.count = axis.out_size = windows.z[at];
    axis.out_step = 1;
    for (Size tap = 0; tap < windows.kernel[at]; ++tap) {
        const Size place = tap * windows.dilations[at];
        axis.taps.push_back({tap, phase_of(axis.phases, place % axis.step), place / axis.step});
    }
    close_up(axis);
    return axis;
}

/// Every stride-th x from `first` on: x = stride · j + first reads z[j + start − place / stride].
ShiftAxis vjp_axis(const Windows& windows, int at, Size first) {
    const Size stride = windows.strides[at], pad = windows.pads[at], residue = (first + pad) % stride;
    ShiftAxis axis{};
    axis.in_size = windows.z[at];
    axis.step = 1;
    axis.out_size = windows.x[at];
    axis.out_step = stride;
    axis.out_first = first;
    axis.count = ceil_div(axis.out_size - first, stride);
    axis.phases = {0};
    const Size start = (first + pad) / stride;
    Size furthest = 0;
    for (Size tap = 0; tap < windows.kernel[at]; ++tap) {
        const Size place = tap * windows.dilations[at];
        if (place % stride != residue) continue;
        axis.taps.push_back({tap, 0, place / stride});
        furthest = place / stride;
    }
    for (ShiftAxis::Tap& tap : axis.taps) tap.shift = furthest - tap.shift;  // no shift below zero
    axis.pad = furthest - start;
    close_up(axis);
    return axis;
}

Shifts combine(const ShiftAxis (&axes)[3], const Triple& kernel) {
    Shifts all{{axes[0], axes[1], axes[2]}, {}, 1, 0};
    for (const ShiftAxis& axis : all.axes) all.phases *= static_cast<Size>(axis.phases.size());
    const Size rows = axes[1].pitch, columns = axes[2].pitch;
    const Size row_phases = static_cast<Size>(axes[1].phases.size());
    const Size column_phases = static_cast<Size>(axes[2].phases.size());
    for (const auto& d : axes[0].taps)
        for (const auto& h : axes[1].taps)
            for (const auto& w : axes[2].taps)
                all.all_taps.push_back({(d.index * kernel[1] + h.index) * kernel[2] + w.index,
                                        (d.phase * row_phases + h.phase) * column_phases + w.phase,
                                        (d.shift * rows + h.shift) * columns + w.shift});
    for (const Shifts::Tap& tap : all.all_taps) all.furthest = std::max(all.furthest, tap.shift);
    return all;
}

/// Without neighbours there are no rows: one long axis does.
bool is_pointwise(const Windows& windows) {
    for (int at = 0; at < 3; ++at)
        if (windows.kernel[at] != 1 || windows.strides[at] != 1 || windows.pads[at] != 0 ||
            windows.x[at] != windows.z[at])
            return false;
    return true;
}

Windows simplified(const Windows& windows) {
    if (!is_pointwise(windows)) return windows;
    Windows flat = windows;
    flat.x = flat.z = Triple{{1, 1, windows.x.product()}};
    return flat;
}

}  // namespace

Size ShiftAxis::phase_count() const { return static_cast<Size>(phases.size()); }

Size ShiftAxis::origin(Size phase) const { return phases[static_cast<std::size_t>(phase)] - pad; }

Size ShiftAxis::furthest() const {
    Size most = 0;
    for (const Tap& tap : taps) most = std::max(most, tap.shift);
    return most;
}

void ShiftAxis::inside(Size phase, Size length, Size& first, Size& last) const {
    first = std::clamp(ceil_div(-origin(phase), step), Size{0}, length);
    last = std::clamp(ceil_div(in_size - origin(phase), step), Size{0}, length);
}

Size Shifts::extent(Size n) const {
    if (n == 0) return 0;
    Size last = n - 1;
    for (const ShiftAxis& axis : axes) last = last * axis.pitch + axis.count - 1;
    return last + 1;
}

const Shifts::Tap* Shifts::taps() const { return all_taps.data(); }

Size Shifts::tap_count() const { return static_cast<Size>(all_taps.size()); }

ShiftList::ShiftList(std::vector<Shifts> all) : all_(std::move(all)) {}

ShiftList::~ShiftList() = default;

Size ShiftList::size() const { return static_cast<Size>(all_.size()); }

const Shifts& ShiftList::operator[](Size i) const { return all_[static_cast<std::size_t>(i)]; }

ShiftList ShiftList::forward(const Windows& given) {
    const Windows windows = simplified(given);
    const ShiftAxis axes[3] = {forward_axis(windows, 0), forward_axis(windows, 1), forward_axis(windows, 2)};
    return ShiftList({combine(axes, windows.kernel)});
}

ShiftList ShiftList::vjp(const Windows& given) {
    const Windows windows = simplified(given);
    Triple firsts;
    for (int at = 0; at < 3; ++at) firsts.at[at] = std::min(windows.strides[at], windows.x[at]);
    std::vector<Shifts> all;
    for (Size d = 0; d < firsts[0]; ++d)
        for (Size h = 0; h < firsts[1]; ++h)
            for (Size w = 0; w < firsts[2]; ++w) {
                const ShiftAxis axes[3] = {vjp_axis(windows, 0, d), vjp_axis(windows, 1, h),
                                           vjp_axis(windows, 2, w)};
                all.push_back(combine(axes, windows.kernel));
            }
    return ShiftList(std::move(all));
}

}  // namespace lrpfast
