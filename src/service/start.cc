#include "service/start.h"

#include <span>
#include <string_view>
#include <utility>

#include "service/fold.h"

namespace tensorforge::service {

void Start::attach(storage::OpenOptions& open) {
  open.load_snapshot = keep_snapshot(loaded_);
  open.take_verified = [this](Sequence first, std::span<const std::string_view> records) {
    if (!replay_ || replay_->next() != first) replay_.emplace(first == 1 ? State() : *std::move(loaded_));
    return replay_->take(records);
  };
}

Result<State> Start::finish(const storage::OpenedDirectory& directory, const ReplayOptions& options) {
  const storage::Log& log = *directory.journal;
  State from;
  // Where a first start begins again, what was replayed is of the database that it set aside.
  if (replay_ && replay_->next() > log.durable_head().sequence + 1) replay_.reset();
  if (replay_) {
    Result<ReplayBeside::Replayed> replayed = replay_->finish();
    if (!replayed.ok()) return replayed.status();
    absl::Status compared = compare_digests(log, replayed->digests, options);
    if (!compared.ok()) return compared;
    from = std::move(replayed->state);
  } else if (directory.snapshot.sequence() > 0) {
    from = *std::move(loaded_);
  }
  return recover_from(std::move(from), log, options);
}

}  // namespace tensorforge::service
