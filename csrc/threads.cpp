#include "threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "cpus.hpp"
#include "memory.hpp"

namespace lrpfast {
namespace {

constexpr Size kWorkOfThread = 300000;  // some 6 µs

/// How often a thread looks for what it waits for before it goes to sleep: some 150 µs, more than what Python does
/// between two passes of a small network. To be woken takes as long as many a kernel.
constexpr int kLooks = 6000;

template <class Condition>
bool spin_until(const Condition& condition) {
    for (int look = 0; look < kLooks; ++look) {
        if (condition()) return true;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ __volatile__("yield");
#endif
    }
    return condition();
}

std::atomic<int> thread_count{1};
thread_local int thread_limit = 0;
thread_local bool inside_task = false;

/// Indices of one thread; in a cache line of its own.
struct alignas(64) Range {
    std::atomic<Size> next{0};
    Size end = 0;
};

/// One call of run_tasks. Each thread begins with a range of its own, which is the same share in every call: what it
/// wrote in one kernel is in its caches in the next. When its own are done it takes of the others'.
struct Job {
    void (*task)(const void*, Size);
    const void* context;
    Range* ranges;
    int seats;                   // how many ranges, and threads at most
    std::atomic<int> active{0};  // how many workers are at it; changed with the pool's mutex
    std::atomic<bool> failed{false};
    std::exception_ptr error{};  // written by the thread that set `failed`

    void drain(int seat) noexcept {
        inside_task = true;
        for (int turn = 0; turn < seats; ++turn) {
            Range& range = ranges[(seat + turn) % seats];
            for (Size i; !failed && (i = range.next.fetch_add(1)) < range.end;) {
                try {
                    task(context, i);
                } catch (...) {
                    if (!failed.exchange(true)) error = std::current_exception();
                }
            }
        }
        inside_task = false;
    }
};

/// A worker that sleeps.
struct Sleeper {
    pthread_t thread;
    Avoidance avoidance;  // of the CPU of who wakes it
};

class Pool {
  public:
    /// Try to become the pool's only user.
    bool acquire() { return !busy_.exchange(true, std::memory_order_acquire); }
    void release() { busy_.store(false, std::memory_order_release); }

    /// Call job.task(i) for every i in [0, count).
    void run(Job& job, Size count) {
        bool asleep;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            if (ranges_.size() < static_cast<std::size_t>(job.seats))
                ranges_ = std::vector<Range>(static_cast<std::size_t>(job.seats));
            job.ranges = ranges_.data();
            for (Size seat = 0; seat < job.seats; ++seat) {
                job.ranges[seat].next = seat * count / job.seats;
                job.ranges[seat].end = (seat + 1) * count / job.seats;
            }
            while (workers_ < job.seats - 1 && spawn()) {
            }
            job_ = &job;
            generation_.fetch_add(1, std::memory_order_release);
            // Linux likes to wake threads on the CPU of who wakes them, which will be busy, though others are idle.
            const int here = sleepers_.empty() ? -1 : current_cpu();
            for (Sleeper* sleeper : sleepers_) sleeper->avoidance.begin(sleeper->thread, here);
            asleep = !sleepers_.empty();
        }
        if (asleep) wake_.notify_all();
        job.drain(0);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = nullptr;  // workers that come late find nothing to join
        }
        if (spin_until([&] { return job.active.load(std::memory_order_acquire) == 0; })) {
            // The last worker may still hold the mutex, though it is done with the job.
            std::lock_guard<std::mutex> lock(mutex_);
            return;
        }
        std::unique_lock<std::mutex> lock(mutex_);
        idle_.wait(lock, [&] { return job.active == 0; });
    }

  private:
    /// Workers are never joined: they own nothing, and sleep when the process ends.
    bool spawn() {
        try {
            sleepers_.reserve(static_cast<std::size_t>(workers_) + 1);
            std::thread([this, seat = workers_ + 1] { work(seat); }).detach();
        } catch (const std::exception&) {
            return false;  // the system grants no more threads, or no memory for one: go on with those there are
        }
        ++workers_;
        return true;
    }

    void work(int seat) {
        std::uint64_t seen = 0;
        const auto called = [&] { return generation_.load(std::memory_order_acquire) != seen; };
        for (;;) {
            const bool awake = spin_until(called);
            std::unique_lock<std::mutex> lock(mutex_);
            if (!awake) {
                Sleeper self{pthread_self(), {}};
                sleepers_.push_back(&self);
                wake_.wait(lock, called);
                sleepers_.erase(std::find(sleepers_.begin(), sleepers_.end(), &self));
                self.avoidance.end(self.thread);
            }
            seen = generation_;
            Job* job = job_;
            if (job == nullptr || seat >= job->seats) continue;
            ++job->active;
            lock.unlock();
            job->drain(seat);
            lock.lock();
            if (--job->active == 0) idle_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, idle_;
    std::atomic<bool> busy_{false};
    std::atomic<std::uint64_t> generation_{0};
    // The rest is guarded by the mutex.
    Job* job_ = nullptr;
    std::vector<Range> ranges_;  // of the job
    std::vector<Sleeper*> sleepers_;
    int workers_ = 0;
};

/// Never freed, so that workers may outlive the program's static objects.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
    Pool* current = the_pool.load(std::memory_order_acquire);
    if (current != nullptr) return *current;
    // A fork copies the memory but not the workers: the child starts with a pool of its own.
    static const int registered = pthread_atfork(nullptr, nullptr, [] { the_pool = nullptr; });
    static_cast<void>(registered);
    Pool* fresh = new Pool;
    if (the_pool.compare_exchange_strong(current, fresh)) return *fresh;
    delete fresh;
    return *current;
}

struct Block {
    void* data = nullptr;
    std::size_t bytes = 0;
    ~Block() { release(data); }
};

}  // namespace

void run_tasks(Size count, Size work, void (*task)(const void*, Size), const void* context) {
    const Size threads = std::min({static_cast<Size>(usable_threads()), count, 1 + work / kWorkOfThread});
    if (threads <= 1 || inside_task || !pool().acquire()) {
        for (Size i = 0; i < count; ++i) task(context, i);
        return;
    }
    const struct Turn {
        ~Turn() { pool().release(); }
    } turn;
    Job job{task, context, nullptr, static_cast<int>(threads)};
    pool().run(job, count);
    if (job.error) std::rethrow_exception(job.error);
}

int num_threads() { return thread_count; }

void set_num_threads(int count) { thread_count = count < 1 ? 1 : count; }

int limit_threads(int count) {
    const int before = thread_limit;
    thread_limit = count;
    return before;
}

int usable_threads() {
    const int all = thread_count;
    return thread_limit > 0 && thread_limit < all ? thread_limit : all;
}

void* scratch_bytes(Scratch use, std::size_t bytes) {
    thread_local Block blocks[static_cast<int>(Scratch::count_)];
    Block& block = blocks[static_cast<int>(use)];
    if (block.bytes < bytes) {
        release(block.data);
        block = {};
        block.data = allocate("a kernel's scratch memory", bytes);
        block.bytes = bytes;
    }
    return block.data;
}

}  // namespace lrpfast
