#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "storage/memory_journal.h"

namespace tensorforge::test {

/// A MemoryJournal with a disk of its own: a thread that makes each group durable as soon as it may. Needs no RocksDB,
/// so it can be used under ThreadSanitizer.
class PromptJournal final : public storage::Journal {
 public:
  /// `tells_late`: that something is synced, only behind that it is durable, as two threads may.
  explicit PromptJournal(bool tells_late = false)
      : tells_late_(tells_late), memory_(LogId{1, 2, 3}), disk_([this] { run(); }) {}
  ~PromptJournal() override { stop(); }

  void start(Callbacks callbacks) override {
    if (tells_late_) {
      auto late = std::make_shared<std::function<void()>>();
      callbacks.synced = [this, late, tell = callbacks.synced](Sequence last, std::size_t groups) {
        if (last == durable_head().sequence) return tell(last, groups);  // a digest alone, for which nothing follows
        *late = [=] { tell(last, groups); };
      };
      callbacks.durable = [late, tell = callbacks.durable](Sequence last) {
        tell(last);
        if (*late) std::exchange(*late, nullptr)();
      };
    }
    memory_.start(std::move(callbacks));
  }
  void submit(storage::Group group) override {
    memory_.submit(std::move(group));
    wake();
  }
  storage::TreeHead durable_head() const override { return memory_.durable_head(); }
  LogId log_id() const override { return memory_.log_id(); }
  Result<storage::Records> read(Sequence first, std::size_t max_records, std::size_t max_bytes) const override {
    return memory_.read(first, max_records, max_bytes);
  }
  absl::Status scan(Sequence first, const storage::VisitRecords& visit) const override {
    return memory_.scan(first, visit);
  }
  absl::Status check(storage::LogPoint& at, const storage::VisitRecords& visit) const override {
    return memory_.check(at, visit);
  }
  Result<std::optional<storage::Note>> note(Sequence sequence) const override { return memory_.note(sequence); }
  Result<std::optional<std::string>> noted_digest(Sequence sequence) const override {
    return memory_.noted_digest(sequence);
  }
  Result<std::optional<storage::NotedAt>> newest_noted_digest() const override { return memory_.newest_noted_digest(); }
  Result<storage::LogVerified> verify() const override { return memory_.verify(); }
  std::uint64_t free_bytes() const override { return memory_.free_bytes(); }
  void refresh_free_bytes() override {}
  absl::Status close() override {
    stop();
    return memory_.close();
  }

  /// The disk does nothing more until release().
  void hold() {
    const std::lock_guard lock(mutex_);
    held_ = true;
  }
  /// While it is held: until a group waits for it.
  void wait_for_group() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return work_; });
  }
  void release() {
    {
      const std::lock_guard lock(mutex_);
      held_ = false;
    }
    wake();
  }
  void fail(absl::Status why) { memory_.fail(std::move(why)); }
  void damage(Sequence sequence) { memory_.damage(sequence); }
  void set_free_bytes(std::uint64_t bytes) { memory_.set_free_bytes(bytes); }

 private:
  void wake() {
    {
      const std::lock_guard lock(mutex_);
      work_ = true;
    }
    changed_.notify_all();
  }
  void run() {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || (work_ && !held_); });
        if (stopping_) return;
        work_ = false;
      }
      // What is anchored is so before the next is synced, or some would not be told.
      while (tells_late_ ? memory_.complete_anchor() || memory_.complete_sync()
                         : memory_.complete_sync() || memory_.complete_anchor()) {
      }
    }
  }
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (disk_.joinable()) disk_.join();
  }

  const bool tells_late_;
  storage::MemoryJournal memory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool work_{}, held_{}, stopping_{};
  std::thread disk_;  // the last: it uses the others
};

}  // namespace tensorforge::test
