#include "checkpoint/gc.h"

#include <cstddef>
#include <optional>
#include <queue>
#include <unordered_map>
#include <vector>

namespace tensorforge::checkpoint {
namespace {

bool is_older_than(std::uint64_t created_at, std::uint64_t max_age_seconds, std::uint64_t now) {
  if (now <= created_at) return false;  // a clock behind the creation is age 0
  const std::uint64_t age_ms = now - created_at;
  const std::uint64_t seconds = age_ms / 1000;
  return seconds > max_age_seconds || (seconds == max_age_seconds && age_ms % 1000 != 0);
}

std::uint64_t latest_restorable_step(const Run& run) {
  const Node* const latest = latest_restorable(run);
  return latest == nullptr ? 0 : latest->step;
}

/// One collection of one run: the contract's rules over its live checkpoints, which are known here by their rank in
/// (step, created_at), so that "the lowest" is the smallest number.
class Collection {
 public:
  Collection(const Run& run, const GcPolicy& policy, std::uint64_t now)
      : run_(run), policy_(policy), now_(now), latest_step_(latest_restorable_step(run)) {}

  bool may_delete() const {
    return run_.corrupted_count > 0 || is_over_limit(run_.complete_count) ||
           (policy_.max_age_seconds > 0 &&
            std::any_of(run_.live.begin(), run_.live.end(), [this](const Node* node) { return is_eligible(*node); }));
  }

  bool run(const std::function<bool(const Node&)>& take) {
    load();
    protect_all();
    for (std::size_t rank = 0; rank < entries_.size(); ++rank) offer(rank);
    // A count may free an outlived parent, and an outlived child a Complete parent: both, until neither goes on.
    while (!eligible_.empty() || (is_over_limit(complete_count_) && !complete_.empty())) {
      while (!eligible_.empty()) {
        if (!remove_lowest(eligible_, take)) return false;
      }
      while (is_over_limit(complete_count_) && !complete_.empty()) {
        if (!remove_lowest(complete_, take)) return false;
      }
    }
    return true;
  }

 private:
  struct Entry {
    const Node* node;
    std::size_t live_children{};
    bool is_protected{}, is_gone{};
  };
  using LowestFirst = std::priority_queue<std::size_t, std::vector<std::size_t>, std::greater<>>;

  bool is_over_limit(std::size_t complete_count) const {
    return policy_.max_checkpoints_per_run > 0 && complete_count > policy_.max_checkpoints_per_run;
  }
  bool is_eligible(const Node& node) const {
    return is_outlived(node.state, node.step, node.created_at, policy_, latest_step_, now_, /*is_best=*/false);
  }

  void load() {
    complete_count_ = run_.complete_count;
    entries_.reserve(run_.live.size());
    ranks_.reserve(run_.live.size());
    for (const Node* node : run_.live) {
      ranks_[node] = entries_.size();
      entries_.push_back({node});
    }
    for (const Node* node : run_.live) {
      if (node->parent != nullptr) ++entry_of(*node->parent).live_children;
    }
  }

  void protect_all() {
    const Node *last = nullptr, *newest = nullptr;  // of those that can be restored
    for (const Entry& entry : entries_) {
      if (entry.node->state == CheckpointState::Creating) protect(*entry.node);
      if (!entry.node->is_restorable()) continue;
      last = entry.node;
      if (newest == nullptr || creation_of(*newest) < creation_of(*entry.node)) newest = entry.node;
    }
    if (last == nullptr) return;
    protect(*last);
    protect(*newest);
    protect_best();
  }

  void protect_best() {
    if (policy_.metric_key.empty() || policy_.keep_best_n == 0) return;
    const auto index = run_.by_metric.find(policy_.metric_key);
    if (index == run_.by_metric.end()) return;
    std::size_t left = policy_.keep_best_n;
    index->second.best_first(policy_.metric_ascending, std::nullopt, [&](const MetricIndex::Entry& entry) {
      if (!entry.node->is_restorable()) return true;
      protect(*entry.node);
      return --left > 0;
    });
  }

  /// With its ancestors. Those of a protected one are protected already.
  void protect(const Node& node) {
    for (const Node* at = &node; at != nullptr && !entry_of(*at).is_protected; at = at->parent) {
      entry_of(*at).is_protected = true;
    }
  }

  /// To the queues, if it is removable now.
  void offer(std::size_t rank) {
    const Entry& entry = entries_[rank];
    if (entry.is_protected || entry.live_children > 0) return;
    if (is_eligible(*entry.node)) eligible_.push(rank);
    if (entry.node->state == CheckpointState::Complete) complete_.push(rank);
  }

  bool remove_lowest(LowestFirst& queue, const std::function<bool(const Node&)>& take) {
    Entry& entry = entries_[queue.top()];
    queue.pop();
    if (entry.is_gone) return true;  // through the other queue
    if (!take(*entry.node)) return false;
    entry.is_gone = true;
    if (entry.node->state == CheckpointState::Complete) --complete_count_;
    if (entry.node->parent == nullptr) return true;
    const std::size_t parent_rank = ranks_.at(entry.node->parent);
    --entries_[parent_rank].live_children;
    offer(parent_rank);
    return true;
  }

  Entry& entry_of(const Node& node) { return entries_[ranks_.at(&node)]; }

  const Run& run_;
  const GcPolicy& policy_;
  const std::uint64_t now_;
  const std::uint64_t latest_step_;
  std::size_t complete_count_{};
  std::vector<Entry> entries_;                          ///< by rank
  std::unordered_map<const Node*, std::size_t> ranks_;  ///< looked up only, never gone through
  LowestFirst eligible_, complete_;                     ///< removable ones, each offered once
};

}  // namespace

bool is_outlived(CheckpointState state, std::uint64_t step, std::uint64_t created_at, const GcPolicy& policy,
                 std::uint64_t latest_step, std::uint64_t now, bool is_best) {
  if (state == CheckpointState::Creating || state == CheckpointState::Deleted) return false;
  if (state == CheckpointState::Corrupted) return true;
  if (is_best || step >= latest_step) return false;
  return policy.max_age_seconds > 0 && is_older_than(created_at, policy.max_age_seconds, now);
}

bool is_gc_eligible(const CheckpointMeta& checkpoint, const GcPolicy& policy, std::uint64_t latest_step,
                    std::uint64_t now, bool is_best) {
  return is_outlived(checkpoint.state, checkpoint.step, checkpoint.created_at, policy, latest_step, now, is_best);
}

bool collect_run(const Run& run, const GcPolicy& policy, std::uint64_t now,
                 const std::function<bool(const Node&)>& take) {
  Collection collection(run, policy, now);
  return !collection.may_delete() || collection.run(take);
}

}  // namespace tensorforge::checkpoint
