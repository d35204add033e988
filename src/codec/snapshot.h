#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "checkpoint/snapshot.h"
#include "gpu_memory/snapshot.h"
#include "platform/digest.h"
#include "platform/log_types.h"
#include "platform/result.h"
#include "registry/state_machine.h"

namespace tensorforge {

// The parts of a snapshot, in their order: schemas/snapshot.fbs, whose comments explain the fields.

struct SnapshotFacts {
  struct Incarnation {
    std::uint32_t id{};
    Sequence first_sequence{};
    bool operator==(const Incarnation&) const = default;
  };
  /// How many of each follow.
  struct Counts {
    std::uint64_t models{}, validations{}, pools{}, blocks{}, checkpoints{}, policies{}, sessions{}, streams{};
    bool operator==(const Counts&) const = default;
  };
  Sequence sequence{};
  std::uint64_t time{};
  std::vector<Incarnation> incarnations;
  Sequence horizon{};
  std::uint64_t next_block_number{}, next_checkpoint_number{};
  Digest registry, gpu_memory, checkpoint;
  Counts counts;
  bool operator==(const SnapshotFacts&) const = default;
};
struct SnapshotModels {
  std::vector<registry::PackedModel> models;
  bool operator==(const SnapshotModels&) const = default;
};
struct SnapshotValidations {
  std::vector<registry::ValidationResult> validations;
  bool operator==(const SnapshotValidations&) const = default;
};
struct SnapshotPools {
  std::vector<gpu_memory::GpuDevice> pools;
  bool operator==(const SnapshotPools&) const = default;
};
struct SnapshotBlocks {
  std::string device_id;
  std::vector<gpu_memory::LiveBlock> blocks;
  bool operator==(const SnapshotBlocks&) const = default;
};
struct SnapshotCheckpoints {
  std::vector<checkpoint::StoredCheckpoint> checkpoints;
  bool operator==(const SnapshotCheckpoints&) const = default;
};
struct SnapshotPolicies {
  std::vector<checkpoint::PolicySet> policies;
  bool operator==(const SnapshotPolicies&) const = default;
};
struct SnapshotSessions {
  struct Entry {
    std::uint64_t number{};
    Sequence first{};
    std::uint32_t count{};
    bool operator==(const Entry&) const = default;
  };
  struct Session {
    SessionId id{};
    Sequence opened_at{};
    std::uint64_t answered_below{1};
    std::vector<Entry> entries;
    bool operator==(const Session&) const = default;
  };
  std::vector<Session> sessions;
  bool operator==(const SnapshotSessions&) const = default;
};
struct SnapshotStreams {
  struct Stream {
    std::string name;
    Sequence last{};
    bool operator==(const Stream&) const = default;
  };
  std::vector<Stream> streams;
  bool operator==(const SnapshotStreams&) const = default;
};
using SnapshotPart = std::variant<SnapshotFacts, SnapshotModels, SnapshotValidations, SnapshotPools, SnapshotBlocks,
                                  SnapshotCheckpoints, SnapshotPolicies, SnapshotSessions, SnapshotStreams>;

namespace codec {

inline constexpr std::size_t kMaxSnapshotPageBytes = std::size_t{1} << 20U;

/// One page of a snapshot; the same bytes for the same part on every machine.
/// kInvalidArgument: it would pass 1 MiB.
Result<std::string> encode_snapshot_part(const SnapshotPart&);
/// Trusts nothing: any bytes give a part whose values are whole, or an error.
/// kDataLoss: no page of ours, or damaged. kUnimplemented: a newer version wrote it.
Result<SnapshotPart> decode_snapshot_part(std::span<const std::byte>);

}  // namespace codec
}  // namespace tensorforge
