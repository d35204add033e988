#include "service/recover.h"

#include <algorithm>
#include <cassert>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "fmt/format.h"
#include "platform/deliberate_bug.h"
#include "service/channel.h"

namespace tensorforge::service {
namespace {

/// Few enough to stay in the cache between the threads, many enough that these seldom wait for each other.
constexpr std::size_t kBatchRecords = 512, kBatchBytes = std::size_t{1} << 20U;
constexpr std::size_t kBatchesUnderWay = 8;

absl::Status at_record(Sequence sequence, const absl::Status& status) {
  return {status.code(), fmt::format("record {}: {}", sequence, std::string(status.message()))};
}

/// Records in their order, and what ended them.
struct Batch {
  std::vector<Record> records;
  absl::Status status;
};

/// Reads and decodes on a thread of its own.
class Decoder {
 public:
  /// `first` is the sequence of the first record that `scan` gives.
  Decoder(const Scan& scan, Sequence first) : next_(first), thread_([this, &scan] { run(scan); }) {}
  ~Decoder() {
    batches_.close();
    thread_.join();
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  /// nullopt: that were all.
  std::optional<Batch> next() { return batches_.pop(); }

 private:
  void run(const Scan& scan) {
    const absl::Status scanned = scan([this](std::span<const std::string_view> records) { return take(records); });
    if (batch_.status.ok()) batch_.status = scanned;
    if (!batch_.records.empty() || !batch_.status.ok()) hand_over();
    batches_.close();
  }
  bool take(std::span<const std::string_view> records) {
    for (const std::string_view bytes : records) {
      Result<Record> record = codec::decode_record(std::as_bytes(std::span(bytes)));
      if (!record.ok()) {
        batch_.status = at_record(next_, record.status());
        return false;
      }
      ++next_;
      batch_.records.push_back(*std::move(record));
      batch_bytes_ += bytes.size();
      const bool full = batch_.records.size() == kBatchRecords || batch_bytes_ >= kBatchBytes;
      if (full && !hand_over()) return false;
    }
    return true;
  }
  bool hand_over() {
    const bool wanted = batches_.push(std::exchange(batch_, {}));
    batch_bytes_ = 0;
    batch_.records.reserve(kBatchRecords);
    return wanted;
  }

  Channel<Batch> batches_{kBatchesUnderWay};
  Batch batch_;
  std::size_t batch_bytes_{};
  Sequence next_;
  std::thread thread_;  // the last: it uses the others
};

/// Tells where the writer noted another digest than that of `state`.
absl::Status compare(const storage::Log& log, const State& state, const ReplayOptions& options) {
  const Result<std::optional<std::string>> bytes = log.noted_digest(state.sequence);
  if (!bytes.ok()) return bytes.status();
  if (!*bytes) return absl::OkStatus();
  const Result<NotedDigest> noted = decode_noted_digest(**bytes);
  if (!noted.ok()) return noted.status();
  const NotedDigest replayed = noted_digest(state);
  if (*noted != replayed) options.on_contradiction({*noted, replayed});
  return absl::OkStatus();
}

}  // namespace

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

absl::Status Replay::add(Record record) {
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
  Sequence noted_interval = from.sequence / kNotedDigestInterval;
  Replay replay(std::move(from), options.until);
  Decoder decoder(scan, replay.state().sequence + 1);
  while (std::optional<Batch> batch = decoder.next()) {
    for (Record& record : batch->records) {
      if (absl::Status status = replay.add(std::move(record)); !status.ok()) return status;
      if (options.on_contradiction && replay.state().sequence / kNotedDigestInterval != noted_interval) {
        noted_interval = replay.state().sequence / kNotedDigestInterval;
        if (absl::Status status = compare(log, replay.state(), options); !status.ok()) return status;
      }
    }
    if (!batch->status.ok()) return batch->status;
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
  const absl::Status applied = apply_record(state, record);
  assert(applied.ok());
  static_cast<void>(applied);
  return group;
}

}  // namespace tensorforge::service
