// Threads that sleep until there is work: `run` splits numbered tasks between them and its caller.
//
// Several operators may call `run` at once; each works on its own tasks until none is left, so none
// waits for a thread that another keeps busy. A forked child starts with no threads, and makes its
// own when it first needs some. Nothing is torn down at exit: a sleeping thread harms nobody.
#pragma once

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace keras_bn {

// Flushes subnormal numbers to zero, as TensorFlow's own threads do, on every thread alike: else
// the last bits would depend on which thread took which task.
class FlushSubnormals {
 public:
#if defined(__x86_64__)
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  FlushSubnormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ | (uint64_t{1} << 24)));
  }
  ~FlushSubnormals() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  uint64_t before_;
#endif
};

class Pool {
 public:
  // Sets how many threads work on one call, the caller among them; 0 stands for one a CPU.
  void set_threads(int threads) { threads_.store(threads > 0 ? threads : available()); }

  int threads() const { return threads_.load(); }

  // Calls body(0) ... body(tasks - 1), each once, on several threads; returns when all are done.
  template <class Body>
  void run(int64_t tasks, const Body& body) {
    Job job;
    job.tasks = tasks;
    job.body = &body;
    job.call = [](const void* it, int64_t i) { (*static_cast<const Body*>(it))(i); };
    const FlushSubnormals flush;
    const int64_t helpers = std::min<int64_t>(threads_.load(), tasks) - 1;
    if (helpers <= 0) {
      for (int64_t i = 0; i < tasks; ++i) body(i);
      return;
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      hire(static_cast<int>(helpers));
      job.places = static_cast<int>(helpers);
      jobs_.push_back(&job);
    }
    for (int64_t i = 0; i < helpers; ++i) wake_.notify_one();
    work(job);
    std::unique_lock<std::mutex> lock(mutex_);
    const auto found = std::find(jobs_.begin(), jobs_.end(), &job);
    if (found != jobs_.end()) jobs_.erase(found);
    done_.wait(lock, [&] { return job.working == 0; });
  }

  static Pool& instance() {
    static Pool* pool = [] {
      Pool* made = new Pool;
      made->set_threads(0);
      shared() = made;
      pthread_atfork([] { shared()->mutex_.lock(); }, [] { shared()->mutex_.unlock(); },
                     [] {
                       const int threads = shared()->threads();
                       (new (shared()) Pool)->set_threads(threads);
                     });
      return made;
    }();
    return *pool;
  }

 private:
  struct Job {
    std::atomic<int64_t> next{0};
    int64_t tasks = 0;
    const void* body = nullptr;
    void (*call)(const void*, int64_t) = nullptr;
    int places = 0;   // for threads that may still join; guarded by mutex_
    int working = 0;  // threads that have joined and not left; guarded by mutex_
  };

  static Pool*& shared() {
    static Pool* pool = nullptr;
    return pool;
  }

  static int available() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }

  static void work(Job& job) {
    for (int64_t i; (i = job.next.fetch_add(1)) < job.tasks;) job.call(job.body, i);
  }

  // Starts threads until there are `wanted`; fewer where the system allows no more.
  void hire(int wanted) {
    if (hired_ >= wanted) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the program's own threads
    try {
      for (; hired_ < wanted; ++hired_) std::thread([this] { sleep_and_work(); }).detach();
    } catch (const std::exception&) {  // of the system, or out of memory
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void sleep_and_work() {
    const FlushSubnormals flush;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return !jobs_.empty(); });
      Job& job = *jobs_.front();
      ++job.working;
      if (--job.places == 0) jobs_.pop_front();
      lock.unlock();
      work(job);
      lock.lock();
      const auto found = std::find(jobs_.begin(), jobs_.end(), &job);
      if (found != jobs_.end()) jobs_.erase(found);  // nothing is left of it to join
      if (--job.working == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<Job*> jobs_;
  std::atomic<int> threads_{1};
  int hired_ = 0;
};

}  // namespace keras_bn
