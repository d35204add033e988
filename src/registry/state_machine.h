#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
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

/// All model versions and their latest validations.
///
/// Threads: none; the facade locks, the service has one writer. Pointers are valid until the next apply() or undo().
/// Cost: each call is O(log versions), a list beside that O(its length).
class State {
 public:
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

  // ... the helper's members
};

/// The former values of what some events touched, so that undo() can put them back.
struct Undo;

/// What `command` would do: its events, none for a no-op. Changes nothing. Errors as the contract says.
Result<Events> decide(const State&, const Command&);
/// Never refuses: what it is told has happened.
void apply(State&, const Event&, Undo* undo = nullptr);
/// Puts everything back as it was before the first apply() with this `undo`.
void undo(State&, Undo&&);

}  // namespace tensorforge::registry
