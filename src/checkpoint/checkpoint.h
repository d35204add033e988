#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "platform/result.h"

/// The checkpoints of training runs: which exist, what each is built on, which one to restore, which may go.
///
/// An Incremental holds the difference to its parent, so a checkpoint can be restored only with its whole chain.
/// *Restorable*: Complete, with a chain that is Complete up to its root. *Latest*: the highest step, then the latest
/// creation. *Live*: not Deleted. Creations at the same time are told apart by their order.
namespace tensorforge::checkpoint {

/// Creating → Complete | Corrupted, Complete → Corrupted, and each of the three → Deleted, a tombstone for ever.
enum class CheckpointState { Creating, Complete, Corrupted, Deleted };
std::string_view to_string(CheckpointState);
std::optional<CheckpointState> parse_checkpoint_state(std::string_view name);
enum class CheckpointType { Full, Incremental, Emergency };
std::string_view to_string(CheckpointType);
std::optional<CheckpointType> parse_checkpoint_type(std::string_view name);

struct CheckpointMeta {
  std::string checkpoint_id, training_run_id;
  std::uint32_t epoch{};
  std::uint64_t step{};
  CheckpointType checkpoint_type{};
  CheckpointState state{};
  std::uint64_t size_bytes{}, created_at{};  ///< size: 0 until Complete; time: ms since the Unix epoch
  std::optional<std::string> parent_id;      ///< what an Incremental is built on; absent: a root
  std::map<std::string, double> metrics;
  std::string storage_path;  ///< empty until Complete
  bool operator==(const CheckpointMeta&) const = default;
};
struct CreateCheckpointRequest {
  std::string training_run_id;
  std::uint32_t epoch{};
  std::uint64_t step{};
  CheckpointType checkpoint_type{};
  std::map<std::string, double> metrics;
  bool operator==(const CreateCheckpointRequest&) const = default;
};
struct RestoreCriteria {
  std::string training_run_id;
  std::optional<std::uint32_t> max_epoch;  ///< inclusive, as max_step
  std::optional<std::uint64_t> max_step;
  bool require_complete{true}, prefer_full{};
  bool operator==(const RestoreCriteria&) const = default;
};
/// What a garbage collection may take. All zero: only Corrupted ones.
struct GcPolicy {
  std::size_t max_checkpoints_per_run{};  ///< Complete ones; 0: no limit. The protected may push a run over it
  std::uint64_t max_age_seconds{};        ///< 0: no checkpoint is too old
  std::size_t keep_best_n{};              ///< of the restorable ones, by `metric_key`
  std::string metric_key;                 ///< empty: none is best
  bool metric_ascending{true};            ///< lower is better
  bool operator==(const GcPolicy&) const = default;
};

// The functions below are pure and take checkpoints of any origin, with any text as an id. Where an id occurs twice in
// a span, its first holder counts. Those over chains cost O(span) and neither loop nor recurse.

/// Checkpoints from the root to this one, both counted; 0: it is unknown, an ancestor is missing, or it is on or above
/// a cycle. The three functions after this one answer the same cases with "none", an empty chain and 0.
std::size_t chain_length(std::span<const CheckpointMeta> checkpoints, std::string_view checkpoint_id);
std::optional<std::string> find_chain_root(std::span<const CheckpointMeta> checkpoints, std::string_view checkpoint_id);
/// Ids in the order of restoring: root first, target last.
std::vector<std::string> restoration_chain(std::span<const CheckpointMeta> checkpoints, std::string_view target_id);
/// Bytes to read for a restoration; saturates.
std::uint64_t chain_size(std::span<const CheckpointMeta> checkpoints, std::string_view target_id);

/// Whether `policy` lets go of this checkpoint, seen alone: gc also looks at what depends on it.
/// `latest_step` is that of the run's latest restorable checkpoint, `now` is in ms.
bool is_gc_eligible(const CheckpointMeta& checkpoint, const GcPolicy& policy, std::uint64_t latest_step,
                    std::uint64_t now, bool is_best);

/// An ordered key for sorting, in no unit: Complete first, then (`prefer_full`) Full, Emergency, Incremental, then the
/// later step, then no parent. -infinity: of another run, or outside the limits; else finite and positive. Steps below
/// 2^59 - 1 are told apart exactly, all others tie.
double selection_score(const CheckpointMeta& checkpoint, const RestoreCriteria& criteria);

/// In ms; saturates. 2^64 - 1 where the rate is not positive or NaN.
std::uint64_t estimate_restore_time(std::span<const CheckpointMeta> chain, std::uint64_t base_ms,
                                    std::uint64_t per_checkpoint_ms, double bytes_per_ms);

/// Whether the checkpoint agrees with itself and with its chain in `all_checkpoints` (where it need not be itself).
/// kNotFound: an ancestor is missing. kFailedPrecondition: any other fault. Both say which.
absl::Status validate_checkpoint(const CheckpointMeta& checkpoint, std::span<const CheckpointMeta> all_checkpoints);

class State;

/// The checkpoints of any number of runs, in memory.
///
/// Threads: safe to call from any; reads run side by side.
/// Time:    `now` is in ms since the Unix epoch; it may stand still or go back.
/// Cost:    O(log n) in the run's checkpoints, and for a list its length; gc O(n log n) in each run.
/// Errors:  kInvalidArgument before anything else, kNotFound for an unknown id, kFailedPrecondition for a wrong state;
///          after an error nothing has changed.
class CheckpointManager {
 public:
  explicit CheckpointManager(GcPolicy policy);
  ~CheckpointManager();
  CheckpointManager(const CheckpointManager&) = delete;
  CheckpointManager& operator=(const CheckpointManager&) = delete;

  /// A new checkpoint in Creating, with an id of its own and, for an Incremental, the parent to make the difference
  /// against: the run's latest restorable one at or under its step and epoch.
  /// kFailedPrecondition: there is no such parent.
  Result<CheckpointMeta> create(const CreateCheckpointRequest& request, std::uint64_t now);
  /// kFailedPrecondition: it is not Creating, or a parent can no longer be restored.
  absl::Status complete(std::string_view checkpoint_id, std::uint64_t size_bytes, std::string storage_path);
  /// Nothing that descends from it can be restored any more.
  absl::Status mark_corrupted(std::string_view checkpoint_id);
  /// A Deleted one too; nullopt: unknown.
  std::optional<CheckpointMeta> get(std::string_view checkpoint_id) const;
  /// The one with the highest selection_score among those within the criteria whose ancestors are all Complete.
  std::optional<CheckpointMeta> find_restore_point(const RestoreCriteria& criteria) const;
  /// Live ones by (step, created_at); empty for an unknown run.
  std::vector<CheckpointMeta> list_for_run(std::string_view training_run_id) const;
  /// The latest Complete one, restorable or not.
  std::optional<CheckpointMeta> get_latest(std::string_view training_run_id) const;
  /// Deletes what the policy lets go of, in every run. The ids: runs by id, in a run by descending (step, created_at).
  std::vector<std::string> gc(std::uint64_t now);
  std::size_t total_count() const;   ///< live ones
  std::uint64_t total_size() const;  ///< bytes of the live ones; saturates
  /// kFailedPrecondition: it is Deleted already, or a live one descends from it.
  absl::Status remove(std::string_view checkpoint_id);
  /// Complete ones with the metric <= threshold (`ascending`: lower is better) or >=, best first.
  std::vector<CheckpointMeta> find_by_metric(std::string_view training_run_id, std::string_view metric_key,
                                             double threshold, bool ascending) const;

 private:
  mutable std::shared_mutex mutex_;
  std::unique_ptr<State> state_;
};

}  // namespace tensorforge::checkpoint
