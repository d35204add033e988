#include <iterator>

#include "registry/state_machine.h"

namespace tensorforge::registry {

const State::Versions* State::versions(std::string_view model_id) const {
  const auto found = by_id_.find(model_id);
  return found == by_id_.end() ? nullptr : &(*found)->second;
}

const State::Entry* State::last_at(const VersionKey& key) const {
  auto model = models_.upper_bound(key.model_id);
  if (model == models_.begin()) return nullptr;
  --model;
  if (model->first != key.model_id) return &model->second.rbegin()->second;
  const auto version = model->second.upper_bound(key.version);
  if (version != model->second.begin()) return &std::prev(version)->second;
  return model == models_.begin() ? nullptr : &std::prev(model)->second.rbegin()->second;
}

const State::Entry* State::entry(std::string_view model_id, const ModelVersion& version) const {
  const Versions* all = versions(model_id);
  if (all == nullptr) return nullptr;
  const auto found = all->find(version);
  return found == all->end() ? nullptr : &found->second;
}

const ModelMetadata* State::find(std::string_view model_id, const ModelVersion& version) const {
  const Entry* found = entry(model_id, version);
  return found == nullptr ? nullptr : &found->model;
}

const ModelMetadata* State::latest(std::string_view model_id) const {
  const Versions* all = versions(model_id);
  return all == nullptr ? nullptr : &all->rbegin()->second.model;  // a model without versions is not kept
}

const ValidationResult* State::validation(std::string_view model_id, const ModelVersion& version) const {
  const Entry* found = entry(model_id, version);
  return found == nullptr ? nullptr : found->validation.get();
}

std::vector<const ModelMetadata*> State::list(const std::optional<VersionKey>& after, std::size_t limit) const {
  std::vector<const ModelMetadata*> page;
  auto model = after ? models_.lower_bound(after->model_id) : models_.begin();
  for (; model != models_.end() && page.size() < limit; ++model) {
    const Versions& all = model->second;
    auto version = after && model->first == after->model_id ? all.upper_bound(after->version) : all.begin();
    for (; version != all.end() && page.size() < limit; ++version) page.push_back(&version->second.model);
  }
  return page;
}

std::vector<const ModelMetadata*> State::list_versions(std::string_view model_id,
                                                       const std::optional<ModelVersion>& after,
                                                       std::size_t limit) const {
  std::vector<const ModelMetadata*> page;
  const Versions* all = versions(model_id);
  if (all == nullptr) return page;
  auto version = after ? all->upper_bound(*after) : all->begin();
  for (; version != all->end() && page.size() < limit; ++version) page.push_back(&version->second.model);
  return page;
}

std::vector<const ModelMetadata*> State::find_by_state(DeploymentState state, const std::optional<VersionKey>& after,
                                                       std::size_t limit) const {
  if (static_cast<std::size_t>(state) >= kDeploymentStates) return {};
  return list_.page(state, after ? last_at(*after) : nullptr, limit);
}

std::size_t State::model_count() const { return models_.size(); }

std::size_t State::version_count() const { return version_count_; }

Digest State::digest() const { return digest_; }

}  // namespace tensorforge::registry
