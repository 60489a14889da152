// Memory in cache lines; where there is none, the error says how much was wanted, and for what.
#pragma once

#include <cstddef>
#include <cstdio>
#include <new>

namespace lrpfast {

constexpr std::align_val_t kLine{64};

/// What Python gets to see as a MemoryError.
class OutOfMemory : public std::bad_alloc {
  public:
    OutOfMemory(const char* what, std::size_t bytes) {
        std::snprintf(text_, sizeof text_, "%s: no memory for %zu bytes", what, bytes);
    }
    const char* what() const noexcept override { return text_; }

  private:
    char text_[96];
};

inline void* allocate(const char* what, std::size_t bytes) {
    void* const found = ::operator new(bytes, kLine, std::nothrow);
    if (found == nullptr) throw OutOfMemory(what, bytes);
    return found;
}

inline void release(void* memory) { ::operator delete(memory, kLine); }

}  // namespace lrpfast
