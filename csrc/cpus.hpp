// On which CPU a thread runs, and how it is kept off one. Elsewhere than on Linux nothing is known of that, or done.
#pragma once

#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#endif

namespace lrpfast {

/// The CPU that the calling thread runs on; -1 if that cannot be told.
inline int current_cpu() {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

/// Keeps a thread off a CPU for a time.
class Avoidance {
  public:
    /// Keep it off, if it may run on any other.
    void begin(pthread_t thread, int cpu) {
#if defined(__linux__)
        if (active_ || cpu < 0 || cpu >= CPU_SETSIZE) return;
        if (pthread_getaffinity_np(thread, sizeof before_, &before_) != 0) return;
        cpu_set_t others = before_;
        CPU_CLR(static_cast<std::size_t>(cpu), &others);
        if (CPU_COUNT(&others) == 0 || CPU_EQUAL(&others, &before_)) return;
        active_ = pthread_setaffinity_np(thread, sizeof others, &others) == 0;
#else
        static_cast<void>(thread), static_cast<void>(cpu);
#endif
    }

    /// Let it run wherever it might before.
    void end(pthread_t thread) {
#if defined(__linux__)
        if (active_) pthread_setaffinity_np(thread, sizeof before_, &before_);
        active_ = false;
#else
        static_cast<void>(thread);
#endif
    }

  private:
#if defined(__linux__)
    cpu_set_t before_;
    bool active_ = false;
#endif
};

}  // namespace lrpfast
