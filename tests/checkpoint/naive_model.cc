#include "tests/checkpoint/naive_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <fmt/format.h>

namespace tensorforge::checkpoint {
namespace {

using enum CheckpointState;

bool has(const CheckpointMeta& meta, const std::string& key) { return meta.metrics.contains(key); }

/// Full before Emergency before Incremental.
int preference(const CheckpointMeta& meta) {
  if (meta.checkpoint_type == CheckpointType::Full) return 0;
  return meta.checkpoint_type == CheckpointType::Emergency ? 1 : 2;
}

}  // namespace

std::size_t NaiveModel::index_of(const std::string& id) const {
  std::size_t i = 0;
  while (i < all_.size() && all_[i].checkpoint_id != id) ++i;
  return i;
}

bool NaiveModel::descends_from(std::size_t descendant, std::size_t ancestor) const {
  if (!all_[descendant].parent_id) return false;
  const std::size_t parent = index_of(*all_[descendant].parent_id);
  return parent == ancestor || descends_from(parent, ancestor);
}

bool NaiveModel::has_live_descendant(const std::string& id) const {
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (all_[i].state != Deleted && descends_from(i, index_of(id))) return true;
  }
  return false;
}

bool NaiveModel::ancestors_complete(std::size_t index) const {
  return !all_[index].parent_id || restorable(index_of(*all_[index].parent_id));
}

bool NaiveModel::restorable(std::size_t index) const {
  return all_[index].state == Complete && ancestors_complete(index);
}

bool NaiveModel::created_later(std::size_t a, std::size_t b) const {
  return all_[a].created_at != all_[b].created_at ? all_[a].created_at > all_[b].created_at : a > b;
}

bool NaiveModel::later(std::size_t a, std::size_t b) const {
  return all_[a].step != all_[b].step ? all_[a].step > all_[b].step : created_later(a, b);
}

bool NaiveModel::better(std::size_t a, std::size_t b, const std::string& key, bool ascending) const {
  const double value_a = all_[a].metrics.at(key);
  const double value_b = all_[b].metrics.at(key);
  if (value_a != value_b) return ascending ? value_a < value_b : value_a > value_b;
  return later(a, b);
}

const GcPolicy& NaiveModel::policy_of(const std::string& run) const {
  static const GcPolicy kAllZero;
  if (policies_.contains(run)) return policies_.at(run);
  return default_policy_ ? *default_policy_ : kAllZero;
}

absl::StatusCode NaiveModel::create(const CreateCheckpointRequest& request, std::uint64_t now,
                                    std::uint32_t incarnation) {
  CheckpointMeta meta;
  meta.checkpoint_id = fmt::format("ck-{:08x}-{}", incarnation, all_.size() + 1);
  meta.training_run_id = request.training_run_id;
  meta.epoch = request.epoch;
  meta.step = request.step;
  meta.checkpoint_type = request.checkpoint_type;
  meta.metrics = request.metrics;
  meta.created_at = now;
  if (request.checkpoint_type == CheckpointType::Incremental) {
    std::optional<std::size_t> parent;
    for (std::size_t i = 0; i < all_.size(); ++i) {
      const bool fits = all_[i].training_run_id == request.training_run_id && all_[i].step <= request.step &&
                        all_[i].epoch <= request.epoch && restorable(i);
      if (fits && (!parent || later(i, *parent))) parent = i;
    }
    if (!parent) return absl::StatusCode::kFailedPrecondition;
    meta.parent_id = all_[*parent].checkpoint_id;
  }
  all_.push_back(meta);
  return absl::StatusCode::kOk;
}

absl::StatusCode NaiveModel::complete(const std::string& id, std::uint64_t size_bytes, const std::string& path) {
  const std::size_t i = index_of(id);
  if (i == all_.size()) return absl::StatusCode::kNotFound;
  if (all_[i].state != Creating || !ancestors_complete(i)) return absl::StatusCode::kFailedPrecondition;
  all_[i].state = Complete;
  all_[i].size_bytes = size_bytes;
  all_[i].storage_path = path;
  return absl::StatusCode::kOk;
}

absl::StatusCode NaiveModel::corrupt(const std::string& id) {
  const std::size_t i = index_of(id);
  if (i == all_.size()) return absl::StatusCode::kNotFound;
  if (all_[i].state != Creating && all_[i].state != Complete) return absl::StatusCode::kFailedPrecondition;
  all_[i].state = Corrupted;
  return absl::StatusCode::kOk;
}

absl::StatusCode NaiveModel::remove(const std::string& id) {
  const std::size_t i = index_of(id);
  if (i == all_.size()) return absl::StatusCode::kNotFound;
  if (all_[i].state == Deleted || has_live_descendant(id)) return absl::StatusCode::kFailedPrecondition;
  all_[i].state = Deleted;
  return absl::StatusCode::kOk;
}

void NaiveModel::set_policy(const std::optional<std::string>& run, const GcPolicy& policy) {
  if (run) {
    policies_[*run] = policy;
  } else if (policy != default_policy_.value_or(GcPolicy{})) {
    default_policy_ = policy;
  }
}

std::vector<bool> NaiveModel::protected_of(const std::string& run) const {
  const GcPolicy& policy = policy_of(run);
  std::vector<bool> is_protected(all_.size());
  std::optional<std::size_t> latest, newest;
  std::vector<std::size_t> ranked;
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (all_[i].training_run_id != run) continue;
    if (all_[i].state == Creating) is_protected[i] = true;
    if (!restorable(i)) continue;
    if (!latest || later(i, *latest)) latest = i;
    if (!newest || created_later(i, *newest)) newest = i;
    if (!policy.metric_key.empty() && has(all_[i], policy.metric_key)) ranked.push_back(i);
  }
  if (latest) is_protected[*latest] = is_protected[*newest] = true;
  std::sort(ranked.begin(), ranked.end(),
            [&](std::size_t a, std::size_t b) { return better(a, b, policy.metric_key, policy.metric_ascending); });
  for (std::size_t i = 0; i < ranked.size() && i < policy.keep_best_n; ++i) is_protected[ranked[i]] = true;
  const std::vector<bool> themselves = is_protected;
  for (std::size_t i = 0; i < all_.size(); ++i) {
    for (std::size_t j = 0; j < all_.size(); ++j) {
      if (themselves[j] && descends_from(j, i)) is_protected[i] = true;
    }
  }
  return is_protected;
}

std::vector<std::string> NaiveModel::gc_run(const std::string& run, std::uint64_t now) {
  const GcPolicy policy = policy_of(run);
  const std::vector<bool> is_protected = protected_of(run);
  std::uint64_t latest_step = 0;
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (all_[i].training_run_id == run && restorable(i)) latest_step = std::max(latest_step, all_[i].step);
  }
  const auto lowest_removable = [&](const auto& also) {
    std::optional<std::size_t> lowest;
    for (std::size_t i = 0; i < all_.size(); ++i) {
      const CheckpointMeta& meta = all_[i];
      if (meta.training_run_id != run || meta.state == Deleted || is_protected[i]) continue;
      if (!also(meta) || has_live_descendant(meta.checkpoint_id)) continue;
      if (!lowest || later(*lowest, i)) lowest = i;
    }
    return lowest;
  };
  const auto complete_count = [&] {
    return std::count_if(all_.begin(), all_.end(), [&](const CheckpointMeta& meta) {
      return meta.training_run_id == run && meta.state == Complete;
    });
  };
  std::vector<std::size_t> gone;
  const auto take = [&](std::size_t i) {
    all_[i].state = Deleted;
    gone.push_back(i);
  };
  for (std::size_t before = gone.size() + 1; before != gone.size();) {
    before = gone.size();
    const auto eligible = [&](const CheckpointMeta& meta) {
      return is_gc_eligible(meta, policy, latest_step, now, false);
    };
    while (const auto i = lowest_removable(eligible)) take(*i);
    const auto is_complete = [](const CheckpointMeta& meta) { return meta.state == Complete; };
    while (policy.max_checkpoints_per_run > 0 &&
           static_cast<std::size_t>(complete_count()) > policy.max_checkpoints_per_run) {
      const auto i = lowest_removable(is_complete);
      if (!i) break;
      take(*i);
    }
  }
  std::sort(gone.begin(), gone.end(), [&](std::size_t a, std::size_t b) { return later(a, b); });
  std::vector<std::string> ids;
  for (const std::size_t i : gone) ids.push_back(all_[i].checkpoint_id);
  return ids;
}

std::vector<std::string> NaiveModel::gc(std::uint64_t now) {
  std::set<std::string> runs;
  for (const CheckpointMeta& meta : all_) runs.insert(meta.training_run_id);
  std::vector<std::string> gone;
  for (const std::string& run : runs) {
    const std::vector<std::string> of_run = gc_run(run, now);
    gone.insert(gone.end(), of_run.begin(), of_run.end());
  }
  return gone;
}

std::optional<CheckpointMeta> NaiveModel::find_restore_point(const RestoreCriteria& criteria) const {
  std::optional<std::size_t> best;
  const auto is_better = [&](std::size_t a, std::size_t b) {
    const CheckpointMeta& x = all_[a];
    const CheckpointMeta& y = all_[b];
    if ((x.state == Complete) != (y.state == Complete)) return x.state == Complete;
    if (criteria.prefer_full && preference(x) != preference(y)) return preference(x) < preference(y);
    if (x.step != y.step) return x.step > y.step;
    if (x.parent_id.has_value() != y.parent_id.has_value()) return !x.parent_id;
    return created_later(a, b);
  };
  for (std::size_t i = 0; i < all_.size(); ++i) {
    const CheckpointMeta& meta = all_[i];
    if (meta.training_run_id != criteria.training_run_id || meta.state == Deleted || meta.state == Corrupted) continue;
    if (criteria.max_epoch && meta.epoch > *criteria.max_epoch) continue;
    if (criteria.max_step && meta.step > *criteria.max_step) continue;
    if (criteria.require_complete && meta.state != Complete) continue;
    if (!ancestors_complete(i)) continue;
    if (!best || is_better(i, *best)) best = i;
  }
  return best ? std::optional(all_[*best]) : std::nullopt;
}

std::optional<CheckpointMeta> NaiveModel::latest(const std::string& run) const {
  std::optional<std::size_t> latest;
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (all_[i].training_run_id != run || all_[i].state != Complete) continue;
    if (!latest || later(i, *latest)) latest = i;
  }
  return latest ? std::optional(all_[*latest]) : std::nullopt;
}

std::vector<CheckpointMeta> NaiveModel::list(const std::string& run) const {
  std::vector<std::size_t> indexes;
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (all_[i].training_run_id == run && all_[i].state != Deleted) indexes.push_back(i);
  }
  std::sort(indexes.begin(), indexes.end(), [this](std::size_t a, std::size_t b) { return later(b, a); });
  std::vector<CheckpointMeta> found;
  for (const std::size_t i : indexes) found.push_back(all_[i]);
  return found;
}

std::vector<CheckpointMeta> NaiveModel::find_by_metric(const std::string& run, const std::string& key, double threshold,
                                                       bool ascending) const {
  std::vector<std::size_t> indexes;
  for (std::size_t i = 0; i < all_.size(); ++i) {
    const CheckpointMeta& meta = all_[i];
    if (meta.training_run_id != run || meta.state != Complete || !has(meta, key)) continue;
    const double value = meta.metrics.at(key);
    if (ascending ? value <= threshold : value >= threshold) indexes.push_back(i);
  }
  std::sort(indexes.begin(), indexes.end(), [&](std::size_t a, std::size_t b) { return better(a, b, key, ascending); });
  std::vector<CheckpointMeta> found;
  for (const std::size_t i : indexes) found.push_back(all_[i]);
  return found;
}

std::size_t NaiveModel::total_count() const {
  return static_cast<std::size_t>(
      std::count_if(all_.begin(), all_.end(), [](const CheckpointMeta& meta) { return meta.state != Deleted; }));
}

std::uint64_t NaiveModel::total_size() const {
  std::uint64_t sum = 0;
  for (const CheckpointMeta& meta : all_) {
    if (meta.state == Deleted) continue;
    sum = meta.size_bytes > std::numeric_limits<std::uint64_t>::max() - sum ? std::numeric_limits<std::uint64_t>::max()
                                                                            : sum + meta.size_bytes;
  }
  return sum;
}

Digest NaiveModel::digest() const {
  Digest sum;
  for (const CheckpointMeta& meta : all_) {
    CanonicalBytes bytes("checkpoint");
    bytes.text(meta.checkpoint_id).text(meta.training_run_id).number(meta.epoch).number(meta.step);
    bytes.number(static_cast<std::uint64_t>(meta.checkpoint_type)).number(static_cast<std::uint64_t>(meta.state));
    bytes.number(meta.size_bytes).number(meta.created_at).number(meta.parent_id.has_value());
    if (meta.parent_id) bytes.text(*meta.parent_id);
    bytes.number(meta.metrics.size());
    for (const auto& [key, value] : meta.metrics) bytes.text(key).real(value);
    sum += bytes.text(meta.storage_path).digest();
  }
  const auto add_policy = [&sum](const std::string* run, const GcPolicy& policy) {
    CanonicalBytes bytes("policy");
    bytes.number(run != nullptr);
    if (run != nullptr) bytes.text(*run);
    bytes.number(policy.max_checkpoints_per_run).number(policy.max_age_seconds).number(policy.keep_best_n);
    sum += bytes.text(policy.metric_key).number(policy.metric_ascending).digest();
  };
  if (default_policy_) add_policy(nullptr, *default_policy_);
  for (const auto& [run, policy] : policies_) add_policy(&run, policy);
  return sum;
}

}  // namespace tensorforge::checkpoint
