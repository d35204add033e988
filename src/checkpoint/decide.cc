#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>

#include "checkpoint/gc.h"
#include "checkpoint/projection.h"
#include "checkpoint/state_machine.h"
#include "platform/names.h"
#include "platform/workflow.h"

namespace tensorforge::checkpoint {
namespace {

using names::quoted;

const workflow::TransitionTable<CheckpointState>& lifecycle() {
  using enum CheckpointState;
  static const workflow::TransitionTable<CheckpointState> kLifecycle = {
      {Creating, Complete},  {Creating, Corrupted}, {Creating, Deleted},
      {Complete, Corrupted}, {Complete, Deleted},   {Corrupted, Deleted},
  };
  return kLifecycle;
}

absl::Status check_transition(const Node& node, CheckpointState to) {
  if (lifecycle().can_transition(node.state, to)) return absl::OkStatus();
  std::string allowed;
  for (const CheckpointState state : lifecycle().allowed_from(node.state)) {
    allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", to_string(state));
  }
  return absl::FailedPreconditionError(fmt::format("{}: cannot go from {} to {}; allowed: {}", name_of(node),
                                                   to_string(node.state), to_string(to),
                                                   allowed.empty() ? "nothing" : allowed));
}

Result<const Node*> find_existing(const State& state, std::string_view checkpoint_id) {
  if (const Node* node = state.projection().find(checkpoint_id)) return node;
  return absl::NotFoundError(fmt::format("checkpoint {} does not exist", quoted(checkpoint_id)));
}

absl::Status check_metrics(const std::map<std::string, double>& metrics) {
  if (metrics.size() > names::kMaxEntries) {
    return absl::InvalidArgumentError(
        fmt::format("a checkpoint has {} metrics; the limit is {}", metrics.size(), names::kMaxEntries));
  }
  std::size_t key_bytes = 0;
  for (const auto& [key, value] : metrics) {
    if (absl::Status status = names::check_key("metric key", key); !status.ok()) return status;
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(fmt::format("metric {} is {}; it must be a finite number", quoted(key), value));
    }
    key_bytes += key.size();
  }
  if (key_bytes > names::kMaxEntriesBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "the metric keys of a checkpoint have {} bytes together; the limit is {}", key_bytes, names::kMaxEntriesBytes));
  }
  return absl::OkStatus();
}

absl::Status check_request(const CreateCheckpointRequest& request) {
  if (absl::Status status = names::check_id("training run id", request.training_run_id); !status.ok()) return status;
  if (request.checkpoint_type > CheckpointType::Emergency) {
    return absl::InvalidArgumentError(fmt::format("checkpoint type {} is none of Full, Incremental, Emergency",
                                                  static_cast<unsigned>(request.checkpoint_type)));
  }
  return check_metrics(request.metrics);
}

Result<EntityId> find_parent(const State& state, const CreateCheckpointRequest& request) {
  const Run* const run = state.projection().find_run(request.training_run_id);
  const Node* const parent = run == nullptr ? nullptr : latest_under(run->restorable, request.step, request.epoch);
  if (parent != nullptr) return parent->id;
  return absl::FailedPreconditionError(
      fmt::format("run {}: an Incremental at step {}, epoch {} has no restorable checkpoint at or under both to build "
                  "on; complete a Full one first",
                  quoted(request.training_run_id), request.step, request.epoch));
}

Result<Events> decide_one(const State& state, const CreateCheckpoint& command, const Context& context) {
  if (absl::Status status = check_request(command.request); !status.ok()) return status;
  CheckpointCreated event{{context.incarnation, state.projection().next_number}, command.request, {}, context.now};
  if (command.request.checkpoint_type == CheckpointType::Incremental) {
    const Result<EntityId> parent = find_parent(state, command.request);
    if (!parent.ok()) return parent.status();
    event.parent = *parent;
  }
  Events events;
  events.emplace_back(std::move(event));  // an initializer list would copy it
  return events;
}

absl::Status check_path(const CompleteCheckpoint& command) {
  if (command.storage_path.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("checkpoint {}: the storage path is empty; say where it lies", quoted(command.checkpoint_id)));
  }
  return names::check_text("storage path", command.storage_path, names::kMaxTextBytes);
}

Result<Events> decide_one(const State& state, const CompleteCheckpoint& command, const Context&) {
  if (absl::Status status = check_path(command); !status.ok()) return status;
  const Result<const Node*> found = find_existing(state, command.checkpoint_id);
  if (!found.ok()) return found.status();
  const Node& node = **found;
  if (absl::Status status = check_transition(node, CheckpointState::Complete); !status.ok()) return status;
  if (!node.ancestors_complete) {
    return absl::FailedPreconditionError(
        fmt::format("{}: its parent \"{}\" can no longer be restored; mark it corrupted and create another",
                    name_of(node), id_of(*node.parent)));
  }
  return Events{CheckpointCompleted{node.id, node.run->id, command.size_bytes, command.storage_path}};
}

Result<Events> decide_one(const State& state, const CorruptCheckpoint& command, const Context&) {
  const Result<const Node*> found = find_existing(state, command.checkpoint_id);
  if (!found.ok()) return found.status();
  const Node& node = **found;
  if (absl::Status status = check_transition(node, CheckpointState::Corrupted); !status.ok()) return status;
  return Events{CheckpointCorrupted{node.id, node.run->id}};
}

CheckpointDeleted deletion_of(const Node& node, DeletionCause cause) {
  return {node.id, node.run->id, cause, node.storage_path, node.size_bytes, /*more=*/false};
}

Result<Events> decide_one(const State& state, const RemoveCheckpoint& command, const Context&) {
  const Result<const Node*> found = find_existing(state, command.checkpoint_id);
  if (!found.ok()) return found.status();
  const Node& node = **found;
  if (absl::Status status = check_transition(node, CheckpointState::Deleted); !status.ok()) return status;
  if (node.first_child != nullptr) {
    return absl::FailedPreconditionError(
        fmt::format("{}: \"{}\" descends from it; remove that one first", name_of(node), id_of(*node.first_child)));
  }
  return Events{deletion_of(node, DeletionCause::Removed)};
}

Result<Events> decide_one(const State& state, const CollectGarbage&, const Context& context) {
  const Projection& projection = state.projection();
  std::vector<const Node*> deleted;
  std::size_t bytes = 0;
  const auto take = [&](const Node& node) {
    bytes += id_of(node).size() + node.run->id.size() + node.storage_path.size();
    const bool over = deleted.size() >= context.max_deletions || bytes > context.max_path_bytes;
    if (over && !deleted.empty()) return false;
    deleted.push_back(&node);
    return true;
  };
  bool more = false;
  for (auto run = projection.runs.begin(); run != projection.runs.end() && !more; ++run) {
    const auto first = static_cast<std::ptrdiff_t>(deleted.size());
    more = !collect_run(run->second, projection.effective_policy(run->first), context.now, take);
    std::sort(deleted.begin() + first, deleted.end(), [](const Node* a, const Node* b) { return ByPlace()(b, a); });
  }
  Events events;
  events.reserve(deleted.size());
  for (const Node* node : deleted) events.emplace_back(deletion_of(*node, DeletionCause::GarbageCollected));
  if (more) std::get<CheckpointDeleted>(events.back()).more = true;
  return events;
}

absl::Status check_policy(const SetPolicy& command) {
  if (command.training_run_id) {
    if (absl::Status status = names::check_id("training run id", *command.training_run_id); !status.ok()) return status;
  }
  const std::string& key = command.policy.metric_key;
  return key.empty() ? absl::OkStatus() : names::check_key("metric key", key);
}

Result<Events> decide_one(const State& state, const SetPolicy& command, const Context&) {
  if (absl::Status status = check_policy(command); !status.ok()) return status;
  const std::optional<GcPolicy> current =
      command.training_run_id ? state.policy(*command.training_run_id) : state.default_policy();
  if (current == command.policy) return Events{};
  return Events{PolicySet{command.training_run_id, command.policy}};
}

}  // namespace

Result<Events> decide(const State& state, const Command& command, const Context& context) {
  return std::visit([&](const auto& c) { return decide_one(state, c, context); }, command);
}

}  // namespace tensorforge::checkpoint
