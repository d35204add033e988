#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/hash/hash.h"
#include "platform/digest.h"
#include "platform/log_types.h"
#include "platform/prefetch.h"
#include "platform/result.h"
#include "platform/sharded_index.h"
#include "registry/model_view.h"
#include "registry/registry.h"
#include "registry/stored_model.h"
#include "registry/version_list.h"

namespace tensorforge::registry {

// Commands order.
struct RegisterModel {
  PackedModel model;  ///< registered_at is set by the caller; the service stamps it
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
  PackedModel model;
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
using Events = absl::InlinedVector<Event, 1>;  // of most commands one

/// The place of a version in every list.
struct VersionKey {
  std::string model_id;
  ModelVersion version;
  friend auto operator<=>(const VersionKey&, const VersionKey&) = default;
};

/// All model versions and their latest validations.
///
/// Threads: none; the facade locks, the service has one writer. Views and pointers are valid until the next apply() or
/// undo().
/// Cost: a version is found by hash; a list is O(log models + its length), find_by_state() beside that O(versions /
/// 64).
class State {
 public:
  State() = default;
  State(State&&) = default;
  State& operator=(State&&) = default;

  std::optional<ModelView> find(std::string_view model_id, const ModelVersion&) const;
  std::optional<ModelView> latest(std::string_view model_id) const;  ///< the highest version
  const ValidationResult* validation(std::string_view model_id, const ModelVersion&) const;
  /// Where the log has the last event of this model, as apply() was told; 0: there is no such model, or it was not.
  Sequence last_change(std::string_view model_id) const;
  /// Every model by id, with its last_change().
  void for_each_model(const std::function<void(std::string_view model_id, Sequence last_change)>& visit) const;

  /// Up to `limit` versions behind `after` (nullopt: from the start), by (model_id, version).
  std::vector<ModelView> list(const std::optional<VersionKey>& after, std::size_t limit) const;
  std::vector<ModelView> list_versions(std::string_view model_id, const std::optional<ModelVersion>& after,
                                       std::size_t limit) const;
  std::vector<ModelView> find_by_state(DeploymentState, const std::optional<VersionKey>& after,
                                       std::size_t limit) const;

  std::size_t model_count() const;
  std::size_t version_count() const;
  /// Sum of the hashes of all versions and validations; O(1).
  Digest digest() const;

 private:
  friend class Editor;    // apply.cc: what apply() and undo() do to a state
  friend class Prefetch;  // what a look at a version looks at

  static std::string_view id_of(std::string_view id) { return id; }
  static std::string_view id_of(const StoredModel::Owner& model) { return model->id(); }
  struct ById {
    using is_transparent = void;
    bool operator()(const auto& a, const auto& b) const { return id_of(a) < id_of(b); }
  };
  // By model and then by version, so that a model with many versions costs its neighbours nothing, and models are
  // counted for free.
  using Models = absl::btree_set<StoredModel::Owner, ById>;

  struct ModelId {
    using Key = std::string_view;
    static Key key_of(const StoredModel& model) { return model.id(); }
    static std::size_t hash_of(Key id) { return absl::HashOf(absl::string_view(id.data(), id.size())); }
  };
  struct VersionOf {
    struct Key {
      const StoredModel* model{};
      ModelVersion version;
      bool operator==(const Key&) const = default;
    };
    static Key key_of(const StoredVersion& version) { return {version.model, version.version}; }
    static std::size_t hash_of(const Key& key) {
      return absl::HashOf(key.model, key.version.major, key.version.minor, key.version.patch);
    }
  };

  StoredModel* model(std::string_view model_id) const;
  StoredVersion* version(std::string_view model_id, const ModelVersion&) const;
  /// The last version at or before `key` in the order of lists; nullptr: none.
  const StoredVersion* last_at(const VersionKey& key) const;
  /// The last version of the models before `next`; nullptr: there is none.
  const StoredVersion* last_before(Models::const_iterator next) const;

  Models models_;                                 // each has a version
  ShardedIndex<StoredModel, ModelId> by_id_;      // of models_
  ShardedIndex<StoredVersion, VersionOf> older_;  // all versions but each model's StoredModel::newest
  VersionList list_;                              // of all their versions
  std::size_t version_count_{};
  Digest digest_;
};

/// Asks the memory for what a look at a version of a model, or its registration, will look at.
///
/// For one after another of kPrefetchSteps; what one step found is kept for the next, so no model may go in between.
/// Threads: as a look at the state.
class Prefetch {
 public:
  /// nullopt: for a look at the newest.
  Prefetch(const State& state, std::string_view model_id, const std::optional<ModelVersion>& version)
      : state_(&state), model_hash_(State::ModelId::hash_of(model_id)), version_(version) {}
  void operator()(PrefetchStep step);

 private:
  const State* state_;
  std::size_t model_hash_;
  std::optional<ModelVersion> version_;
  const StoredModel* model_{};
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

/// What `command` would do: its events, always one here. Changes nothing and reads nothing but its arguments;
/// what a moved command holds goes into its event. Arguments are checked before the state.
///
/// kInvalidArgument     an id, a text, a shape, a number or a list breaks its rule (platform/names.h), or a new model's
///                      state is not Registered.
/// kNotFound            the version is unknown.
/// kAlreadyExists       the version to register is known.
/// kFailedPrecondition  the lifecycle does not lead there.
Result<Events> decide(const State&, Command);
/// Never refuses: what it is told has happened; what a moved event holds is taken over. An event that decide() could
/// not have made for this state is a bug (a ModelRegistered may be in any state, since a snapshot is restored by such).
/// `at`: where the log has the event; 0: there is no log, or note_change() will say so.
void apply(State&, Event, Sequence at = 0);
/// What was touched had the former values that are added to `undo`.
void apply(State&, Event, Undo& undo);
/// What apply() does with `at`, for a model that is there.
void note_change(State&, std::string_view model_id, Sequence at);
/// Puts everything back as it was before the first apply() with this `undo`.
void undo(State&, Undo&&);

}  // namespace tensorforge::registry
