#include <cassert>
#include <iterator>
#include <span>
#include <utility>

#include "registry/state_machine.h"

namespace tensorforge::registry {
namespace {

void add(CanonicalBytes& bytes, const ModelVersion& version) {
  bytes.number(version.major).number(version.minor).number(version.patch);
}

void add(CanonicalBytes& bytes, std::span<const std::size_t> shape) {
  bytes.number(shape.size());
  for (const std::size_t dimension : shape) bytes.number(dimension);
}

// "model_version": model_id, name, major, minor, patch, framework, input_shape, output_shape, size_bytes, checksum,
// registered_at, state (its number), tags (a list of key and value, by key). Digests are kept in the database: for
// ever.
Digest hash_of(const ModelView& model) {
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

/// The ways in which a state changes. Each keeps index, count and digest true to the versions.
class Editor {
 public:
  /// `at`: where the log has what changes it; 0: that is not known.
  explicit Editor(State& state, Sequence at = 0) : state_(state), at_(at) {}

  const StoredVersion& add(StoredVersion::Owner made) {
    assert(made);
    StoredVersion& version = *made;
    const ModelView view = version.view();
    const auto [model, place] = model_for(view.model_id);
    note_change(*model);
    version.model = model;
    version.digest = hash_of(view);
    const bool is_new_model = model->newest == nullptr;
    const auto at = model->versions.emplace_hint(model->versions.end(), version.version, std::move(made));
    assert(at->second.get() == &version);
    const bool is_newest = std::next(at) == model->versions.end();
    StoredVersion* const older = is_newest ? std::exchange(model->newest, &version) : &version;
    if (older != nullptr) state_.older_.insert(*older);
    const StoredVersion* const before =
        at != model->versions.begin() ? std::prev(at)->second.get()
                                      : state_.last_before(is_new_model ? place : state_.models_.find(model->id()));
    state_.list_.insert(version, before);
    state_.digest_ += version.digest;
    ++state_.version_count_;
    return version;
  }

  void remove(const VersionKey& key) {
    StoredModel& model = *state_.model(key.model_id);
    const auto version = model.versions.find(key.version);
    state_.list_.erase(*version->second);
    state_.digest_ -= version->second->digest;
    --state_.version_count_;
    const bool was_newest = version->second.get() == model.newest;
    if (!was_newest) state_.older_.erase(*version->second);
    model.versions.erase(version);
    if (!model.versions.empty()) {
      if (!was_newest) return;
      model.newest = model.versions.rbegin()->second.get();
      return state_.older_.erase(*model.newest);
    }
    state_.by_id_.erase(model);
    state_.models_.erase(state_.models_.find(key.model_id));
  }

  DeploymentState set_state(std::string_view model_id, const ModelVersion& version, DeploymentState to) {
    StoredVersion& changed = *state_.version(model_id, version);
    note_change(*changed.model);
    const DeploymentState from = changed.state;
    state_.list_.set_state(changed, to);
    state_.digest_ -= changed.digest;
    changed.digest = hash_of(changed.view());
    state_.digest_ += changed.digest;
    return from;
  }

  Undo::WasValidated set_validation(std::string_view model_id, const ModelVersion& version,
                                    std::unique_ptr<ValidationResult> validation) {
    StoredVersion& changed = *state_.version(model_id, version);
    note_change(*changed.model);
    std::unique_ptr<ValidationResult>& held = changed.validation;
    if (held) state_.digest_ -= hash_of(*held);
    if (validation) state_.digest_ += hash_of(*validation);
    held.swap(validation);
    return validation;
  }

  void note_change(std::string_view model_id) { note_change(*state_.model(model_id)); }

 private:
  void note_change(StoredModel& model) const {
    if (at_ != 0) model.last_change = at_;
  }
  /// With the place of a model that is new.
  std::pair<StoredModel*, State::Models::const_iterator> model_for(std::string_view model_id) {
    if (StoredModel* known = state_.model(model_id)) return {known, {}};
    const auto made = state_.models_.insert(StoredModel::make(model_id)).first;
    state_.by_id_.insert(**made);
    return {made->get(), made};
  }

  State& state_;
  const Sequence at_;
};

namespace {

/// Does what an event says, and adds what was before to `undo`, if there is one.
struct Apply {
  Editor editor;
  Undo* undo{};

  void operator()(ModelRegistered& event) {
    const StoredVersion& made = editor.add(std::move(event.model).take());
    add_former(made.model->id(), made.version, Undo::WasAbsent{});
  }
  void operator()(StateTransitioned& event) {
    add_former(event.model_id, event.version, editor.set_state(event.model_id, event.version, event.to));
  }
  void operator()(ValidationRecorded& event) {
    auto made = std::make_unique<ValidationResult>(std::move(event.validation));
    const ValidationResult& validation = *made;
    add_former(validation.model_id, validation.version,
               editor.set_validation(validation.model_id, validation.version, std::move(made)));
  }

 private:
  void add_former(std::string_view model_id, const ModelVersion& version, auto value) {
    if (undo != nullptr) undo->formers.push_back({{std::string(model_id), version}, std::move(value)});
  }
};

void undo_one(Editor editor, const VersionKey& key, Undo::WasAbsent) { editor.remove(key); }

void undo_one(Editor editor, const VersionKey& key, DeploymentState from) {
  editor.set_state(key.model_id, key.version, from);
}

void undo_one(Editor editor, const VersionKey& key, Undo::WasValidated& former) {
  editor.set_validation(key.model_id, key.version, std::move(former));
}

}  // namespace

void apply(State& state, Event event, Sequence at) { std::visit(Apply{Editor(state, at)}, event); }

void apply(State& state, Event event, Undo& undo) { std::visit(Apply{Editor(state), &undo}, event); }

void note_change(State& state, std::string_view model_id, Sequence at) { Editor(state, at).note_change(model_id); }

void undo(State& state, Undo&& done) {
  for (; !done.formers.empty(); done.formers.pop_back()) {
    Undo::Former& former = done.formers.back();
    std::visit([&](auto& value) { undo_one(Editor(state), former.key, value); }, former.value);
  }
}

}  // namespace tensorforge::registry
