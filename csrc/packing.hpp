// Weights packed beforehand, once for all calls that share them.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"

namespace lrpfast {

inline const Table<float>& table_of(const Kernels& kernels, float) { return kernels.f32; }
inline const Table<double>& table_of(const Kernels& kernels, double) { return kernels.f64; }

/// The panels of a convolution's weights, or null if packing does not pay.
///
/// They are found again as long as any call holds them: by the address of the weights, which a Program keeps
/// alive, and by what else the panels depend on. Calls that differ in the part of the weights share them.
template <class T>
std::shared_ptr<const T> packed(const Kernels& kernels, const Conv<T>& conv, bool transposed) {
    using Key = std::tuple<const T*, const Kernels*, std::vector<Size>>;
    static std::mutex mutex;
    static std::map<Key, std::weak_ptr<const T>> known;

    const Table<T>& table = table_of(kernels, T());
    const Size size = table.panels_size(conv, transposed);
    if (size == 0) return nullptr;
    const Windows& w = conv.windows;
    std::vector<Size> rest{transposed, conv.m, conv.c, conv.groups, conv.src_lanes};
    for (const Triple* triple : {&w.kernel, &w.strides, &w.dilations, &w.pads})
        rest.insert(rest.end(), triple->at, triple->at + 3);
    for (int at = 0; at < 3; ++at) rest.push_back(std::min(w.strides[at], w.x[at]));  // residues of a transpose

    const std::lock_guard<std::mutex> lock(mutex);
    for (auto it = known.begin(); it != known.end();) it = it->second.expired() ? known.erase(it) : std::next(it);
    std::weak_ptr<const T>& found = known[Key{conv.w, &kernels, rest}];
    if (auto shared = found.lock()) return shared;
    const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(T);
    const std::shared_ptr<T> fresh(static_cast<T*>(allocate("packed weights", bytes)), release);
    table.fill_panels(conv, transposed, fresh.get());
    found = fresh;
    return fresh;
}

}  // namespace lrpfast
