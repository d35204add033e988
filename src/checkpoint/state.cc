#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "checkpoint/projection.h"
#include "checkpoint/state_machine.h"
#include "platform/names.h"

namespace tensorforge::checkpoint {
namespace {

constexpr std::uint64_t kAnyStep = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint32_t kAnyEpoch = std::numeric_limits<std::uint32_t>::max();

std::optional<CheckpointMeta> meta_or_none(const Node* node) {
  return node == nullptr ? std::nullopt : std::optional(meta_of(*node));
}

/// The checkpoint behind which a page begins; nullptr: there is no such checkpoint in the run.
const Node* find_in_run(const Projection& projection, const Run& run, std::string_view checkpoint_id) {
  const Node* const node = projection.find(checkpoint_id);
  return node != nullptr && node->run == &run ? node : nullptr;
}

/// Among candidates of equal rank but for these factors: the later step, then no parent, then the later creation.
bool is_worse_restore_point(const Node* a, const Node* b) {
  const auto factors = [](const Node& node) {
    return std::tuple(node.step, node.parent == nullptr, creation_of(node));
  };
  return factors(*a) < factors(*b);
}

const Node* best_restore_point(const IndexByType& index, const RestoreCriteria& criteria) {
  constexpr CheckpointType kByPreference[] = {CheckpointType::Full, CheckpointType::Emergency,
                                              CheckpointType::Incremental};
  const Node* best = nullptr;
  for (const CheckpointType type : kByPreference) {
    const Node* const last = index[static_cast<std::size_t>(type)].last(criteria.max_step.value_or(kAnyStep),
                                                                        criteria.max_epoch.value_or(kAnyEpoch));
    if (best == nullptr || (last != nullptr && is_worse_restore_point(best, last))) best = last;
    if (best != nullptr && criteria.prefer_full) break;
  }
  return best;
}

}  // namespace

State::State() : projection_(std::make_unique<Projection>()) {}
State::~State() = default;
State::State(State&&) noexcept = default;
State& State::operator=(State&&) noexcept = default;

std::optional<CheckpointMeta> State::find(std::string_view checkpoint_id) const {
  return meta_or_none(projection_->find(checkpoint_id));
}

const std::string* State::run_of(std::string_view checkpoint_id) const {
  const Node* const node = projection_->find(checkpoint_id);
  return node == nullptr ? nullptr : &node->run->id;
}

bool State::has_run(std::string_view training_run_id) const {
  return projection_->find_run(training_run_id) != nullptr;
}

std::optional<CheckpointMeta> State::find_restore_point(const RestoreCriteria& criteria) const {
  const Run* const run = projection_->find_run(criteria.training_run_id);
  if (run == nullptr) return std::nullopt;
  const Node* best = best_restore_point(run->restorable, criteria);
  if (best == nullptr && !criteria.require_complete) best = best_restore_point(run->pending, criteria);
  return meta_or_none(best);
}

std::optional<CheckpointMeta> State::latest(std::string_view training_run_id) const {
  const Run* const run = projection_->find_run(training_run_id);
  if (run == nullptr) return std::nullopt;
  const Node* const restorable = latest_restorable(*run);
  const Node* const chainless = run->chainless.last(kAnyStep, kAnyEpoch);
  if (restorable == nullptr || chainless == nullptr)
    return meta_or_none(restorable == nullptr ? chainless : restorable);
  return meta_of(*std::max(restorable, chainless, ByPlace()));
}

std::vector<CheckpointMeta> State::list_for_run(std::string_view training_run_id,
                                                const std::optional<std::string>& after_id, std::size_t limit) const {
  const Run* const run = projection_->find_run(training_run_id);
  if (run == nullptr) return {};
  auto at = run->live.begin();
  if (after_id) {
    const Node* const after = find_in_run(*projection_, *run, *after_id);
    if (after == nullptr) return {};
    at = run->live.upper_bound(after);
  }
  std::vector<CheckpointMeta> page;
  for (; at != run->live.end() && page.size() < limit; ++at) page.push_back(meta_of(**at));
  return page;
}

std::vector<CheckpointMeta> State::find_by_metric(std::string_view training_run_id, std::string_view metric_key,
                                                  double threshold, bool ascending,
                                                  const std::optional<std::string>& after_id, std::size_t limit) const {
  const Run* const run = projection_->find_run(training_run_id);
  if (run == nullptr || std::isnan(threshold)) return {};
  const auto index = run->by_metric.find(metric_key);
  if (index == run->by_metric.end()) return {};
  std::optional<MetricIndex::Entry> after;
  if (after_id) {
    const Node* const node = find_in_run(*projection_, *run, *after_id);
    if (node == nullptr) return {};
    const auto metric = node->metrics.find(std::string(metric_key));
    if (metric == node->metrics.end()) return {};
    after = {metric->second, node->step, node};
  }
  std::vector<CheckpointMeta> page;
  index->second.best_first(ascending, after, [&](const MetricIndex::Entry& entry) {
    if (page.size() == limit || (ascending ? entry.value > threshold : entry.value < threshold)) return false;
    page.push_back(meta_of(*entry.node));
    return true;
  });
  return page;
}

std::vector<CheckpointMeta> State::restoration_chain(std::string_view checkpoint_id) const {
  std::vector<CheckpointMeta> chain;
  for (const Node* at = projection_->find(checkpoint_id); at != nullptr; at = at->parent) chain.push_back(meta_of(*at));
  std::reverse(chain.begin(), chain.end());
  return chain;
}

absl::Status State::validate(std::string_view checkpoint_id) const {
  const std::vector<CheckpointMeta> chain = restoration_chain(checkpoint_id);
  if (chain.empty()) {
    return absl::NotFoundError(fmt::format("checkpoint {} does not exist", names::quoted(checkpoint_id)));
  }
  return validate_checkpoint(chain.back(), chain);
}

std::optional<GcPolicy> State::policy(std::string_view training_run_id) const {
  const auto own = projection_->policies.find(training_run_id);
  return own == projection_->policies.end() ? std::nullopt : std::optional(own->second);
}

const GcPolicy& State::default_policy() const {
  static const GcPolicy kAllZero;
  return projection_->default_policy ? *projection_->default_policy : kAllZero;
}

std::size_t State::total_count() const { return projection_->live_count; }

std::uint64_t State::total_size() const {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  return projection_->live_bytes > kMax ? kMax : absl::Uint128Low64(projection_->live_bytes);
}

Digest State::digest() const { return projection_->digest; }

}  // namespace tensorforge::checkpoint
