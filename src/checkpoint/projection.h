#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "absl/numeric/int128.h"
#include "checkpoint/metric_index.h"
#include "checkpoint/state_machine.h"
#include "checkpoint/step_index.h"
#include "platform/digest.h"
#include "platform/entity_id.h"

namespace tensorforge::checkpoint {

struct Run;

/// A checkpoint, its place in its chain and its place in the indexes of its run. Its address never changes.
struct Node {
  EntityId id;
  Run* run{};
  std::uint32_t epoch{};
  std::uint64_t step{};
  CheckpointType type{};
  CheckpointState state{CheckpointState::Creating};
  std::uint64_t size_bytes{}, created_at{};
  Node* parent{};
  std::map<std::string, double> metrics;
  std::string storage_path;

  bool ancestors_complete{true};  ///< never true again once false: nothing becomes Complete from Corrupted
  // The live children, last created first. A child that leaves the list keeps its own two pointers, so that the
  // reverse of a history of leavings puts each back exactly where it was.
  Node *first_child{}, *next_sibling{}, *previous_sibling{};
  StepIndex::Link link;
  Digest digest;

  bool is_live() const { return state != CheckpointState::Deleted; }
  bool is_restorable() const { return state == CheckpointState::Complete && ancestors_complete; }
};

/// The order of creation. Numbers rise through all incarnations of a log.
inline auto creation_of(const Node& node) { return std::tuple(node.created_at, node.id.number, node.id.incarnation); }
/// "The latest" is the greatest in this order; lists follow it.
inline auto place_of(const Node& node) { return std::tuple_cat(std::tuple(node.step), creation_of(node)); }

struct ByPlace {
  bool operator()(const Node* a, const Node* b) const { return place_of(*a) < place_of(*b); }
};

/// One of StepIndex for each type. What is in none of them is Corrupted, Deleted, or a Creating one that has lost its
/// chain: no query looks for those but a listing.
using IndexByType = std::array<StepIndex, 3>;

struct Run {
  std::string id;
  std::size_t checkpoint_count{};       ///< Deleted ones too
  std::set<const Node*, ByPlace> live;  ///< no pointer order: place_of is different for any two
  IndexByType restorable;
  IndexByType pending;                                        ///< Creating, all ancestors Complete
  StepIndex chainless;                                        ///< Complete, not restorable
  std::map<std::string, MetricIndex, std::less<>> by_metric;  ///< Complete, by the name of each of their metrics
  std::size_t complete_count{}, corrupted_count{};
};

/// What stands behind State: all checkpoints by id, their runs, the policies, and the sums over them.
///
/// Each change keeps every index and the digest; each costs O(log n), but `set_state` to Corrupted, which walks the
/// descendants that can be restored until then.
class Projection {
 public:
  std::unordered_map<EntityId, Node> nodes;
  std::map<std::string, Run, std::less<>> runs;  ///< by id, the order in which a collection goes through them
  std::optional<GcPolicy> default_policy;        ///< absent: never set, all zero
  std::map<std::string, GcPolicy, std::less<>> policies;
  std::uint64_t next_number{1};
  std::size_t live_count{};
  absl::uint128 live_bytes{};
  Digest digest;

  const Node* find(std::string_view checkpoint_id) const;
  const Run* find_run(std::string_view training_run_id) const;
  const GcPolicy& effective_policy(std::string_view training_run_id) const;

  void insert(const CheckpointCreated& event);
  void erase(EntityId id);  ///< takes back the last insert
  /// Returns the descendants that lost their way to the root with this change.
  std::vector<Node*> set_state(Node& node, CheckpointState to, std::uint64_t size_bytes, std::string storage_path);
  /// Takes back the last set_state, which returned `broken`.
  void restore_state(Node& node, CheckpointState to, std::uint64_t size_bytes, std::string storage_path,
                     const std::vector<EntityId>& broken);
  /// nullopt: none of its own.
  void set_policy(const std::optional<std::string>& training_run_id, const std::optional<GcPolicy>& policy);
  std::optional<GcPolicy> own_policy(const std::optional<std::string>& training_run_id) const;

 private:
  void change(Node& node, CheckpointState to, std::uint64_t size_bytes, std::string storage_path);
};

std::string id_of(const Node& node);
CheckpointMeta meta_of(const Node& node);
/// For messages: checkpoint "ck-00000000-1" of run "r".
std::string name_of(const Node& node);

/// The greatest by place_of among the three; nullptr: all are empty under these bounds.
const Node* latest_under(const IndexByType& index, std::uint64_t max_step, std::uint32_t max_epoch);
const Node* latest_restorable(const Run& run);

}  // namespace tensorforge::checkpoint
