#include "service/recover.h"

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>

#include "fmt/format.h"

namespace tensorforge::service {
namespace {

constexpr std::size_t kPageRecords = 10'000;
constexpr std::size_t kPageBytes = std::size_t{4} << 20U;

}  // namespace

Replay::Replay(Sequence until, const SessionLimits& limits) : until_(until), done_(until == 0) {
  state_.sessions = Sessions(limits);
}

Replay::Replay(State from, Sequence until) : state_(std::move(from)), until_(until), done_(state_.sequence >= until) {}

absl::Status Replay::add(std::span<const std::byte> bytes) {
  if (done_) return absl::OkStatus();
  Result<Record> record = codec::decode_record(bytes);
  if (!record.ok()) {
    return {record.status().code(), fmt::format("record {}: {}", state_.sequence + command_.size() + 1,
                                                std::string(record.status().message()))};
  }
  if (record->part != command_.size() || record->part >= record->parts ||
      (!command_.empty() && record->parts != command_.front().parts)) {
    return absl::DataLossError(fmt::format("record {} is part {} of {} where part {} belongs", record->sequence,
                                           record->part, record->parts, command_.size()));
  }
  if (record->sequence + (record->parts - 1 - record->part) > until_) {
    command_.clear();
    done_ = true;
    return absl::OkStatus();
  }
  const bool ends = record->part + 1 == record->parts;
  command_.push_back(*std::move(record));
  if (!ends) return absl::OkStatus();
  for (const Record& each : std::exchange(command_, {})) {
    absl::Status status = apply_record(state_, each);
    if (!status.ok()) return status;
  }
  done_ = state_.sequence == until_;
  return absl::OkStatus();
}

absl::Status Replay::finish() const {
  if (command_.empty()) return absl::OkStatus();
  return absl::DataLossError(fmt::format("the log ends at record {}, inside a command of {} records",
                                         command_.back().sequence, command_.front().parts));
}

Result<State> recover(const storage::Log& log, const Progress& progress, const SessionLimits& limits) {
  const Sequence end = log.durable_head().sequence;
  Replay replay(std::numeric_limits<Sequence>::max(), limits);
  for (Sequence next = 1; next <= end;) {
    const auto wanted = static_cast<std::size_t>(std::min<Sequence>(kPageRecords, end - next + 1));
    const Result<storage::Records> page = log.read(next, wanted, kPageBytes);
    if (!page.ok()) return page.status();
    if (page->records.empty()) {
      return absl::DataLossError(fmt::format("records {}..{} are missing from the log", next, end));
    }
    for (const std::string& record : page->records) {
      absl::Status status = replay.add(std::as_bytes(std::span(record)));
      if (!status.ok()) return status;
    }
    next += page->records.size();
    if (progress && !progress(next - 1, end)) return absl::CancelledError("the recovery was cancelled");
  }
  absl::Status status = replay.finish();
  if (!status.ok()) return status;
  return replay.take();
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
