#include "service/fold.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "platform/deliberate_bug.h"
#include "service/recover.h"
#include "service/snapshot.h"

namespace tensorforge::service {
namespace {

/// Where a fold begins.
struct Base {
  State state;
  storage::LogPoint at;
};

absl::Status cancelled_status() { return absl::CancelledError("it was cancelled"); }

/// The newest snapshot of this log before `end` that can be loaded; the start of the log where there is none.
Result<Base> find_base(const storage::Log& log, const storage::SnapshotStore& store, Sequence end,
                       const SessionLimits& limits) {
  const Result<std::vector<Sequence>> all = store.list();
  if (!all.ok()) return all.status();
  for (auto sequence = all->rbegin(); sequence != all->rend(); ++sequence) {
    if (*sequence >= end) continue;
    const Result<std::unique_ptr<storage::SnapshotReader>> reader = store.open(*sequence);
    if (!reader.ok() || (*reader)->head().log_id != log.log_id()) continue;
    Result<State> state = load_snapshot(**reader, limits);
    if (state.ok()) return Base{*std::move(state), (*reader)->head().at};
  }
  Base start;
  start.state.sessions = Sessions(limits);
  return start;
}

/// Moves `base` up to `end`.
absl::Status advance(const storage::Log& log, Base& base, Sequence end, const std::function<bool()>& cancelled) {
  ReplayOptions options;
  options.until = deliberate_bug(DeliberateBug::kSnapshotOfWrongSequence) ? end - 1 : end;
  if (cancelled) options.progress = [&](Sequence, Sequence) { return !cancelled(); };
  const auto scan = [&](const storage::VisitRecords& visit) {
    Sequence seen = base.at.sequence();
    return log.check(base.at, [&](std::span<const std::string_view> records) {
      seen += records.size();
      return visit(records) && seen < end;
    });
  };
  Result<State> state = replay_log(std::move(base.state), log, scan, options);
  if (!state.ok()) return state.status();
  base.state = *std::move(state);
  if (deliberate_bug(DeliberateBug::kSnapshotOfWrongSequence)) base.state.sequence = end;
  if (base.state.sequence == end && base.at.sequence() == end) return absl::OkStatus();
  return absl::InternalError(fmt::format("no command and chunk end at sequence {}", end));
}

absl::Status contradiction(const NotedDigest& noted, const NotedDigest& folded) {
  std::string domains;
  const auto compare = [&](std::string_view name, const Digest& a, const Digest& b) {
    if (a != b) domains += fmt::format(" {} ({} served, {} in the log)", name, format_digest(a), format_digest(b));
  };
  compare("registry", noted.registry, folded.registry);
  compare("gpu_memory", noted.gpu_memory, folded.gpu_memory);
  compare("checkpoint", noted.checkpoint, folded.checkpoint);
  return absl::DataLossError(
      fmt::format("the state that was served at sequence {} is not the one that the log gives:{}; the log counts: "
                  "the next start serves what it says",
                  noted.sequence, domains));
}

Result<std::uint64_t> write_snapshot(const storage::Log& log, const storage::SnapshotStore& store, const Base& base,
                                     const std::function<bool()>& cancelled) {
  const Result<std::unique_ptr<storage::SnapshotWriter>> writer =
      store.create({log.log_id(), base.state.incarnation(), base.at});
  if (!writer.ok()) return writer.status();
  const absl::Status saved = save_state(base.state, [&](std::string_view page) {
    return cancelled && cancelled() ? cancelled_status() : (*writer)->add(page);
  });
  if (!saved.ok()) return saved;
  return (*writer)->finish();
}

}  // namespace

Result<State> load_snapshot(storage::SnapshotReader& reader, const SessionLimits& limits) {
  Result<State> state = load_state([&reader] { return reader.next(); }, limits);
  if (!state.ok() || state->sequence == reader.head().at.sequence()) return state;
  return absl::DataLossError(
      fmt::format("the snapshot of sequence {} holds the state of {}", reader.head().at.sequence(), state->sequence));
}

Result<Folded> fold(const storage::Log& log, const storage::SnapshotStore& store, const NotedDigest& noted,
                    const std::function<bool()>& cancelled, const SessionLimits& limits) {
  const auto there = store.open(noted.sequence);
  if (there.ok() && (*there)->head().log_id == log.log_id() && load_snapshot(**there, limits).ok()) {
    return Folded{noted.sequence, 0};
  }
  Result<Base> base = find_base(log, store, noted.sequence, limits);
  if (!base.ok()) return base.status();
  if (absl::Status status = advance(log, *base, noted.sequence, cancelled); !status.ok()) return status;
  const NotedDigest folded = noted_digest(base->state);
  if (folded != noted && !deliberate_bug(DeliberateBug::kSnapshotOfWrongSequence)) return contradiction(noted, folded);
  const Result<std::uint64_t> bytes = write_snapshot(log, store, *base, cancelled);
  if (!bytes.ok()) return bytes.status();
  if (absl::Status status = store.prune(); !status.ok()) return status;
  return Folded{noted.sequence, *bytes};
}

absl::Status check_older(const storage::Log& log, const storage::LogPoint& until,
                         const std::function<bool(Sequence verified)>& progress) {
  storage::LogPoint at;
  Sequence seen = 0;
  bool go_on = true;
  absl::Status status = log.check(at, [&](std::span<const std::string_view> records) {
    seen += records.size();
    go_on = progress(seen);
    return go_on && seen < until.sequence();
  });
  if (!status.ok()) return status;
  if (!go_on) return cancelled_status();
  const bool same = at.sequence() == until.sequence() && at.chunk_number == until.chunk_number &&
                    at.frontier.root() == until.frontier.root();
  if (same) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "up to sequence {} the log is not the one of the snapshot there: its Merkle root differs", until.sequence()));
}

}  // namespace tensorforge::service
