#include "checkpoint/projection.h"

#include <cassert>
#include <cmath>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "platform/names.h"

namespace tensorforge::checkpoint {
namespace {

Digest digest_of(const CheckpointMeta& meta) {
  CanonicalBytes bytes("checkpoint");
  bytes.text(meta.checkpoint_id).text(meta.training_run_id).number(meta.epoch).number(meta.step);
  bytes.number(static_cast<std::uint64_t>(meta.checkpoint_type)).number(static_cast<std::uint64_t>(meta.state));
  bytes.number(meta.size_bytes).number(meta.created_at).number(meta.parent_id ? 1 : 0);
  if (meta.parent_id) bytes.text(*meta.parent_id);
  bytes.number(meta.metrics.size());
  for (const auto& [key, value] : meta.metrics) bytes.text(key).real(value);
  return bytes.text(meta.storage_path).digest();
}

Digest digest_of(const std::optional<std::string>& training_run_id, const GcPolicy& policy) {
  CanonicalBytes bytes("policy");
  bytes.number(training_run_id ? 1 : 0);
  if (training_run_id) bytes.text(*training_run_id);
  bytes.number(policy.max_checkpoints_per_run).number(policy.max_age_seconds).number(policy.keep_best_n);
  return bytes.text(policy.metric_key).number(policy.metric_ascending ? 1 : 0).digest();
}

StepIndex* index_of(Node& node) {
  const auto type = static_cast<std::size_t>(node.type);
  if (node.state == CheckpointState::Complete) {
    return node.ancestors_complete ? &node.run->restorable[type] : &node.run->chainless;
  }
  if (node.state == CheckpointState::Creating && node.ancestors_complete) return &node.run->pending[type];
  return nullptr;
}

void enter_indexes(Node& node) {
  if (StepIndex* index = index_of(node)) index->insert(node);
  if (node.state == CheckpointState::Complete) ++node.run->complete_count;
  if (node.state == CheckpointState::Corrupted) ++node.run->corrupted_count;
}

void leave_indexes(Node& node) {
  if (StepIndex* index = index_of(node)) index->erase(node);
  if (node.state == CheckpointState::Complete) --node.run->complete_count;
  if (node.state == CheckpointState::Corrupted) --node.run->corrupted_count;
}

// A NaN, which no command brings in, has no place in an order.
void enter_metrics(const Node& node) {
  if (node.state != CheckpointState::Complete) return;
  for (const auto& [key, value] : node.metrics) {
    if (!std::isnan(value)) node.run->by_metric[key].insert({value, node.step, &node});
  }
}

void leave_metrics(const Node& node) {
  if (node.state != CheckpointState::Complete) return;
  for (const auto& [key, value] : node.metrics) {
    if (std::isnan(value)) continue;
    const auto index = node.run->by_metric.find(key);
    assert(index != node.run->by_metric.end());
    index->second.erase({value, node.step, &node});
    if (index->second.empty()) node.run->by_metric.erase(index);
  }
}

void set_ancestors_complete(Node& node, bool complete) {
  leave_indexes(node);
  node.ancestors_complete = complete;
  enter_indexes(node);
}

void leave_siblings(Node& node) {
  if (node.parent == nullptr) return;
  (node.previous_sibling != nullptr ? node.previous_sibling->next_sibling : node.parent->first_child) =
      node.next_sibling;
  if (node.next_sibling != nullptr) node.next_sibling->previous_sibling = node.previous_sibling;
}

void return_to_siblings(Node& node) {
  if (node.parent == nullptr) return;
  (node.previous_sibling != nullptr ? node.previous_sibling->next_sibling : node.parent->first_child) = &node;
  if (node.next_sibling != nullptr) node.next_sibling->previous_sibling = &node;
}

/// Returns those that were not broken before; below any other, all are broken already.
std::vector<Node*> break_descendants(Node& node) {
  std::vector<Node*> broken;
  const auto break_children = [&broken](const Node& parent) {
    for (Node* child = parent.first_child; child != nullptr; child = child->next_sibling) {
      if (!child->ancestors_complete) continue;
      set_ancestors_complete(*child, false);
      broken.push_back(child);
    }
  };
  break_children(node);
  for (std::size_t i = 0; i < broken.size(); ++i) break_children(*broken[i]);
  return broken;
}

}  // namespace

std::string id_of(const Node& node) { return format_entity_id(kCheckpointIdPrefix, node.id); }

CheckpointMeta meta_of(const Node& node) {
  CheckpointMeta meta{id_of(node),     node.run->id,    node.epoch,   node.step,    node.type,        node.state,
                      node.size_bytes, node.created_at, std::nullopt, node.metrics, node.storage_path};
  if (node.parent != nullptr) meta.parent_id = id_of(*node.parent);
  return meta;
}

std::string name_of(const Node& node) {
  return fmt::format("checkpoint \"{}\" of run {}", id_of(node), names::quoted(node.run->id));
}

const Node* latest_under(const IndexByType& index, std::uint64_t max_step, std::uint32_t max_epoch) {
  const Node* latest = nullptr;
  for (const StepIndex& of_type : index) {
    const Node* const last = of_type.last(max_step, max_epoch);
    if (latest == nullptr || (last != nullptr && ByPlace()(latest, last))) latest = last;
  }
  return latest;
}

const Node* latest_restorable(const Run& run) {
  return latest_under(run.restorable, std::numeric_limits<std::uint64_t>::max(),
                      std::numeric_limits<std::uint32_t>::max());
}

const Node* Projection::find(std::string_view checkpoint_id) const {
  const std::optional<EntityId> id = parse_entity_id(kCheckpointIdPrefix, checkpoint_id);
  if (!id) return nullptr;
  const auto found = nodes.find(*id);
  return found == nodes.end() ? nullptr : &found->second;
}

const Run* Projection::find_run(std::string_view training_run_id) const {
  const auto found = runs.find(training_run_id);
  return found == runs.end() ? nullptr : &found->second;
}

const GcPolicy& Projection::effective_policy(std::string_view training_run_id) const {
  static const GcPolicy kAllZero;
  const auto own = policies.find(training_run_id);
  if (own != policies.end()) return own->second;
  return default_policy ? *default_policy : kAllZero;
}

void Projection::insert(const CheckpointCreated& event) {
  const CreateCheckpointRequest& request = event.request;
  Run& run = runs[request.training_run_id];
  if (run.checkpoint_count++ == 0) run.id = request.training_run_id;

  Node& node = nodes[event.checkpoint];
  node.id = event.checkpoint;
  node.run = &run;
  node.epoch = request.epoch;
  node.step = request.step;
  node.type = request.checkpoint_type;
  node.created_at = event.created_at;
  node.metrics = request.metrics;
  if (event.parent) {
    node.parent = &nodes.at(*event.parent);
    node.ancestors_complete = node.parent->is_restorable();
    node.next_sibling = node.parent->first_child;
    return_to_siblings(node);
  }
  run.live.insert(run.live.end(), &node);  // most often it is the last
  enter_indexes(node);
  ++live_count;
  node.digest = digest_of(meta_of(node));
  digest += node.digest;
  next_number = event.checkpoint.number + 1;
}

void Projection::erase(EntityId id) {
  Node& node = nodes.at(id);
  Run& run = *node.run;
  digest -= node.digest;
  --live_count;
  leave_indexes(node);
  run.live.erase(&node);
  leave_siblings(node);
  if (--run.checkpoint_count == 0) runs.erase(std::string(run.id));
  nodes.erase(id);
}

void Projection::change(Node& node, CheckpointState to, std::uint64_t size_bytes, std::string storage_path) {
  leave_indexes(node);
  leave_metrics(node);
  if (node.is_live()) live_bytes -= node.size_bytes;
  digest -= node.digest;
  node.state = to;
  node.size_bytes = size_bytes;
  node.storage_path = std::move(storage_path);
  node.digest = digest_of(meta_of(node));
  digest += node.digest;
  if (node.is_live()) live_bytes += node.size_bytes;
  enter_indexes(node);
  enter_metrics(node);
}

std::vector<Node*> Projection::set_state(Node& node, CheckpointState to, std::uint64_t size_bytes,
                                         std::string storage_path) {
  change(node, to, size_bytes, std::move(storage_path));
  if (to == CheckpointState::Deleted) {
    --live_count;
    node.run->live.erase(&node);
    leave_siblings(node);
  }
  return to == CheckpointState::Corrupted ? break_descendants(node) : std::vector<Node*>();
}

void Projection::restore_state(Node& node, CheckpointState to, std::uint64_t size_bytes, std::string storage_path,
                               const std::vector<EntityId>& broken) {
  for (const EntityId& id : broken) set_ancestors_complete(nodes.at(id), true);
  if (!node.is_live()) {
    ++live_count;
    node.run->live.insert(node.run->live.end(), &node);
    return_to_siblings(node);
  }
  change(node, to, size_bytes, std::move(storage_path));
}

std::optional<GcPolicy> Projection::own_policy(const std::optional<std::string>& training_run_id) const {
  if (!training_run_id) return default_policy;
  const auto own = policies.find(*training_run_id);
  return own == policies.end() ? std::nullopt : std::optional(own->second);
}

void Projection::set_policy(const std::optional<std::string>& training_run_id, const std::optional<GcPolicy>& policy) {
  if (const auto former = own_policy(training_run_id)) digest -= digest_of(training_run_id, *former);
  if (policy) digest += digest_of(training_run_id, *policy);
  if (!training_run_id) {
    default_policy = policy;
  } else if (policy) {
    policies.insert_or_assign(*training_run_id, *policy);
  } else {
    policies.erase(*training_run_id);
  }
}

}  // namespace tensorforge::checkpoint
