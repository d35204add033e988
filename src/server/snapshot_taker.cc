#include "server/snapshot_taker.h"

#include <algorithm>
#include <string>
#include <utility>

#include <asio/post.hpp>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "platform/resilience.h"
#include "server/system.h"

namespace tensorforge::server {
namespace {

/// At a clean stop a fold is cheap up to so many events and entities, which take about a second, and not worth it for
/// fewer events than this.
constexpr std::uint64_t kCheap = 250'000;
constexpr std::uint64_t kWorthIt = service::kNotedDigestInterval;

/// From `last` on. Fewer events than there are entities are replayed sooner than a snapshot is written.
bool is_due(std::uint64_t events, std::uint64_t live_entities, Sequence last, Sequence at) {
  const std::uint64_t interval = events == 0 ? 0 : std::max(events, live_entities);
  return resilience::CheckpointManager(interval).should_checkpoint(last, at);
}

}  // namespace

SnapshotTaker::SnapshotTaker(SnapshotOptions options, storage::Journal& journal)
    : options_(std::move(options)), journal_(journal), newest_(options_.newest) {}

SnapshotTaker::~SnapshotTaker() { end(); }

void SnapshotTaker::end() {
  ending_ = true;
  thread_.stop();  // what has not begun is nobody's any more
  thread_.join();
}

void SnapshotTaker::consider(const service::NotedDigest& noted, std::uint64_t live_entities, Done done) {
  const Sequence last = std::max<Sequence>(newest_, given_up_);
  if (asked_for_ == 0 && is_due(options_.events, live_entities, last, noted.sequence)) take(noted, std::move(done));
}

void SnapshotTaker::take(const service::NotedDigest& noted, Done done) {
  ++asked_for_;
  asio::post(thread_, [this, noted, done = std::move(done)] {
    work_in_background();
    Result<service::Folded> folded = fold(noted);
    --asked_for_;
    done(std::move(folded));
  });
}

std::optional<Result<service::Folded>> SnapshotTaker::take_at_stop(const service::NotedDigest& noted,
                                                                   std::uint64_t live_entities) {
  end();
  ending_ = false;  // no other is under way any more
  const bool is_worth_it = is_due(std::min(options_.events, kWorthIt), 0, newest_, noted.sequence);
  if (!is_worth_it || noted.sequence - newest_ + live_entities > kCheap) return std::nullopt;
  return fold(noted);
}

Result<service::Folded> SnapshotTaker::fold(const service::NotedDigest& noted) {
  service::FoldOptions fold;
  fold.may_go_on = [this] { return may_go_on(); };
  fold.warn = [](std::string_view warning) { spdlog::warn("{}", warning); };
  const absl::Status begin = may_go_on();
  Result<service::Folded> folded =
      begin.ok() ? service::fold(journal_, options_.store, noted, fold) : Result<service::Folded>(begin);
  if (folded.ok()) newest_ = std::max<Sequence>(newest_, folded->sequence);
  if (absl::IsResourceExhausted(folded.status())) given_up_ = noted.sequence;
  return folded;
}

absl::Status SnapshotTaker::may_go_on() const {
  if (ending_) return absl::CancelledError("the service stops");
  if (options_.memory_limit_bytes > 0) {
    const std::uint64_t bytes = resident_bytes();
    if (bytes > options_.memory_limit_bytes) {
      return absl::ResourceExhaustedError(
          fmt::format("the process takes {} bytes of memory, over the memory_limit of {} for taking snapshots: raise "
                      "it, or do without",
                      bytes, options_.memory_limit_bytes));
    }
  }
  journal_.refresh_free_bytes();
  if (journal_.free_bytes() >= options_.reserve_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(fmt::format("{} bytes are free on the disk, under the reserve of {}: free some",
                                                  journal_.free_bytes(), options_.reserve_bytes));
}

}  // namespace tensorforge::server
