#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "checkpoint/state_machine.h"

namespace tensorforge::checkpoint {

// What a snapshot holds of this domain, and the way back. A restored state is equal to the one that was saved in
// everything that can be seen of it.

/// A checkpoint as it is now: how it began, and what became of it.
struct StoredCheckpoint {
  CheckpointCreated created;
  CheckpointState state{};
  std::uint64_t size_bytes{};
  std::string storage_path;
  bool operator==(const StoredCheckpoint&) const = default;
};

/// Every checkpoint, Deleted ones too, in the order of creation.
void for_each_checkpoint(const State&, const std::function<void(const StoredCheckpoint&)>& visit);
/// Every policy that was set: the default, then those of the runs by id.
void for_each_policy(const State&, const std::function<void(const PolicySet&)>& visit);
std::size_t stored_checkpoint_count(const State&);  ///< Deleted ones too
std::size_t policy_count(const State&);
/// Of the next checkpoint; counts over all runs.
std::uint64_t next_checkpoint_number(const State&);

/// Checkpoints come in the order of creation. kDataLoss: its number is not above that of the one before, or its parent
/// is not there or in another run.
absl::Status restore(State&, StoredCheckpoint&&);
/// kDataLoss: it was set already.
absl::Status restore(State&, const PolicySet&);
/// After the checkpoints. kDataLoss: a checkpoint has this number, or a higher one.
absl::Status restore_next_checkpoint_number(State&, std::uint64_t number);

}  // namespace tensorforge::checkpoint
