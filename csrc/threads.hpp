// A small pool of threads, and memory that belongs to a thread.
#pragma once

#include "kernels.hpp"

namespace lrpfast {

/// Call task(context, i) for every i in [0, count), on several threads if they are free.
///
/// `work` says how long all of it takes, in multiply-adds of a convolution (some 50 a nanosecond, with the
/// widest vectors): to wake a thread takes time too, so there are no more of them than the work is worth.
/// Which thread calls which i is not defined: tasks must write to different places. Within a task, and
/// while another thread has the pool, all calls are made by the calling thread. An exception thrown
/// by a task is thrown again here once all running tasks have ended.
void run_tasks(Size count, Size work, void (*task)(const void* context, Size i), const void* context);

/// The most threads that one call may use, at least 1.
int num_threads();
void set_num_threads(int count);

/// A further limit, of the calling thread alone; 0 means none. Returns the limit before.
int limit_threads(int count);

/// The threads that a call made by this thread may use.
int usable_threads();

enum class Scratch { source, parted, inputs, totals, filters, result, others, weights, other_weights, places, sums, count_ };

/// Memory of the calling thread, aligned to 64 bytes, kept for the next call; its content is undefined.
/// Each use has a block of its own, valid until the same thread asks for the same use again.
void* scratch_bytes(Scratch use, std::size_t bytes);

}  // namespace lrpfast
