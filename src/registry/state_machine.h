#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "platform/digest.h"
#include "platform/result.h"
#include "registry/registry.h"

namespace tensorforge::registry {

// Commands order.
struct RegisterModel {
  ModelMetadata model;  ///< registered_at is set by the caller; the service stamps it
  bool operator==(const RegisterModel&) const = default;
};
struct TransitionState {
  std::string model_id;
  ModelVersion version;
  DeploymentState to{};
  bool operator==(const TransitionState&) const = default;
};
struct RecordValidation {
  ValidationResult validation;
  bool operator==(const RecordValidation&) const = default;
};
using Command = std::variant<RegisterModel, TransitionState, RecordValidation>;

// Events tell.
struct ModelRegistered {
  ModelMetadata model;
  bool operator==(const ModelRegistered&) const = default;
};
struct StateTransitioned {
  std::string model_id;
  ModelVersion version;
  DeploymentState from{}, to{};
  bool operator==(const StateTransitioned&) const = default;
};
struct ValidationRecorded {
  ValidationResult validation;
  bool operator==(const ValidationRecorded&) const = default;
};
using Event = std::variant<ModelRegistered, StateTransitioned, ValidationRecorded>;
using Events = std::vector<Event>;

/// The place of a version in every list.
struct VersionKey {
  std::string model_id;
  ModelVersion version;
  friend auto operator<=>(const VersionKey&, const VersionKey&) = default;
};

inline constexpr std::size_t kDeploymentStates = 7;

/// All model versions and their latest validations.
///
/// Threads: none; the facade locks, the service has one writer. Pointers are valid until the next apply() or undo().
/// Cost: each call is O(log versions), a list beside that O(its length).
class State {
 public:
  State() = default;
  State(State&&) = default;
  State& operator=(State&&) = default;

  const ModelMetadata* find(std::string_view model_id, const ModelVersion&) const;
  const ModelMetadata* latest(std::string_view model_id) const;  ///< the highest version
  const ValidationResult* validation(std::string_view model_id, const ModelVersion&) const;

  /// Up to `limit` versions behind `after` (nullopt: from the start), by (model_id, version).
  std::vector<const ModelMetadata*> list(const std::optional<VersionKey>& after, std::size_t limit) const;
  std::vector<const ModelMetadata*> list_versions(std::string_view model_id, const std::optional<ModelVersion>& after,
                                                  std::size_t limit) const;
  std::vector<const ModelMetadata*> find_by_state(DeploymentState, const std::optional<VersionKey>& after,
                                                  std::size_t limit) const;
  std::size_t model_count() const;
  std::size_t version_count() const;
  /// Sum of the hashes of all versions and validations; O(1).
  Digest digest() const;

 private:
  friend class Editor;  // apply.cc: what apply() and undo() do to a state

  struct Entry {
    ModelMetadata model;
    std::unique_ptr<ValidationResult> validation;  // many versions have none
  };
  using Versions = std::map<ModelVersion, Entry>;
  struct ByKey {
    using is_transparent = void;
    using Key = std::pair<std::string_view, ModelVersion>;
    static Key key(const ModelMetadata* model) { return {model->model_id, model->version}; }
    static Key key(const VersionKey& at) { return {at.model_id, at.version}; }
    template <class A, class B>
    bool operator()(const A& a, const B& b) const {
      return key(a) < key(b);
    }
  };
  using Index = std::set<const ModelMetadata*, ByKey>;

  const Versions* versions(std::string_view model_id) const;
  const Entry* entry(std::string_view model_id, const ModelVersion&) const;

  // By model and then by version, so that a model with many versions costs its neighbours nothing, its lookups compare
  // the id once and not at each step, and models are counted for free.
  std::map<std::string, Versions, std::less<>> models_;
  std::array<Index, kDeploymentStates> by_state_;  // into models_, whose nodes stay where they are
  std::size_t version_count_{};
  Digest digest_;
};

/// The former values of what some events touched, in their order, so that undo() can put them back.
struct Undo {
  struct WasAbsent {};
  using WasValidated = std::unique_ptr<ValidationResult>;  ///< nullptr: there was no validation
  struct Former {
    VersionKey key;
    std::variant<WasAbsent, DeploymentState, WasValidated> value;
  };
  std::vector<Former> formers;
};

/// What `command` would do: its events, always one here. Changes nothing and reads nothing but its arguments.
/// Arguments are checked before the state.
///
/// kInvalidArgument     an id, a text, a shape, a number or a list breaks its rule (platform/names.h), or a new model's
///                      state is not Registered.
/// kNotFound            the version is unknown.
/// kAlreadyExists       the version to register is known.
/// kFailedPrecondition  the lifecycle does not lead there.
Result<Events> decide(const State&, const Command&);
/// Never refuses: what it is told has happened. An event that decide() could not have made for this state is a bug (a
/// ModelRegistered may be in any state, since a snapshot is restored by such). With `undo`, the former values are added
/// to it.
void apply(State&, const Event&, Undo* undo = nullptr);
/// Puts everything back as it was before the first apply() with this `undo`.
void undo(State&, Undo&&);

}  // namespace tensorforge::registry
