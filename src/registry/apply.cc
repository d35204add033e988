#include <cassert>

#include "registry/state_machine.h"

namespace tensorforge::registry {
namespace {

void add(CanonicalBytes& bytes, const ModelVersion& version) {
  bytes.number(version.major).number(version.minor).number(version.patch);
}

void add(CanonicalBytes& bytes, const std::vector<std::size_t>& shape) {
  bytes.number(shape.size());
  for (const std::size_t dimension : shape) bytes.number(dimension);
}

// "model_version": model_id, name, major, minor, patch, framework, input_shape, output_shape, size_bytes, checksum,
// registered_at, state (its number), tags (a list of key and value, by key). Digests are kept in the database: for
// ever.
Digest hash_of(const ModelMetadata& model) {
  CanonicalBytes bytes("model_version");
  bytes.text(model.model_id).text(model.name);
  add(bytes, model.version);
  bytes.text(model.framework);
  add(bytes, model.input_shape);
  add(bytes, model.output_shape);
  bytes.number(model.size_bytes).text(model.checksum).number(model.registered_at);
  bytes.number(static_cast<std::uint64_t>(model.state));
  bytes.number(model.tags.size());
  for (const auto& [key, value] : model.tags) bytes.text(key).text(value);
  return bytes.digest();
}

// "validation": model_id, major, minor, patch, passed, latency_p50_ms, latency_p99_ms, accuracy_score, errors (a list).
Digest hash_of(const ValidationResult& validation) {
  CanonicalBytes bytes("validation");
  bytes.text(validation.model_id);
  add(bytes, validation.version);
  bytes.number(validation.passed ? 1 : 0);
  bytes.real(validation.latency_p50_ms).real(validation.latency_p99_ms).real(validation.accuracy_score);
  bytes.number(validation.errors.size());
  for (const std::string& error : validation.errors) bytes.text(error);
  return bytes.digest();
}

}  // namespace

/// The four ways in which a state changes. Each keeps index, count and digest true to the versions.
class Editor {
 public:
  explicit Editor(State& state) : state_(state) {}

  void add(const ModelMetadata& model) {
    auto& versions = state_.models_[model.model_id];
    const auto [at, is_new] = versions.try_emplace(model.version, State::Entry{model, nullptr});
    assert(is_new);
    index_of(model.state).insert(&at->second.model);
    state_.digest_ += hash_of(model);
    ++state_.version_count_;
  }

  void remove(const VersionKey& key) {
    const auto model = state_.models_.find(key.model_id);
    const auto version = model->second.find(key.version);
    index_of(version->second.model.state).erase(&version->second.model);
    state_.digest_ -= hash_of(version->second.model);
    --state_.version_count_;
    model->second.erase(version);
    if (model->second.empty()) state_.models_.erase(model);
  }

  DeploymentState set_state(std::string_view model_id, const ModelVersion& version, DeploymentState to) {
    ModelMetadata& model = entry(model_id, version).model;
    const DeploymentState from = model.state;
    state_.digest_ -= hash_of(model);
    auto node = index_of(from).extract(&model);  // the order does not look at the state: no new node is needed
    model.state = to;
    index_of(to).insert(std::move(node));
    state_.digest_ += hash_of(model);
    return from;
  }

  Undo::WasValidated set_validation(std::string_view model_id, const ModelVersion& version,
                                    std::unique_ptr<ValidationResult> validation) {
    std::unique_ptr<ValidationResult>& held = entry(model_id, version).validation;
    if (held) state_.digest_ -= hash_of(*held);
    if (validation) state_.digest_ += hash_of(*validation);
    held.swap(validation);
    return validation;
  }

 private:
  State::Entry& entry(std::string_view model_id, const ModelVersion& version) {
    return state_.models_.find(model_id)->second.at(version);
  }
  State::Index& index_of(DeploymentState state) { return state_.by_state_.at(static_cast<std::size_t>(state)); }

  State& state_;
};

namespace {

Undo::Former apply_one(Editor editor, const ModelRegistered& event) {
  editor.add(event.model);
  return {{event.model.model_id, event.model.version}, Undo::WasAbsent{}};
}

Undo::Former apply_one(Editor editor, const StateTransitioned& event) {
  return {{event.model_id, event.version}, editor.set_state(event.model_id, event.version, event.to)};
}

Undo::Former apply_one(Editor editor, const ValidationRecorded& event) {
  const ValidationResult& validation = event.validation;
  return {
      {validation.model_id, validation.version},
      editor.set_validation(validation.model_id, validation.version, std::make_unique<ValidationResult>(validation))};
}

void undo_one(Editor editor, const VersionKey& key, Undo::WasAbsent) { editor.remove(key); }

void undo_one(Editor editor, const VersionKey& key, DeploymentState from) {
  editor.set_state(key.model_id, key.version, from);
}

void undo_one(Editor editor, const VersionKey& key, Undo::WasValidated& former) {
  editor.set_validation(key.model_id, key.version, std::move(former));
}

}  // namespace

void apply(State& state, const Event& event, Undo* undo) {
  Undo::Former former = std::visit([&](const auto& one) { return apply_one(Editor(state), one); }, event);
  if (undo != nullptr) undo->formers.push_back(std::move(former));
}

void undo(State& state, Undo&& done) {
  for (; !done.formers.empty(); done.formers.pop_back()) {
    Undo::Former& former = done.formers.back();
    std::visit([&](auto& value) { undo_one(Editor(state), former.key, value); }, former.value);
  }
}

}  // namespace tensorforge::registry
