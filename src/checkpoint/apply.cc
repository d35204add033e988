#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "checkpoint/projection.h"
#include "checkpoint/state_machine.h"

namespace tensorforge::checkpoint {
namespace {

void set_state(Projection& projection, EntityId id, CheckpointState to, std::uint64_t size_bytes,
               std::string storage_path, Undo* undo) {
  Node& node = projection.nodes.at(id);
  Undo::Changed former{id, node.state, node.size_bytes, node.storage_path, {}};
  const std::vector<Node*> broken = projection.set_state(node, to, size_bytes, std::move(storage_path));
  if (undo == nullptr) return;
  former.broken.reserve(broken.size());
  for (const Node* descendant : broken) former.broken.push_back(descendant->id);
  undo->steps.emplace_back(std::move(former));
}

/// With the size and path that it has.
void set_state(Projection& projection, EntityId id, CheckpointState to, Undo* undo) {
  const Node& node = projection.nodes.at(id);
  set_state(projection, id, to, node.size_bytes, node.storage_path, undo);
}

void apply_one(Projection& projection, const CheckpointCreated& event, Undo* undo) {
  if (undo != nullptr) undo->steps.emplace_back(Undo::Created{event.checkpoint, projection.next_number});
  projection.insert(event);
}

void apply_one(Projection& projection, const CheckpointCompleted& event, Undo* undo) {
  set_state(projection, event.checkpoint, CheckpointState::Complete, event.size_bytes, event.storage_path, undo);
}

void apply_one(Projection& projection, const CheckpointCorrupted& event, Undo* undo) {
  set_state(projection, event.checkpoint, CheckpointState::Corrupted, undo);
}

void apply_one(Projection& projection, const CheckpointDeleted& event, Undo* undo) {
  set_state(projection, event.checkpoint, CheckpointState::Deleted, undo);
}

void apply_one(Projection& projection, const PolicySet& event, Undo* undo) {
  if (undo != nullptr) {
    undo->steps.emplace_back(Undo::Policy{event.training_run_id, projection.own_policy(event.training_run_id)});
  }
  projection.set_policy(event.training_run_id, event.policy);
}

void undo_one(Projection& projection, Undo::Created& step) {
  projection.erase(step.checkpoint);
  projection.next_number = step.next_number;
}

void undo_one(Projection& projection, Undo::Changed& step) {
  projection.restore_state(projection.nodes.at(step.checkpoint), step.state, step.size_bytes,
                           std::move(step.storage_path), step.broken);
}

void undo_one(Projection& projection, Undo::Policy& step) { projection.set_policy(step.training_run_id, step.policy); }

}  // namespace

void apply(State& state, const Event& event, Undo* undo) {
  std::visit([&](const auto& e) { apply_one(state.projection(), e, undo); }, event);
}

void undo(State& state, Undo&& undo) {
  for (auto step = undo.steps.rbegin(); step != undo.steps.rend(); ++step) {
    std::visit([&](auto& s) { undo_one(state.projection(), s); }, *step);
  }
  undo.steps.clear();
}

}  // namespace tensorforge::checkpoint
