#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "platform/digest.h"
#include "platform/entity_id.h"
#include "platform/result.h"

namespace tensorforge::checkpoint {

inline constexpr std::string_view kCheckpointIdPrefix = "ck";

// Commands order.
struct CreateCheckpoint {
  CreateCheckpointRequest request;
  bool operator==(const CreateCheckpoint&) const = default;
};
struct CompleteCheckpoint {
  std::string checkpoint_id;
  std::uint64_t size_bytes{};
  std::string storage_path;
  bool operator==(const CompleteCheckpoint&) const = default;
};
struct CorruptCheckpoint {
  std::string checkpoint_id;
  bool operator==(const CorruptCheckpoint&) const = default;
};
struct RemoveCheckpoint {
  std::string checkpoint_id;
  bool operator==(const RemoveCheckpoint&) const = default;
};
struct CollectGarbage {  ///< of every run, each by its policy
  bool operator==(const CollectGarbage&) const = default;
};
struct SetPolicy {
  std::optional<std::string> training_run_id;  ///< absent: the default
  GcPolicy policy;
  bool operator==(const SetPolicy&) const = default;
};
using Command =
    std::variant<CreateCheckpoint, CompleteCheckpoint, CorruptCheckpoint, RemoveCheckpoint, CollectGarbage, SetPolicy>;

// Events tell.
struct CheckpointCreated {
  EntityId checkpoint;
  CreateCheckpointRequest request;
  std::optional<EntityId> parent;
  std::uint64_t created_at{};
  bool operator==(const CheckpointCreated&) const = default;
};
struct CheckpointCompleted {
  EntityId checkpoint;
  std::string training_run_id;
  std::uint64_t size_bytes{};
  std::string storage_path;
  bool operator==(const CheckpointCompleted&) const = default;
};
struct CheckpointCorrupted {
  EntityId checkpoint;
  std::string training_run_id;
  bool operator==(const CheckpointCorrupted&) const = default;
};
enum class DeletionCause { Removed, GarbageCollected };
std::string_view to_string(DeletionCause);
std::optional<DeletionCause> parse_deletion_cause(std::string_view name);
struct CheckpointDeleted {
  EntityId checkpoint;
  std::string training_run_id;
  DeletionCause cause{};
  std::string storage_path;  ///< what may now be erased from storage
  std::uint64_t size_bytes{};
  bool more{};  ///< in the command's last event: a limit ended the collection and there is more to delete
  bool operator==(const CheckpointDeleted&) const = default;
};
struct PolicySet {
  std::optional<std::string> training_run_id;
  GcPolicy policy;
  bool operator==(const PolicySet&) const = default;
};
using Event = std::variant<CheckpointCreated, CheckpointCompleted, CheckpointCorrupted, CheckpointDeleted, PolicySet>;
using Events = std::vector<Event>;

/// What decide() may not find out for itself.
struct Context {
  std::uint64_t now{};                                                 ///< ms since the Unix epoch
  std::uint32_t incarnation{};                                         ///< goes into new checkpoint ids
  std::size_t max_deletions{std::numeric_limits<std::size_t>::max()};  ///< of one CollectGarbage
  std::size_t max_path_bytes{
      std::numeric_limits<std::size_t>::max()};  ///< ids and paths of what one CollectGarbage deletes, together
};

/// All checkpoints (Deleted ones too) and policies.
///
/// Threads: none; the facade locks, the service has one writer.
class State {
 public:
  std::optional<CheckpointMeta> find(std::string_view checkpoint_id) const;
  const std::string* run_of(std::string_view checkpoint_id) const;  ///< nullptr: unknown
  bool has_run(std::string_view training_run_id) const;
  std::optional<CheckpointMeta> find_restore_point(const RestoreCriteria&) const;
  std::optional<CheckpointMeta> latest(std::string_view training_run_id) const;
  /// Behind the checkpoint `after_id` (nullopt: from the start) in the contract's order, Deleted ones left out.
  std::vector<CheckpointMeta> list_for_run(std::string_view training_run_id, const std::optional<std::string>& after_id,
                                           std::size_t limit) const;
  std::vector<CheckpointMeta> find_by_metric(std::string_view training_run_id, std::string_view metric_key,
                                             double threshold, bool ascending,
                                             const std::optional<std::string>& after_id, std::size_t limit) const;
  std::vector<CheckpointMeta> restoration_chain(std::string_view checkpoint_id) const;  ///< root first
  absl::Status validate(std::string_view checkpoint_id) const;
  /// The run's own policy, else nullopt.
  std::optional<GcPolicy> policy(std::string_view training_run_id) const;
  const GcPolicy& default_policy() const;
  std::size_t total_count() const;
  std::uint64_t total_size() const;
  /// Sum of the hashes of all checkpoints and policies; O(1).
  Digest digest() const;
};

struct Undo;
Result<Events> decide(const State&, const Command&, const Context&);
void apply(State&, const Event&, Undo* undo = nullptr);
void undo(State&, Undo&&);

}  // namespace tensorforge::checkpoint
