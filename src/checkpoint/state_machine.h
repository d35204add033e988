#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "checkpoint/checkpoint.h"
#include "platform/digest.h"
#include "platform/entity_id.h"
#include "platform/result.h"

namespace tensorforge::checkpoint {

inline constexpr std::string_view kCheckpointIdPrefix = "ck";

class Projection;  ///< projection.h

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
using Events = absl::InlinedVector<Event, 1>;  // of most commands one

/// What decide() may not find out for itself.
struct Context {
  std::uint64_t now{};          ///< ms since the Unix epoch
  std::uint32_t incarnation{};  ///< goes into new checkpoint ids
  /// Limits of one CollectGarbage; its first deletion goes through whatever they say.
  std::size_t max_deletions{std::numeric_limits<std::size_t>::max()};
  std::size_t max_path_bytes{
      std::numeric_limits<std::size_t>::max()};  ///< checkpoint ids, run ids and paths of what it deletes, together
};

/// All checkpoints (Deleted ones too) and policies.
///
/// Threads: none; the facade locks, the service has one writer.
/// Cost:    n is the number of live checkpoints in the run. O(log n), but for what is said below.
class State {
 public:
  State();
  ~State();
  State(State&&) noexcept;
  State& operator=(State&&) noexcept;

  std::optional<CheckpointMeta> find(std::string_view checkpoint_id) const;
  /// nullptr: unknown. Valid until the next apply() or undo().
  const std::string* run_of(std::string_view checkpoint_id) const;
  /// Whether the run ever had a checkpoint.
  bool has_run(std::string_view training_run_id) const;
  /// Whatever the bounds on epoch and step have to do with each other.
  std::optional<CheckpointMeta> find_restore_point(const RestoreCriteria& criteria) const;
  std::optional<CheckpointMeta> latest(std::string_view training_run_id) const;  ///< Complete, restorable or not

  /// Up to `limit` live ones in the contract's order, behind the checkpoint `after_id` (nullopt: from the start), which
  /// may be Deleted by now. Nothing is behind a checkpoint that is not of this run. O(log n + limit).
  std::vector<CheckpointMeta> list_for_run(std::string_view training_run_id, const std::optional<std::string>& after_id,
                                           std::size_t limit) const;
  /// Likewise; nothing is behind a checkpoint without this metric.
  std::vector<CheckpointMeta> find_by_metric(std::string_view training_run_id, std::string_view metric_key,
                                             double threshold, bool ascending,
                                             const std::optional<std::string>& after_id, std::size_t limit) const;
  /// Root first, whatever the states on the way; empty: unknown. O(length).
  std::vector<CheckpointMeta> restoration_chain(std::string_view checkpoint_id) const;
  /// validate_checkpoint() over its chain. kNotFound: unknown. O(length).
  absl::Status validate(std::string_view checkpoint_id) const;

  /// The run's own policy, else nullopt.
  std::optional<GcPolicy> policy(std::string_view training_run_id) const;
  /// For the runs without one; all zero until it is set.
  const GcPolicy& default_policy() const;

  std::size_t total_count() const;   ///< live ones
  std::uint64_t total_size() const;  ///< bytes of the live ones; saturates
  /// Sum of the hashes of all checkpoints and of the policies that were set; O(1).
  Digest digest() const;

  /// For this folder's sources.
  const Projection& projection() const { return *projection_; }
  Projection& projection() { return *projection_; }

 private:
  std::unique_ptr<Projection> projection_;
};

/// The former values of what some events touched, so that undo() can put them back.
struct Undo {
  struct Created {
    EntityId checkpoint;
    std::uint64_t next_number{};
  };
  struct Changed {
    EntityId checkpoint;
    CheckpointState state{};
    std::uint64_t size_bytes{};
    std::string storage_path;
    std::vector<EntityId> broken;  ///< descendants that could be restored until then
  };
  struct Policy {
    std::optional<std::string> training_run_id;
    std::optional<GcPolicy> policy;
  };
  std::vector<std::variant<Created, Changed, Policy>> steps;  ///< oldest first
};

/// What `command` would do: its events, none for a no-op (a policy that is set already, nothing to collect). Changes
/// nothing. Errors as the contract says. O(log n), but for CollectGarbage, which is O(n log n) in each run that may
/// have something to delete.
///
/// CollectGarbage tells its deletions in the contract's order, runs by id and within a run by descending (step,
/// created_at): children before parents, so every beginning of its events is a legal history. Where a limit of
/// `context` ends it, the next one goes on. Both together delete what one without limits would have, unless
/// a Corrupted checkpoint stands between live ones: a second one deletes it before it counts.
Result<Events> decide(const State& state, const Command& command, const Context& context);
/// Never refuses: what it is told has happened. O(log n); a corruption also walks the descendants that could be
/// restored until then, each once for ever.
void apply(State& state, const Event& event, Undo* undo = nullptr);
/// Puts everything back as it was before the first apply() with this `undo`.
void undo(State& state, Undo&& undo);

}  // namespace tensorforge::checkpoint
