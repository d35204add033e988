#include "service/recover.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "fmt/format.h"
#include "platform/deliberate_bug.h"
#include "service/channel.h"
#include "service/prefetch.h"

namespace tensorforge::service {
namespace {

/// Few enough to stay in the cache between the threads, many enough that these seldom wait for each other.
constexpr std::size_t kBatchRecords = 512, kBatchBytes = std::size_t{1} << 20U;
constexpr std::size_t kBatchesUnderWay = 8;
/// Records from one step of a prefetch to the next: each takes about a microsecond.
constexpr std::size_t kPrefetchAhead = 4;

absl::Status at_record(Sequence sequence, const absl::Status& status) {
  return {status.code(), fmt::format("record {}: {}", sequence, std::string(status.message()))};
}

/// Records in their order, and what ended them.
struct Batch {
  std::vector<Record> records;
  absl::Status status;
};

/// Records on their way from a thread that decodes them to one that applies them.
class DecodedRecords {
 public:
  /// `first` is the sequence of the first record.
  explicit DecodedRecords(Sequence first) : next_(first) {}

  // Of the thread that decodes.

  /// False: no more are wanted, or one is damaged.
  bool take(std::span<const std::string_view> records) {
    if (!wanted_ || !batch_.status.ok()) return false;
    for (const std::string_view bytes : records) {
      Result<Record> record = codec::decode_record(std::as_bytes(std::span(bytes)));
      if (!record.ok()) {
        batch_.status = at_record(next_, record.status());
        return false;
      }
      ++next_;
      batch_.records.push_back(*std::move(record));
      batch_bytes_ += bytes.size();
      if (batch_.records.size() == kBatchRecords || batch_bytes_ >= kBatchBytes) hand_over();
      if (!wanted_) return false;
    }
    return true;
  }
  /// There are no more, for the reason that `status` gives.
  void end(const absl::Status& status) {
    if (batch_.status.ok()) batch_.status = status;
    if (!batch_.records.empty() || !batch_.status.ok()) hand_over();
    batches_.close();
  }

  // Of the thread that applies.

  /// nullopt: that were all.
  std::optional<Batch> next() { return batches_.pop(); }
  /// What is left of them: whoever made it frees it, while there is something else to do here.
  void give_back(Batch&& batch) { used_.push(std::move(batch.records)); }

  /// Of either: there is nothing more to do.
  void close() { batches_.close(); }

 private:
  void hand_over() {
    wanted_ = batches_.push(std::exchange(batch_, {}));
    batch_bytes_ = 0;
    if (auto used = used_.try_pop()) {
      used->clear();
      batch_.records = *std::move(used);
    }
    batch_.records.reserve(kBatchRecords);
  }

  Channel<Batch> batches_{kBatchesUnderWay};
  Channel<std::vector<Record>> used_{kBatchesUnderWay + 2};  // with those that either thread has: never full
  Batch batch_;
  std::size_t batch_bytes_{};
  bool wanted_{true};
  Sequence next_;
};

/// Reads and decodes on a thread of its own.
class Decoder {
 public:
  /// `first` is the sequence of the first record that `scan` gives.
  Decoder(const Scan& scan, Sequence first)
      : records_(first), thread_([this, &scan] {
          records_.end(scan([this](std::span<const std::string_view> records) { return records_.take(records); }));
        }) {}
  ~Decoder() {
    records_.close();
    thread_.join();
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  /// nullopt: that were all.
  std::optional<Batch> next() { return records_.next(); }
  void give_back(Batch&& batch) { records_.give_back(std::move(batch)); }

 private:
  DecodedRecords records_;
  std::thread thread_;  // the last: it uses the other
};

/// Tells the memory what the records behind the one that is applied next will look at, some for each step.
class AheadOf {
 public:
  AheadOf(const State& state, const std::vector<Record>& records) : state_(state), records_(records) {}

  void prefetch(std::size_t next) {
    std::size_t ahead = prefetches_.size();
    if (next + ahead < records_.size()) at(next + ahead) = Prefetch(state_, records_[next + ahead].event);
    for (const PrefetchStep step : kPrefetchSteps) {
      if (next + ahead < records_.size()) at(next + ahead)(step);
      ahead -= kPrefetchAhead;
    }
  }

 private:
  Prefetch& at(std::size_t record) { return prefetches_[record % prefetches_.size()]; }

  const State& state_;
  const std::vector<Record>& records_;
  std::array<Prefetch, kPrefetchAhead * std::size(kPrefetchSteps)> prefetches_;
};

/// Applies what was decoded, and keeps the digests of the state where whoever writes the log notes them: at the first
/// end of a command in each interval.
class Applier {
 public:
  Applier(State from, Sequence until)
      : interval_(from.sequence / kNotedDigestInterval), replay_(std::move(from), until) {}

  absl::Status apply(std::vector<Record>& records) {
    AheadOf ahead(replay_.state(), records);
    for (std::size_t i = 0; i < records.size(); ++i) {
      ahead.prefetch(i);
      if (absl::Status status = replay_.add(std::move(records[i])); !status.ok()) return status;
      const Sequence interval = replay_.state().sequence / kNotedDigestInterval;
      if (std::exchange(interval_, interval) != interval) digests_.push_back(noted_digest(replay_.state()));
    }
    return absl::OkStatus();
  }
  Replay& replay() { return replay_; }
  std::vector<NotedDigest> take_digests() { return std::exchange(digests_, {}); }

 private:
  Sequence interval_;
  Replay replay_;
  std::vector<NotedDigest> digests_;
};

}  // namespace

absl::Status compare_digests(const storage::Log& log, const std::vector<NotedDigest>& replayed,
                             const ReplayOptions& options) {
  if (!options.on_contradiction) return absl::OkStatus();
  for (const NotedDigest& digest : replayed) {
    const Result<std::optional<std::string>> bytes = log.noted_digest(digest.sequence);
    if (!bytes.ok()) return bytes.status();
    if (!*bytes) continue;
    const Result<NotedDigest> noted = decode_noted_digest(**bytes);
    if (!noted.ok()) return noted.status();
    if (*noted != digest) options.on_contradiction({*noted, digest});
  }
  return absl::OkStatus();
}

Replay::Replay(Sequence until, const SessionLimits& limits) : until_(until), done_(until == 0) {
  state_.sessions = Sessions(limits);
}

Replay::Replay(State from, Sequence until) : state_(std::move(from)), until_(until), done_(state_.sequence >= until) {}

absl::Status Replay::add(std::span<const std::byte> bytes) {
  if (done_) return absl::OkStatus();
  Result<Record> record = codec::decode_record(bytes);
  if (record.ok()) return add(*std::move(record));
  return at_record(state_.sequence + command_.size() + 1, record.status());
}

absl::Status Replay::add(Record&& record) {
  if (done_) return absl::OkStatus();
  if (record.part != command_.size() || record.part >= record.parts ||
      (!command_.empty() && record.parts != command_.front().parts)) {
    return absl::DataLossError(fmt::format("record {} is part {} of {} where part {} belongs", record.sequence,
                                           record.part, record.parts, command_.size()));
  }
  if (record.sequence + (record.parts - 1 - record.part) > until_) {
    command_.clear();
    done_ = true;
    return absl::OkStatus();
  }
  absl::Status status;
  if (record.parts == 1) {
    status = apply_record(state_, std::move(record));
  } else {
    command_.push_back(std::move(record));
    if (command_.size() < command_.front().parts) return absl::OkStatus();
    std::vector<Record> command = std::exchange(command_, {});
    for (std::size_t i = 0; i < command.size() && status.ok(); ++i) {
      status = apply_record(state_, std::move(command[i]));
    }
  }
  done_ = state_.sequence == until_;
  return status;
}

absl::Status Replay::finish() const {
  if (command_.empty()) return absl::OkStatus();
  return absl::DataLossError(fmt::format("the log ends at record {}, inside a command of {} records",
                                         command_.back().sequence, command_.front().parts));
}

Result<State> replay_log(State from, const storage::Log& log, const Scan& scan, const ReplayOptions& options) {
  const Sequence log_end = log.durable_head().sequence;
  const Sequence end = std::min(log_end, options.until);
  Applier applier(std::move(from), options.until);
  Replay& replay = applier.replay();
  Decoder decoder(scan, replay.state().sequence + 1);
  while (std::optional<Batch> batch = decoder.next()) {
    const absl::Status applied = applier.apply(batch->records);
    absl::Status compared = compare_digests(log, applier.take_digests(), options);
    if (!compared.ok()) return compared;
    if (!applied.ok()) return applied;
    if (!batch->status.ok()) return batch->status;
    decoder.give_back(*std::move(batch));
    if (replay.done()) break;
    if (options.progress && !options.progress(replay.state().sequence, end)) {
      return absl::CancelledError("the replay was cancelled");
    }
  }
  if (absl::Status status = replay.finish(); !status.ok()) return status;
  if (options.until >= log_end && replay.state().sequence < log_end) {
    return absl::DataLossError(
        fmt::format("the log ends at sequence {}, but its records end at {}", log_end, replay.state().sequence));
  }
  return replay.take();
}

class ReplayBeside::Impl {
 public:
  explicit Impl(State from)
      : records_(from.sequence + 1),
        applier_(std::move(from), std::numeric_limits<Sequence>::max()),
        thread_([this] { apply(); }) {}
  ~Impl() {
    records_.close();
    if (thread_.joinable()) thread_.join();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  bool take(std::span<const std::string_view> records) { return records_.take(records); }

  Result<Replayed> finish() {
    records_.end(absl::OkStatus());
    thread_.join();
    if (status_.ok()) status_ = applier_.replay().finish();
    if (!status_.ok()) return status_;
    return Replayed{applier_.replay().take(), applier_.take_digests()};
  }

 private:
  void apply() {
    while (std::optional<Batch> batch = records_.next()) {
      status_ = applier_.apply(batch->records);
      if (status_.ok()) status_ = batch->status;
      if (!status_.ok()) return records_.close();
      records_.give_back(*std::move(batch));
    }
  }

  DecodedRecords records_;
  Applier applier_;
  absl::Status status_;
  std::thread thread_;  // the last: it uses the others
};

ReplayBeside::ReplayBeside(State from) : next_(from.sequence + 1), impl_(std::make_unique<Impl>(std::move(from))) {}
ReplayBeside::~ReplayBeside() = default;

bool ReplayBeside::take(std::span<const std::string_view> records) {
  next_ += records.size();
  return impl_->take(records);
}

Result<ReplayBeside::Replayed> ReplayBeside::finish() { return impl_->finish(); }

Result<State> recover(const storage::Log& log, const Progress& progress, const SessionLimits& limits) {
  State empty;
  empty.sessions = Sessions(limits);
  ReplayOptions options;
  options.progress = progress;
  return recover_from(std::move(empty), log, options);
}

Result<State> recover_from(State from, const storage::Log& log, const ReplayOptions& options) {
  const bool skips_one = from.sequence > 0 && deliberate_bug(DeliberateBug::kReplayOffByOne);
  const Sequence first = from.sequence + (skips_one ? 2 : 1);
  Result<State> state = replay_log(
      std::move(from), log, [&log, first](const auto& visit) { return log.scan(first, visit); }, options);
  if (state.ok() && deliberate_bug(DeliberateBug::kAnswersForgotten)) {
    state->sessions = Sessions(state->sessions.limits());
  }
  return state;
}

storage::Group start_incarnation(State& state, IncarnationCause cause, const Hash& root, std::uint32_t incarnation,
                                 std::uint64_t wall_ms) {
  Record record;
  record.sequence = state.sequence + 1;
  record.time = std::max(state.time, wall_ms);
  record.wall_time = wall_ms;
  record.incarnation = incarnation;
  record.actor = "tensorforged";
  record.actor_source = ActorSource::System;
  record.event = ServerEvent{IncarnationStarted{state.incarnation(), record.sequence, root, cause}};

  storage::Group group;
  group.first = record.sequence;
  group.incarnation = incarnation;
  group.add({codec::encode_record(record).value()});  // small, so it fits
  const absl::Status applied = apply_record(state, std::move(record));
  assert(applied.ok());
  static_cast<void>(applied);
  return group;
}

}  // namespace tensorforge::service
