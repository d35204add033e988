#include "service/fold.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "platform/deliberate_bug.h"
#include "service/recover.h"
#include "service/snapshot.h"
#include "storage/chunk_reader.h"

namespace tensorforge::service {
namespace {

/// Where a fold begins.
struct Base {
  State state;
  storage::LogPoint at;
};

std::string text(const absl::Status& status) { return std::string(status.message()); }

absl::Status ask(const MayGoOn& may_go_on) { return may_go_on ? may_go_on() : absl::OkStatus(); }

/// Says no for ever once it has said so: what was told to end does not go on in another way.
MayGoOn for_good(const MayGoOn& may_go_on, absl::Status& answer) {
  return [&] {
    if (answer.ok()) answer = ask(may_go_on);
    return answer;
  };
}

/// A snapshot of this very log that holds together. `at` is where it says that it lies.
Result<Base> load_base(const storage::Log& log, const storage::SnapshotStore& store, Sequence sequence,
                       const FoldOptions& options) {
  const Result<std::unique_ptr<storage::SnapshotReader>> reader = store.open(sequence);
  if (!reader.ok()) return reader.status();
  if ((*reader)->head().log_id != log.log_id()) return absl::DataLossError("it is of another log");
  Result<State> state = load_snapshot(**reader, options.limits, options.may_go_on);
  if (!state.ok()) return state.status();
  return Base{*std::move(state), (*reader)->head().at};
}

Base start_of_log(const FoldOptions& options) {
  Base start;
  start.state.sessions = Sessions(options.limits);
  return start;
}

void warn(const FoldOptions& options, Sequence sequence, const absl::Status& why) {
  if (options.warn) options.warn(fmt::format("snapshot {} is passed over: {}", sequence, text(why)));
}

/// The newest snapshot of this log before `end` that can be loaded; the start of the log where there is none.
Result<Base> find_base(const storage::Log& log, const storage::SnapshotStore& store, Sequence end,
                       const FoldOptions& options) {
  const Result<std::vector<Sequence>> all = store.list();
  if (!all.ok()) return all.status();
  for (auto sequence = all->rbegin(); sequence != all->rend(); ++sequence) {
    if (*sequence >= end) continue;
    Result<Base> base = load_base(log, store, *sequence, options);
    if (base.ok()) return base;
    if (absl::Status status = ask(options.may_go_on); !status.ok()) return status;
    warn(options, *sequence, base.status());
  }
  return start_of_log(options);
}

/// Moves `base` up to `end`.
absl::Status advance(const storage::Log& log, Base& base, Sequence end, const FoldOptions& options) {
  ReplayOptions replay;
  replay.until = deliberate_bug(DeliberateBug::kSnapshotOfWrongSequence) ? end - 1 : end;
  absl::Status asked;
  replay.progress = [&](Sequence, Sequence) {
    asked = ask(options.may_go_on);
    return asked.ok();
  };
  const auto scan = [&](const storage::VisitRecords& visit) {
    Sequence seen = base.at.sequence();
    return log.check(base.at, [&](std::span<const std::string_view> records) {
      seen += records.size();
      return visit(records) && seen < end;
    });
  };
  Result<State> state = replay_log(std::move(base.state), log, scan, replay);
  if (!asked.ok()) return asked;
  if (absl::IsDataLoss(state.status())) {
    return absl::DataLossError(fmt::format("the log does not verify: {}: {}", text(state.status()), storage::kRemedy));
  }
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

/// Moves `base` up to where the digest was noted, and compares.
absl::Status prove(const storage::Log& log, Base& base, const NotedDigest& noted, const FoldOptions& options) {
  if (absl::Status status = advance(log, base, noted.sequence, options); !status.ok()) return status;
  const NotedDigest folded = noted_digest(base.state);
  const bool unseen = deliberate_bug(DeliberateBug::kSnapshotOfWrongSequence);
  return folded == noted || unseen ? absl::OkStatus() : contradiction(noted, folded);
}

Result<std::uint64_t> write_snapshot(const storage::Log& log, const storage::SnapshotStore& store, const Base& base,
                                     const FoldOptions& options) {
  const Result<std::unique_ptr<storage::SnapshotWriter>> writer =
      store.create({log.log_id(), base.state.incarnation(), base.at});
  if (!writer.ok()) return writer.status();
  const absl::Status saved = save_state(base.state, [&](std::string_view page) {
    absl::Status status = ask(options.may_go_on);
    return status.ok() ? (*writer)->add(page) : status;
  });
  if (!saved.ok()) return saved;
  return (*writer)->finish();
}

/// A file that cannot be written says nothing about the log.
absl::Status disk_failed(const absl::Status& why) {
  return absl::IsDataLoss(why) ? absl::UnavailableError(text(why)) : why;
}

/// Whether the snapshot is there, and whole.
bool is_there(const storage::Log& log, const storage::SnapshotStore& store, const NotedDigest& noted,
              const FoldOptions& options) {
  const Result<Base> there = load_base(log, store, noted.sequence, options);
  return there.ok() && noted_digest(there->state) == noted;
}

}  // namespace

Result<State> load_snapshot(storage::SnapshotReader& reader, const SessionLimits& limits, const MayGoOn& may_go_on) {
  const auto next = [&]() -> Result<std::optional<std::string_view>> {
    if (absl::Status status = ask(may_go_on); !status.ok()) return status;
    return reader.next();
  };
  Result<State> state = load_state(next, limits);
  if (!state.ok() || state->sequence == reader.head().at.sequence()) return state;
  return absl::DataLossError(
      fmt::format("the snapshot of sequence {} holds the state of {}", reader.head().at.sequence(), state->sequence));
}

std::function<absl::Status(storage::SnapshotReader&)> keep_snapshot(std::optional<State>& loaded) {
  return [&loaded](storage::SnapshotReader& reader) {
    Result<State> state = load_snapshot(reader);
    if (!state.ok()) return state.status();
    loaded = *std::move(state);
    return absl::OkStatus();
  };
}

Result<Folded> fold(const storage::Log& log, const storage::SnapshotStore& store, const NotedDigest& noted,
                    const FoldOptions& given) {
  absl::Status asked;
  FoldOptions options = given;
  options.may_go_on = for_good(given.may_go_on, asked);
  if (is_there(log, store, noted, options)) {
    const Result<std::uint64_t> bytes = store.bytes(noted.sequence);
    if (!bytes.ok()) return disk_failed(bytes.status());
    return Folded{noted.sequence, *bytes, false};
  }
  Result<Base> base = find_base(log, store, noted.sequence, options);
  if (!base.ok()) return disk_failed(base.status());
  const Sequence from = base->at.sequence();
  absl::Status proved = prove(log, *base, noted, options);
  if (absl::IsDataLoss(proved) && from > 0) {
    warn(options, from, proved);
    *base = start_of_log(options);
    proved = prove(log, *base, noted, options);
  }
  if (!proved.ok()) return proved;
  const Result<std::uint64_t> bytes = write_snapshot(log, store, *base, options);
  if (!bytes.ok() && asked.ok()) return disk_failed(bytes.status());
  const absl::Status pruned = store.prune();  // of what was not finished, too
  if (!bytes.ok()) return bytes.status();
  if (!pruned.ok()) return disk_failed(pruned);
  return Folded{noted.sequence, *bytes, true};
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
  if (!go_on) return absl::CancelledError("the check was cancelled");
  const bool same = at.sequence() == until.sequence() && at.chunk_number == until.chunk_number &&
                    at.frontier.root() == until.frontier.root();
  if (same) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "up to sequence {} the log is not the one of the snapshot there: its Merkle root differs", until.sequence()));
}

}  // namespace tensorforge::service
