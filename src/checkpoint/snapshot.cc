#include "checkpoint/snapshot.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "checkpoint/projection.h"

namespace tensorforge::checkpoint {
namespace {

StoredCheckpoint stored(const Node& node) {
  StoredCheckpoint out;
  out.created.checkpoint = node.id;
  out.created.request = {node.run->id, node.epoch, node.step, node.type, node.metrics};
  if (node.parent != nullptr) out.created.parent = node.parent->id;
  out.created.created_at = node.created_at;
  out.state = node.state;
  out.size_bytes = node.size_bytes;
  out.storage_path = node.storage_path;
  return out;
}

absl::Status impossible(EntityId id, std::string_view what) {
  return absl::DataLossError(fmt::format("checkpoint \"{}\" {}", format_entity_id(kCheckpointIdPrefix, id), what));
}

}  // namespace

void for_each_checkpoint(const State& state, const std::function<void(const StoredCheckpoint&)>& visit) {
  std::vector<const Node*> nodes;
  nodes.reserve(state.projection().nodes.size());
  for (const auto& [id, node] : state.projection().nodes) nodes.push_back(&node);
  std::sort(nodes.begin(), nodes.end(), [](const Node* a, const Node* b) { return a->id.number < b->id.number; });
  for (const Node* node : nodes) visit(stored(*node));
}

void for_each_policy(const State& state, const std::function<void(const PolicySet&)>& visit) {
  const Projection& projection = state.projection();
  if (projection.default_policy) visit({std::nullopt, *projection.default_policy});
  for (const auto& [run, policy] : projection.policies) visit({run, policy});
}

std::size_t stored_checkpoint_count(const State& state) { return state.projection().nodes.size(); }

std::size_t policy_count(const State& state) {
  return state.projection().policies.size() + (state.projection().default_policy ? 1 : 0);
}

std::uint64_t next_checkpoint_number(const State& state) { return state.projection().next_number; }

absl::Status restore(State& state, StoredCheckpoint&& checkpoint) {
  Projection& projection = state.projection();
  const EntityId id = checkpoint.created.checkpoint;
  if (id.number < projection.next_number) return impossible(id, "does not come in the order of creation");
  if (checkpoint.created.parent) {
    const auto parent = projection.nodes.find(*checkpoint.created.parent);
    if (parent == projection.nodes.end() || parent->second.run->id != checkpoint.created.request.training_run_id) {
      return impossible(id, "has a parent that is not there");
    }
  }
  projection.insert(checkpoint.created);
  if (checkpoint.state == CheckpointState::Creating && checkpoint.size_bytes == 0 && checkpoint.storage_path.empty()) {
    return absl::OkStatus();
  }
  projection.set_state(projection.nodes.at(id), checkpoint.state, checkpoint.size_bytes,
                       std::move(checkpoint.storage_path));
  return absl::OkStatus();
}

absl::Status restore(State& state, const PolicySet& policy) {
  if (state.projection().own_policy(policy.training_run_id)) {
    return absl::DataLossError("a policy is given twice");
  }
  apply(state, policy);
  return absl::OkStatus();
}

absl::Status restore_next_checkpoint_number(State& state, std::uint64_t number) {
  Projection& projection = state.projection();
  if (number < projection.next_number) {
    return absl::DataLossError(fmt::format("the next checkpoint is number {}, and one has number {} already", number,
                                           projection.next_number - 1));
  }
  projection.next_number = number;
  return absl::OkStatus();
}

}  // namespace tensorforge::checkpoint
