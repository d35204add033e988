#pragma once

#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace tensorforge::queue {

/// How full a queue is: depth / limit in [0, 1]. A limit of 0 is always full: 1.
inline double queue_pressure(std::size_t depth, std::size_t limit) {
  if (depth >= limit) return 1;
  return static_cast<double>(depth) / static_cast<double>(limit);
}

/// First in, first out, at most `limit` elements: a full queue refuses, so that who pushes feels the pressure.
///
/// Threads: any number push and pop.
template <class T>
class BoundedQueue {
 public:
  explicit BoundedQueue(std::size_t limit) : limit_(limit) {}

  /// false: the queue is full, and `value` is gone.
  bool try_push(T value) {
    const std::lock_guard lock(mutex_);
    if (elements_.size() >= limit_) return false;
    elements_.push_back(std::move(value));
    return true;
  }
  /// nullopt: the queue is empty.
  std::optional<T> try_pop() {
    const std::lock_guard lock(mutex_);
    if (elements_.empty()) return std::nullopt;
    std::optional<T> value(std::move(elements_.front()));
    elements_.pop_front();
    return value;
  }
  std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return elements_.size();
  }

 private:
  const std::size_t limit_;
  mutable std::mutex mutex_;
  std::deque<T> elements_;
};

}  // namespace tensorforge::queue
