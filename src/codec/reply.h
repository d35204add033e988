#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "codec/record.h"
#include "platform/result.h"

namespace tensorforge {

// What the service answers: schemas/reply.fbs, whose comments explain the fields.

struct Reply;
namespace result {
using registry::ModelVersion;
struct Registered {
  std::string model_id;
  ModelVersion version;
  registry::DeploymentState state{};
  std::uint64_t registered_at{};
  bool operator==(const Registered&) const = default;
};
struct Transitioned {
  std::string model_id;
  ModelVersion version;
  registry::DeploymentState from{}, to{};
  bool operator==(const Transitioned&) const = default;
};
struct Allocated {
  std::string block_id;
  std::uint64_t offset{}, actual_size{};
  std::uint32_t evicted_blocks{};
  bool operator==(const Allocated&) const = default;
};
struct Evicted {
  std::uint64_t freed_bytes{}, blocks{};
  bool more{};
  bool operator==(const Evicted&) const = default;
};
struct Moves {
  std::vector<gpu_memory::Move> moves;
  bool more{};
  bool operator==(const Moves&) const = default;
};
struct DeletedCheckpoint {
  std::string checkpoint_id, storage_path;
  std::uint64_t size_bytes{};
  std::string training_run_id;
  bool operator==(const DeletedCheckpoint&) const = default;
};
struct Collected {
  std::vector<DeletedCheckpoint> deleted;
  bool more{};
  bool operator==(const Collected&) const = default;
};
struct BatchResult {
  std::vector<Reply> replies;
  bool operator==(const BatchResult&) const;
};
struct Done {
  bool operator==(const Done&) const = default;
};
struct Models {
  std::vector<registry::ModelMetadata> models;
  bool operator==(const Models&) const = default;
};
struct Versions {
  std::vector<ModelVersion> versions;
  bool operator==(const Versions&) const = default;
};
struct ValidationFound {
  registry::ValidationResult validation;
  bool operator==(const ValidationFound&) const = default;
};
struct Number {
  double value{};
  bool operator==(const Number&) const = default;
};
struct Verdict {
  bool holds{};
  std::string problem;
  bool operator==(const Verdict&) const = default;
};
struct BestModelFound {
  std::optional<std::string> model_id;
  ModelVersion version;
  bool operator==(const BestModelFound&) const = default;
};
struct Pools {
  std::vector<gpu_memory::GpuDevice> pools;
  bool operator==(const Pools&) const = default;
};
struct PoolStats {
  gpu_memory::PoolStats stats;
  double memory_pressure{};
  bool should_defragment{};
  double seconds_to_oom{};
  bool operator==(const PoolStats&) const = default;
};
struct Blocks {
  std::vector<gpu_memory::MemoryBlock> blocks;
  bool operator==(const Blocks&) const = default;
};
struct Checkpoints {
  std::vector<checkpoint::CheckpointMeta> checkpoints;
  bool operator==(const Checkpoints&) const = default;
};
struct Chain {
  std::vector<checkpoint::CheckpointMeta> checkpoints;
  std::uint64_t size_bytes{}, estimated_restore_ms{}, length{};
  bool operator==(const Chain&) const = default;
};
struct Due {
  bool due{};
  std::uint64_t last_step{}, interval{};
  bool operator==(const Due&) const = default;
};
struct Policy {
  checkpoint::GcPolicy policy;
  bool inherited{};
  bool operator==(const Policy&) const = default;
};
struct LogRecord {
  std::string record;  ///< its bytes, as they stand in the log: codec::decode_record
  std::optional<Salt> salt;
  std::string note;  ///< codec::decode_note; empty: none
  bool operator==(const LogRecord&) const = default;
};
struct LogRecords {
  std::vector<LogRecord> records;
  bool operator==(const LogRecords&) const = default;
};
struct LogVerified {
  Sequence sequence{};
  Hash root{};
  std::uint64_t chunks{}, bytes{};
  bool operator==(const LogVerified&) const = default;
};
struct Status {
  Sequence sequence{}, anchored_sequence{};
  std::string state_digest;
  std::uint32_t incarnation{};
  LogId log_id{};
  Sequence verified_to{};
  Hash root{};
  std::string version, ack;
  std::uint64_t started_at{}, time{};
  std::uint64_t models{}, model_versions{}, pools{}, live_blocks{}, checkpoints{}, sessions{}, connections{}, refused{};
  std::string changes_refused_because;  ///< empty: changes are accepted
  std::uint32_t group_commit_p50_us{}, group_commit_p99_us{};
  Sequence snapshot_sequence{};  ///< of the newest snapshot that is known to be whole; 0: there is none
  bool operator==(const Status&) const = default;
};
struct SnapshotTaken {
  Sequence sequence{};
  std::uint64_t bytes{};  ///< of its file
  bool operator==(const SnapshotTaken&) const = default;
};
}  // namespace result

using ReplyResult =
    std::variant<result::Done, result::Registered, result::Transitioned, result::Allocated, result::Evicted,
                 result::Moves, result::Collected, result::BatchResult, result::Models, result::Versions,
                 result::ValidationFound, result::Number, result::Verdict, result::BestModelFound, result::Pools,
                 result::PoolStats, result::Blocks, result::Checkpoints, result::Chain, result::Due, result::Policy,
                 result::LogRecords, result::LogVerified, result::Status, result::SnapshotTaken>;

struct Welcome {
  std::uint16_t protocol{1};
  LogId log_id{};
  std::uint32_t incarnation{};
  Sequence sequence{}, opened_at{};
  std::string server;
  bool operator==(const Welcome&) const = default;
};
struct Reply {
  std::uint64_t correlation_id{};
  absl::Status status;  ///< a refusal has no result
  Sequence sequence{};  ///< of a change: its last event's; else the state's that was read
  std::uint32_t incarnation{};
  ReplyResult result;
  std::optional<std::string> next_page_token;
  bool operator==(const Reply&) const = default;
};
using ServerMessage = std::variant<Welcome, Reply>;

namespace codec {

/// A Reply whose result is Models, with one model that stays where it is.
struct ModelReply {
  std::uint64_t correlation_id{};
  Sequence sequence{};
  std::uint32_t incarnation{};
  const registry::ModelView& model;
};

/// A whole size-prefixed frame. kInvalidArgument: over kMaxFrameBytes.
Result<std::string> encode_server_frame(const ServerMessage&);
/// A frame that says the same, at times in a few bytes more, behind what `out` holds; where it refuses, `out` is as it
/// was.
absl::Status append_server_frame(const Reply&, std::string& out);
absl::Status append_server_frame(const ModelReply&, std::string& out);
/// As decode_client_frame.
Result<ServerMessage> decode_server_frame(std::span<const std::byte> frame);

/// A Reply read where it lies, by who compares it and keeps nothing of it. Valid as long as the frame.
struct ReplyView {
  std::uint64_t correlation_id{};
  absl::StatusCode code{};
  Sequence sequence{};
  std::uint32_t incarnation{};
  struct Version {
    std::string_view model_id;
    registry::ModelVersion version;
  };
  std::optional<Version> version;  ///< of a result::Registered, or of a result::Models with one model
};
/// nullopt: not a Reply. kInvalidArgument: malformed, or a code that does not exist; only what the view holds is looked
/// at beyond that.
Result<std::optional<ReplyView>> view_reply(std::span<const std::byte> frame);

/// At most what an element of a list adds to the frame, so that a page is cut before it is encoded: a reply whose
/// elements add up to kMaxFrameBytes / 2 always fits. Never under the truth, and seldom over twice it.
std::size_t page_bytes(const registry::ModelMetadata&);
std::size_t page_bytes(const registry::ModelView&);
std::size_t page_bytes(const registry::ModelVersion&);
std::size_t page_bytes(const gpu_memory::GpuDevice&);
std::size_t page_bytes(const gpu_memory::MemoryBlock&);
std::size_t page_bytes(const checkpoint::CheckpointMeta&);
std::size_t page_bytes(const result::LogRecord&);

}  // namespace codec
}  // namespace tensorforge
