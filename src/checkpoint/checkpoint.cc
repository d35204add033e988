#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "checkpoint/projection.h"
#include "checkpoint/state_machine.h"
#include "platform/enum_names.h"

namespace tensorforge::checkpoint {
namespace {

constexpr auto kStateNames = enum_names<CheckpointState>("Creating", "Complete", "Corrupted", "Deleted");
constexpr auto kTypeNames = enum_names<CheckpointType>("Full", "Incremental", "Emergency");
constexpr auto kCauseNames = enum_names<DeletionCause>("Removed", "GarbageCollected");

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

/// A facade keeps no journal: what is decided has happened.
Result<Events> execute(State& state, const Command& command, std::uint64_t now = 0) {
  Result<Events> events = decide(state, command, {.now = now});
  if (!events.ok()) return events;
  for (const Event& event : *events) apply(state, event);
  return events;
}

}  // namespace

std::string_view to_string(CheckpointState state) { return kStateNames.to_string(state); }
std::optional<CheckpointState> parse_checkpoint_state(std::string_view name) { return kStateNames.parse(name); }
std::string_view to_string(CheckpointType type) { return kTypeNames.to_string(type); }
std::optional<CheckpointType> parse_checkpoint_type(std::string_view name) { return kTypeNames.parse(name); }
std::string_view to_string(DeletionCause cause) { return kCauseNames.to_string(cause); }
std::optional<DeletionCause> parse_deletion_cause(std::string_view name) { return kCauseNames.parse(name); }

CheckpointManager::CheckpointManager(GcPolicy policy) : state_(std::make_unique<State>()) {
  apply(*state_, PolicySet{std::nullopt, std::move(policy)});
}

CheckpointManager::~CheckpointManager() = default;

Result<CheckpointMeta> CheckpointManager::create(const CreateCheckpointRequest& request, std::uint64_t now) {
  const std::unique_lock lock(mutex_);
  const Result<Events> events = execute(*state_, CreateCheckpoint{request}, now);
  if (!events.ok()) return events.status();
  return meta_of(state_->projection().nodes.at(std::get<CheckpointCreated>(events->front()).checkpoint));
}

absl::Status CheckpointManager::complete(std::string_view checkpoint_id, std::uint64_t size_bytes,
                                         std::string storage_path) {
  const CompleteCheckpoint command{std::string(checkpoint_id), size_bytes, std::move(storage_path)};
  const std::unique_lock lock(mutex_);
  return execute(*state_, command).status();
}

absl::Status CheckpointManager::mark_corrupted(std::string_view checkpoint_id) {
  const CorruptCheckpoint command{std::string(checkpoint_id)};
  const std::unique_lock lock(mutex_);
  return execute(*state_, command).status();
}

std::optional<CheckpointMeta> CheckpointManager::get(std::string_view checkpoint_id) const {
  const std::shared_lock lock(mutex_);
  return state_->find(checkpoint_id);
}

std::optional<CheckpointMeta> CheckpointManager::find_restore_point(const RestoreCriteria& criteria) const {
  const std::shared_lock lock(mutex_);
  return state_->find_restore_point(criteria);
}

std::vector<CheckpointMeta> CheckpointManager::list_for_run(std::string_view training_run_id) const {
  const std::shared_lock lock(mutex_);
  return state_->list_for_run(training_run_id, std::nullopt, kNoLimit);
}

std::optional<CheckpointMeta> CheckpointManager::get_latest(std::string_view training_run_id) const {
  const std::shared_lock lock(mutex_);
  return state_->latest(training_run_id);
}

std::vector<std::string> CheckpointManager::gc(std::uint64_t now) {
  const std::unique_lock lock(mutex_);
  const Result<Events> events = execute(*state_, CollectGarbage{}, now);
  if (!events.ok()) return {};  // a collection is never refused

  std::vector<std::string> ids;
  ids.reserve(events->size());
  for (const Event& event : *events) {
    ids.push_back(format_entity_id(kCheckpointIdPrefix, std::get<CheckpointDeleted>(event).checkpoint));
  }
  return ids;
}

std::size_t CheckpointManager::total_count() const {
  const std::shared_lock lock(mutex_);
  return state_->total_count();
}

std::uint64_t CheckpointManager::total_size() const {
  const std::shared_lock lock(mutex_);
  return state_->total_size();
}

absl::Status CheckpointManager::remove(std::string_view checkpoint_id) {
  const RemoveCheckpoint command{std::string(checkpoint_id)};
  const std::unique_lock lock(mutex_);
  return execute(*state_, command).status();
}

std::vector<CheckpointMeta> CheckpointManager::find_by_metric(std::string_view training_run_id,
                                                              std::string_view metric_key, double threshold,
                                                              bool ascending) const {
  const std::shared_lock lock(mutex_);
  return state_->find_by_metric(training_run_id, metric_key, threshold, ascending, std::nullopt, kNoLimit);
}

}  // namespace tensorforge::checkpoint
