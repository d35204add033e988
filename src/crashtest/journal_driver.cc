#include "crashtest/journal_driver.h"

#include <utility>

namespace tensorforge::crashtest {

JournalDriver::Lane JournalDriver::lane_of(const std::string& path) {
  if (path.ends_with(".log")) return kLog;
  return path.ends_with("/HEAD") ? kHead : kLanes;
}

SimulatedDisk::Fault JournalDriver::pass(const SimulatedDisk::Call& call, const SimulatedDisk::Hook& hook) {
  const bool changes =
      call.operation == SimulatedDisk::Operation::kWrite || call.operation == SimulatedDisk::Operation::kSync;
  const Lane lane = changes ? lane_of(call.path) : kLanes;
  if (lane != kLanes) {
    std::unique_lock lock(mutex_);
    if (lane == kHead) head_failed_ = false;  // it goes on all the same
    if (closed_) {
      waiting_[lane] = true;
      changed_.notify_one();
      let_through_.wait(lock, [&] { return !waiting_[lane]; });
    }
  }
  SimulatedDisk::Fault fault = hook ? hook(call) : SimulatedDisk::Fault{};
  if (lane == kHead && !fault.error.ok()) {
    const std::lock_guard lock(mutex_);
    head_failed_ = true;
    changed_.notify_one();
  }
  return fault;
}

void JournalDriver::start(storage::Journal& journal) {
  {
    const std::lock_guard lock(mutex_);
    journal_ = &journal;
    closed_ = true;
    synced_ = durable_ = anchored_ = journal.durable_head().sequence;
  }
  journal.start({[this](Sequence last, std::size_t groups) {
                   report({Event::Kind::kSynced, last, groups, {}});
                 },
                 [this](Sequence last) {
                   report({Event::Kind::kDurable, last, 0, {}});
                 },
                 [this](const absl::Status& why) {
                   report({Event::Kind::kFailed, 0, 0, why});
                 },
                 [this](Sequence last) {
                   const std::lock_guard lock(mutex_);
                   anchored_ = last;
                   ++reports_;
                   changed_.notify_one();
                 }});
}

void JournalDriver::report(Event event) {
  const std::lock_guard lock(mutex_);
  switch (event.kind) {
    case Event::Kind::kSynced:
      in_flight_ -= event.groups;
      synced_ = event.last;
      break;
    case Event::Kind::kDurable:
      durable_ = event.last;
      break;
    case Event::Kind::kFailed:
      failed_ = true;
      break;
  }
  events_.push_back(std::move(event));
  ++reports_;
  changed_.notify_one();
}

void JournalDriver::expect_durable_when_synced() {
  const std::lock_guard lock(mutex_);
  durable_when_synced_ = true;
}

void JournalDriver::submit(storage::Group group) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return quiet(); });  // what is written together with it is no matter of chance
    ++in_flight_;
  }
  journal_->submit(std::move(group));
}

bool JournalDriver::busy() const {
  const std::lock_guard lock(mutex_);
  return !events_.empty() || (!failed_ && (in_flight_ > 0 || synced_ > anchored_));
}

bool JournalDriver::quiet() const {
  if (failed_) return true;
  if (durable_when_synced_ && durable_ < synced_) return false;  // the report is under way
  const bool writer_waits = in_flight_ == 0 || waiting_[kLog];
  if (head_failed_) return in_flight_ > 0 && writer_waits;  // else the failure is about to be reported
  return writer_waits && (synced_ <= anchored_ || waiting_[kHead]);
}

std::vector<JournalDriver::Event> JournalDriver::step(std::mt19937_64& random) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return quiet(); });
  if (events_.empty() && (waiting_[kLog] || waiting_[kHead])) {
    const bool both = waiting_[kLog] && waiting_[kHead];
    const Lane lane = both ? static_cast<Lane>(random() % kLanes) : waiting_[kLog] ? kLog : kHead;
    waiting_[lane] = false;
    // What comes next of this thread is another call that waits, or a report.
    const std::uint64_t reported = reports_;
    let_through_.notify_all();
    changed_.wait(lock, [&] { return (waiting_[lane] || reports_ > reported || head_failed_) && quiet(); });
  }
  return std::exchange(events_, {});
}

void JournalDriver::let_all_through() {
  const std::lock_guard lock(mutex_);
  closed_ = false;
  for (bool& waits : waiting_) waits = false;
  let_through_.notify_all();
}

}  // namespace tensorforge::crashtest
