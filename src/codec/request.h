#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "codec/record.h"
#include "platform/result.h"

namespace tensorforge {

// What a client may ask: schemas/command.fbs.

struct AcceptClock {
  bool operator==(const AcceptClock&) const = default;
};
using SingleCommand = std::variant<registry::Command, gpu_memory::Command, checkpoint::Command, AcceptClock>;
struct BatchItem {
  SingleCommand command;
  std::optional<Sequence> if_sequence;
  bool operator==(const BatchItem&) const = default;
};
/// 1 to 100 commands that happen together or not at all; each sees those before it.
struct Batch {
  std::vector<BatchItem> items;
  bool operator==(const Batch&) const = default;
};
inline constexpr std::size_t kMaxBatchItems = 100;
using Command = std::variant<SingleCommand, Batch>;

struct Page {
  std::uint32_t size{};              ///< 0: the default, 1,000; at most 10,000
  std::optional<std::string> token;  ///< as the reply before gave it; absent: from the start
  bool operator==(const Page&) const = default;
};
inline constexpr std::uint32_t kDefaultPageSize = 1'000, kMaxPageSize = 10'000;

namespace query {
using registry::ModelVersion;
struct GetModel {
  std::string model_id;
  std::optional<ModelVersion> version;  ///< absent: the highest
  bool operator==(const GetModel&) const = default;
};
struct ListVersions {
  std::string model_id;
  Page page;
  bool operator==(const ListVersions&) const = default;
};
struct ListModels {
  Page page;
  bool operator==(const ListModels&) const = default;
};
struct FindModels {
  registry::DeploymentState state{};
  Page page;
  bool operator==(const FindModels&) const = default;
};
struct GetValidation {
  std::string model_id;
  ModelVersion version;
  bool operator==(const GetValidation&) const = default;
};
struct CompareShapes {
  std::string a_model_id;
  ModelVersion a_version;
  std::string b_model_id;
  ModelVersion b_version;
  bool operator==(const CompareShapes&) const = default;
};
struct CheckSla {
  std::string model_id;
  ModelVersion version;
  double max_latency_ms{}, min_accuracy{};
  bool operator==(const CheckSla&) const = default;
};
struct BestModel {
  std::vector<std::string> model_ids;
  bool operator==(const BestModel&) const = default;
};
struct RollbackPriority {
  std::string model_id;
  ModelVersion current, baseline;
  bool operator==(const RollbackPriority&) const = default;
};
struct ListPools {
  Page page;
  bool operator==(const ListPools&) const = default;
};
struct GetPoolStats {
  std::string device_id;
  bool operator==(const GetPoolStats&) const = default;
};
struct ListBlocks {
  std::string device_id;
  Page page;
  bool operator==(const ListBlocks&) const = default;
};
struct GetBlock {
  std::string device_id, block_id;
  bool operator==(const GetBlock&) const = default;
};
struct BlocksForTensor {
  std::string device_id, tensor_id;
  Page page;
  bool operator==(const BlocksForTensor&) const = default;
};
struct PlanDefragment {
  std::string device_id;
  bool operator==(const PlanDefragment&) const = default;
};
struct GetCheckpoint {
  std::string checkpoint_id;
  bool operator==(const GetCheckpoint&) const = default;
};
struct ListCheckpoints {
  std::string training_run_id;
  Page page;
  bool operator==(const ListCheckpoints&) const = default;
};
struct LatestCheckpoint {
  std::string training_run_id;
  bool operator==(const LatestCheckpoint&) const = default;
};
struct FindRestorePoint {
  checkpoint::RestoreCriteria criteria;
  bool operator==(const FindRestorePoint&) const = default;
};
struct RestorationChain {
  std::string checkpoint_id;
  Page page;
  bool operator==(const RestorationChain&) const = default;
};
struct ValidateCheckpoint {
  std::string checkpoint_id;
  bool operator==(const ValidateCheckpoint&) const = default;
};
struct CheckpointDue {
  std::string training_run_id;
  std::uint64_t step{};
  std::optional<std::uint64_t> interval;  ///< absent: the service's configured one
  bool operator==(const CheckpointDue&) const = default;
};
struct FindCheckpoints {
  std::string training_run_id, metric_key;
  double threshold{};
  bool ascending{true};
  Page page;
  bool operator==(const FindCheckpoints&) const = default;
};
struct GetPolicy {
  std::optional<std::string> training_run_id;  ///< absent: the default
  bool operator==(const GetPolicy&) const = default;
};
struct ReadLog {
  Sequence first{};
  std::uint32_t page_size{};
  bool operator==(const ReadLog&) const = default;
};
struct ReadHistory {
  std::string stream;
  Page page;
  bool operator==(const ReadHistory&) const = default;
};
struct VerifyLog {
  bool operator==(const VerifyLog&) const = default;
};
struct GetStatus {
  bool operator==(const GetStatus&) const = default;
};
struct TakeSnapshot {
  bool operator==(const TakeSnapshot&) const = default;
};
}  // namespace query

using Query =
    std::variant<query::GetModel, query::ListVersions, query::ListModels, query::FindModels, query::GetValidation,
                 query::CompareShapes, query::CheckSla, query::BestModel, query::RollbackPriority, query::ListPools,
                 query::GetPoolStats, query::ListBlocks, query::GetBlock, query::BlocksForTensor, query::PlanDefragment,
                 query::GetCheckpoint, query::ListCheckpoints, query::LatestCheckpoint, query::FindRestorePoint,
                 query::RestorationChain, query::ValidateCheckpoint, query::CheckpointDue, query::FindCheckpoints,
                 query::GetPolicy, query::ReadLog, query::ReadHistory, query::VerifyLog, query::GetStatus,
                 query::TakeSnapshot>;

struct Hello {
  std::uint16_t lowest_protocol{1}, highest_protocol{1};
  std::optional<SessionId> session;
  std::optional<Sequence> opened_at;
  std::string actor;
  Sequence seen_sequence{};
  std::uint32_t seen_incarnation{};
  std::string client;
  bool operator==(const Hello&) const = default;
};
using RequestBody = std::variant<Command, Query>;
struct Request {
  std::uint64_t correlation_id{};
  std::uint64_t command_number{}, answered_below{};
  std::optional<Sequence> if_sequence;
  std::string reason;
  RequestBody body;
  bool operator==(const Request&) const = default;
};
using ClientMessage = std::variant<Hello, Request>;

namespace codec {

inline constexpr std::size_t kMaxFrameBytes = std::size_t{1} << 20U;  ///< with the 4 bytes of the size prefix

/// A whole size-prefixed frame. kInvalidArgument: over kMaxFrameBytes.
Result<std::string> encode_client_frame(const ClientMessage&);
/// The same behind what `out` holds; where it refuses, `out` is as it was.
absl::Status append_client_frame(const Request&, std::string& out);
/// `frame` is whole, prefix included; one that is not aligned to 8 bytes costs a copy.
/// kInvalidArgument: malformed or hostile, an unknown union member or enumerator, invalid UTF-8, or more than it should
/// hold.
Result<ClientMessage> decode_client_frame(std::span<const std::byte> frame);
/// For the answer to a frame that decode_client_frame() refused: whose it is. nullopt: it is no Request, or it is
/// broken so far that nothing in it can be relied on.
std::optional<std::uint64_t> correlation_id_of(std::span<const std::byte> frame);

}  // namespace codec
}  // namespace tensorforge
