#include "dispatch.hpp"

#include <atomic>
#include <stdexcept>

namespace lrpfast {

#if defined(__x86_64__)
extern const Kernels avx512_kernels, avx2_kernels;
#endif
#if defined(__aarch64__)
extern const Kernels neon_kernels;
#else
extern const Kernels baseline_kernels;
#endif

std::vector<const Kernels*> runnable_targets() {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&avx512_kernels);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2_kernels);
#endif
#if defined(__aarch64__)
    found.push_back(&neon_kernels);  // every 64-bit Arm has it
#else
    found.push_back(&baseline_kernels);
#endif
    return found;
}

namespace {

std::atomic<const Kernels*>& active() {
    static std::atomic<const Kernels*> kernels{runnable_targets().front()};
    return kernels;
}

}  // namespace

const Kernels& active_kernels() { return *active().load(); }

void set_target(const std::string& name) {
    std::string choices;
    for (const Kernels* kernels : runnable_targets()) {
        if (name == kernels->target) {
            active() = kernels;
            return;
        }
        choices += (choices.empty() ? "" : ", ") + std::string(kernels->target);
    }
    throw std::invalid_argument("SIMD target '" + name +
                                "' is not available on this CPU; choose one of: " + choices);
}

}  // namespace lrpfast
