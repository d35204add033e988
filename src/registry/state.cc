#include <iterator>

#include "registry/state_machine.h"

namespace tensorforge::registry {
namespace {

/// Of most models and versions; what lies behind it is waited for.
constexpr std::size_t kUsualModelBytes = 128, kUsualVersionBytes = 384;

std::optional<ModelView> view_of(const StoredVersion* version) {
  return version == nullptr ? std::nullopt : std::optional(version->view());
}

}  // namespace

StoredModel* State::model(std::string_view model_id) const { return by_id_.find(model_id); }

StoredVersion* State::version(std::string_view model_id, const ModelVersion& version) const {
  const StoredModel* of = model(model_id);
  if (of == nullptr || of->newest->version < version) return nullptr;
  if (of->newest->version == version) return of->newest;
  return older_.find({of, version});
}

const StoredVersion* State::last_before(Models::const_iterator next) const {
  return next == models_.begin() ? nullptr : (*std::prev(next))->newest;
}

const StoredVersion* State::last_at(const VersionKey& key) const {
  const StoredModel* of = model(key.model_id);
  if (of != nullptr) {
    const auto behind = of->versions.upper_bound(key.version);
    if (behind != of->versions.begin()) return std::prev(behind)->second.get();
  }
  return last_before(models_.lower_bound(key.model_id));
}

std::optional<ModelView> State::find(std::string_view model_id, const ModelVersion& version) const {
  return view_of(this->version(model_id, version));
}

std::optional<ModelView> State::latest(std::string_view model_id) const {
  const StoredModel* of = model(model_id);
  return view_of(of == nullptr ? nullptr : of->newest);
}

const ValidationResult* State::validation(std::string_view model_id, const ModelVersion& version) const {
  const StoredVersion* found = this->version(model_id, version);
  return found == nullptr ? nullptr : found->validation.get();
}

Sequence State::last_change(std::string_view model_id) const {
  const StoredModel* of = model(model_id);
  return of == nullptr ? 0 : of->last_change;
}

void State::for_each_model(const std::function<void(std::string_view model_id, Sequence last_change)>& visit) const {
  for (const StoredModel::Owner& each : models_) visit(each->id(), each->last_change);
}

std::vector<ModelView> State::list(const std::optional<VersionKey>& after, std::size_t limit) const {
  std::vector<ModelView> page;
  auto next = after ? models_.lower_bound(after->model_id) : models_.begin();
  for (; next != models_.end() && page.size() < limit; ++next) {
    const StoredModel& of = **next;
    auto version = after && of.id() == after->model_id ? of.versions.upper_bound(after->version) : of.versions.begin();
    for (; version != of.versions.end() && page.size() < limit; ++version) page.push_back(version->second->view());
  }
  return page;
}

std::vector<ModelView> State::list_versions(std::string_view model_id, const std::optional<ModelVersion>& after,
                                            std::size_t limit) const {
  std::vector<ModelView> page;
  const StoredModel* of = model(model_id);
  if (of == nullptr) return page;
  auto version = after ? of->versions.upper_bound(*after) : of->versions.begin();
  for (; version != of->versions.end() && page.size() < limit; ++version) page.push_back(version->second->view());
  return page;
}

std::vector<ModelView> State::find_by_state(DeploymentState state, const std::optional<VersionKey>& after,
                                            std::size_t limit) const {
  if (static_cast<std::size_t>(state) >= kDeploymentStates) return {};
  return list_.page(state, after ? last_at(*after) : nullptr, limit);
}

void Prefetch::operator()(PrefetchStep step) {
  if (step == PrefetchStep::Index) return state_->by_id_.prefetch_hash(model_hash_);
  if (model_ == nullptr) model_ = state_->by_id_.likely_by_hash(model_hash_);
  if (model_ == nullptr) return;
  if (step == PrefetchStep::Entity) return prefetch_bytes(model_, kUsualModelBytes);
  const StoredVersion* const newest = model_->newest;
  if (step == PrefetchStep::Related) {
    if (version_) state_->older_.prefetch({model_, *version_});
    prefetch_bytes(newest, kUsualVersionBytes);
  } else if (version_ && *version_ < newest->version) {
    const StoredVersion* const likely = state_->older_.likely({model_, *version_});
    if (likely != nullptr) prefetch_bytes(likely, kUsualVersionBytes);
  } else if (version_ && *version_ != newest->version) {  // to be registered
    state_->older_.prefetch({model_, newest->version});
    prefetch_object(&*newest->run);
  }
}

std::size_t State::model_count() const { return models_.size(); }

std::size_t State::version_count() const { return version_count_; }

Digest State::digest() const { return digest_; }

}  // namespace tensorforge::registry
