#pragma once

#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "codec/record.h"
#include "codec/reply.h"
#include "codec/request.h"

namespace tensorforge {

// Calls `visit` with all fields of a struct. A structured binding must name each, so a field that is missing here does
// not compile.
#define TENSORFORGE_FIELDS(Struct, ...)                 \
  template <class Visit>                                \
  void each_field(Struct& object, const Visit& visit) { \
    auto& [__VA_ARGS__] = object;                       \
    visit(__VA_ARGS__);                                 \
  }
#define TENSORFORGE_NO_FIELDS(Struct) \
  template <class Visit>              \
  void each_field(Struct&, const Visit&) {}

namespace fields {
TENSORFORGE_FIELDS(EntityId, incarnation, number)
TENSORFORGE_FIELDS(registry::ModelVersion, major, minor, patch)
TENSORFORGE_FIELDS(registry::ModelMetadata, model_id, name, version, framework, input_shape, output_shape, size_bytes,
                   checksum, registered_at, state, tags)
TENSORFORGE_FIELDS(registry::ValidationResult, model_id, version, passed, latency_p50_ms, latency_p99_ms,
                   accuracy_score, errors)
TENSORFORGE_FIELDS(registry::RegisterModel, model)
TENSORFORGE_FIELDS(registry::TransitionState, model_id, version, to)
TENSORFORGE_FIELDS(registry::RecordValidation, validation)
TENSORFORGE_FIELDS(registry::ModelRegistered, model)
TENSORFORGE_FIELDS(registry::StateTransitioned, model_id, version, from, to)
TENSORFORGE_FIELDS(registry::ValidationRecorded, validation)
TENSORFORGE_FIELDS(gpu_memory::MemoryBlock, block_id, offset, size, status, tensor_id, allocated_at, last_accessed,
                   alignment, priority)
TENSORFORGE_FIELDS(gpu_memory::GpuDevice, device_id, total_memory, memory_clock_mhz, compute_capability)
TENSORFORGE_FIELDS(gpu_memory::AllocationRequest, tensor_id, size, alignment, pinned, priority)
TENSORFORGE_FIELDS(gpu_memory::PoolStats, total_bytes, allocated_bytes, free_bytes, pinned_bytes, cached_bytes,
                   fragmentation_ratio, largest_free_block, block_count, allocation_count)
TENSORFORGE_FIELDS(gpu_memory::Move, block_id, from, to, size)
TENSORFORGE_FIELDS(gpu_memory::CreatePool, device)
TENSORFORGE_FIELDS(gpu_memory::Allocate, device_id, request)
TENSORFORGE_FIELDS(gpu_memory::FreeBlock, device_id, block_id)
TENSORFORGE_FIELDS(gpu_memory::CacheBlock, device_id, block_id)
TENSORFORGE_FIELDS(gpu_memory::PinBlock, device_id, block_id)
TENSORFORGE_FIELDS(gpu_memory::UnpinBlock, device_id, block_id)
TENSORFORGE_FIELDS(gpu_memory::TouchBlock, device_id, block_id)
TENSORFORGE_FIELDS(gpu_memory::Evict, device_id, needed)
TENSORFORGE_FIELDS(gpu_memory::Defragment, device_id)
TENSORFORGE_FIELDS(gpu_memory::PoolCreated, device)
TENSORFORGE_FIELDS(gpu_memory::BlockAllocated, device_id, request, block, offset, actual_size, evicted, at)
TENSORFORGE_FIELDS(gpu_memory::AllocationRefused, device_id, request, cause, actual_size, total_bytes, free_bytes,
                   evictable_bytes, largest_free_block)
TENSORFORGE_FIELDS(gpu_memory::BlockFreed, device_id, block)
TENSORFORGE_FIELDS(gpu_memory::BlockCached, device_id, block)
TENSORFORGE_FIELDS(gpu_memory::BlockPinned, device_id, block)
TENSORFORGE_FIELDS(gpu_memory::BlockUnpinned, device_id, block)
TENSORFORGE_FIELDS(gpu_memory::BlockTouched, device_id, block, at)
TENSORFORGE_FIELDS(gpu_memory::BlockEvicted, device_id, block, size, more)
TENSORFORGE_FIELDS(gpu_memory::BlockMoved, device_id, block, from, to, size, more)
TENSORFORGE_FIELDS(checkpoint::CheckpointMeta, checkpoint_id, training_run_id, epoch, step, checkpoint_type, state,
                   size_bytes, created_at, parent_id, metrics, storage_path)
TENSORFORGE_FIELDS(checkpoint::CreateCheckpointRequest, training_run_id, epoch, step, checkpoint_type, metrics)
TENSORFORGE_FIELDS(checkpoint::RestoreCriteria, training_run_id, max_epoch, max_step, require_complete, prefer_full)
TENSORFORGE_FIELDS(checkpoint::GcPolicy, max_checkpoints_per_run, max_age_seconds, keep_best_n, metric_key,
                   metric_ascending)
TENSORFORGE_FIELDS(checkpoint::CreateCheckpoint, request)
TENSORFORGE_FIELDS(checkpoint::CompleteCheckpoint, checkpoint_id, size_bytes, storage_path)
TENSORFORGE_FIELDS(checkpoint::CorruptCheckpoint, checkpoint_id)
TENSORFORGE_FIELDS(checkpoint::RemoveCheckpoint, checkpoint_id)
TENSORFORGE_NO_FIELDS(checkpoint::CollectGarbage)
TENSORFORGE_FIELDS(checkpoint::SetPolicy, training_run_id, policy)
TENSORFORGE_FIELDS(checkpoint::CheckpointCreated, checkpoint, request, parent, created_at)
TENSORFORGE_FIELDS(checkpoint::CheckpointCompleted, checkpoint, training_run_id, size_bytes, storage_path)
TENSORFORGE_FIELDS(checkpoint::CheckpointCorrupted, checkpoint, training_run_id)
TENSORFORGE_FIELDS(checkpoint::CheckpointDeleted, checkpoint, training_run_id, cause, storage_path, size_bytes, more)
TENSORFORGE_FIELDS(checkpoint::PolicySet, training_run_id, policy)
TENSORFORGE_FIELDS(IncarnationStarted, previous, first_sequence, root, cause)
TENSORFORGE_FIELDS(ClockAccepted, before)
TENSORFORGE_FIELDS(Record, sequence, time, wall_time, incarnation, actor, actor_source, session, command_number,
                   answered_below, opened_at, part, parts, batch_index, batch_size, note_hash, event)
TENSORFORGE_FIELDS(Note, reason, display_name, peer_address)
TENSORFORGE_NO_FIELDS(AcceptClock)
TENSORFORGE_FIELDS(BatchItem, command, if_sequence)
TENSORFORGE_FIELDS(Page, size, token)
TENSORFORGE_FIELDS(Hello, lowest_protocol, highest_protocol, session, opened_at, actor, seen_sequence, seen_incarnation,
                   client)
TENSORFORGE_FIELDS(Request, correlation_id, command_number, answered_below, if_sequence, reason, body)
TENSORFORGE_FIELDS(query::GetModel, model_id, version)
TENSORFORGE_FIELDS(query::ListVersions, model_id, page)
TENSORFORGE_FIELDS(query::ListModels, page)
TENSORFORGE_FIELDS(query::FindModels, state, page)
TENSORFORGE_FIELDS(query::GetValidation, model_id, version)
TENSORFORGE_FIELDS(query::CompareShapes, a_model_id, a_version, b_model_id, b_version)
TENSORFORGE_FIELDS(query::CheckSla, model_id, version, max_latency_ms, min_accuracy)
TENSORFORGE_FIELDS(query::BestModel, model_ids)
TENSORFORGE_FIELDS(query::RollbackPriority, model_id, current, baseline)
TENSORFORGE_FIELDS(query::ListPools, page)
TENSORFORGE_FIELDS(query::GetPoolStats, device_id)
TENSORFORGE_FIELDS(query::ListBlocks, device_id, page)
TENSORFORGE_FIELDS(query::GetBlock, device_id, block_id)
TENSORFORGE_FIELDS(query::BlocksForTensor, device_id, tensor_id, page)
TENSORFORGE_FIELDS(query::PlanDefragment, device_id)
TENSORFORGE_FIELDS(query::GetCheckpoint, checkpoint_id)
TENSORFORGE_FIELDS(query::ListCheckpoints, training_run_id, page)
TENSORFORGE_FIELDS(query::LatestCheckpoint, training_run_id)
TENSORFORGE_FIELDS(query::FindRestorePoint, criteria)
TENSORFORGE_FIELDS(query::RestorationChain, checkpoint_id, page)
TENSORFORGE_FIELDS(query::ValidateCheckpoint, checkpoint_id)
TENSORFORGE_FIELDS(query::CheckpointDue, training_run_id, step, interval)
TENSORFORGE_FIELDS(query::FindCheckpoints, training_run_id, metric_key, threshold, ascending, page)
TENSORFORGE_FIELDS(query::GetPolicy, training_run_id)
TENSORFORGE_FIELDS(query::ReadLog, first, page_size)
TENSORFORGE_FIELDS(query::ReadHistory, stream, page)
TENSORFORGE_NO_FIELDS(query::VerifyLog)
TENSORFORGE_NO_FIELDS(query::GetStatus)
TENSORFORGE_NO_FIELDS(query::TakeSnapshot)
TENSORFORGE_FIELDS(Welcome, protocol, log_id, incarnation, sequence, opened_at, server)
TENSORFORGE_FIELDS(Reply, correlation_id, status, sequence, incarnation, result, next_page_token)
TENSORFORGE_FIELDS(result::Registered, model_id, version, state, registered_at)
TENSORFORGE_FIELDS(result::Transitioned, model_id, version, from, to)
TENSORFORGE_FIELDS(result::Allocated, block_id, offset, actual_size, evicted_blocks)
TENSORFORGE_FIELDS(result::Evicted, freed_bytes, blocks, more)
TENSORFORGE_FIELDS(result::Moves, moves, more)
TENSORFORGE_FIELDS(result::DeletedCheckpoint, checkpoint_id, storage_path, size_bytes, training_run_id)
TENSORFORGE_FIELDS(result::Collected, deleted, more)
TENSORFORGE_NO_FIELDS(result::Done)
TENSORFORGE_FIELDS(result::Models, models)
TENSORFORGE_FIELDS(result::Versions, versions)
TENSORFORGE_FIELDS(result::ValidationFound, validation)
TENSORFORGE_FIELDS(result::Number, value)
TENSORFORGE_FIELDS(result::Verdict, holds, problem)
TENSORFORGE_FIELDS(result::BestModelFound, model_id, version)
TENSORFORGE_FIELDS(result::Pools, pools)
TENSORFORGE_FIELDS(result::PoolStats, stats, memory_pressure, should_defragment, seconds_to_oom)
TENSORFORGE_FIELDS(result::Blocks, blocks)
TENSORFORGE_FIELDS(result::Checkpoints, checkpoints)
TENSORFORGE_FIELDS(result::Chain, checkpoints, size_bytes, estimated_restore_ms, length)
TENSORFORGE_FIELDS(result::Due, due, last_step, interval)
TENSORFORGE_FIELDS(result::Policy, policy, inherited)
TENSORFORGE_FIELDS(result::LogRecord, record, salt, note)
TENSORFORGE_FIELDS(result::LogRecords, records)
TENSORFORGE_FIELDS(result::LogVerified, sequence, root, chunks, bytes)
TENSORFORGE_FIELDS(result::Status, sequence, anchored_sequence, state_digest, incarnation, log_id, verified_to, root,
                   version, ack, started_at, time, models, model_versions, pools, live_blocks, checkpoints, sessions,
                   connections, refused, changes_refused_because, group_commit_p50_us, group_commit_p99_us,
                   snapshot_sequence)
TENSORFORGE_FIELDS(result::SnapshotTaken, sequence, bytes)
}  // namespace fields

#undef TENSORFORGE_FIELDS
#undef TENSORFORGE_NO_FIELDS

/// Random values of every type that the codec knows, the edges of each more often than chance.
///
/// Zero has no sign (a codec may drop it), and there is no NaN (it is unequal to itself).
class RandomValues {
 public:
  explicit RandomValues(std::uint32_t seed) : random_(seed) {}

  template <class T>
  T make() {
    T value{};
    fill(value);
    return value;
  }

  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }

 private:
  void fill(bool& value) { value = below(2) == 1; }
  template <std::integral T>
  void fill(T& value) {
    constexpr T kEdges[] = {0, 1, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()};
    value = below(2) == 0 ? kEdges[below(4)] : static_cast<T>(random_());
  }
  void fill(double& value) {
    const double edges[] = {0.0, 1.0, -0.75, std::numeric_limits<double>::infinity(),
                            std::numeric_limits<double>::denorm_min()};
    value = edges[below(5)];
  }
  template <class E>
  requires std::is_enum_v<E>
  void fill(E& value) {
    int count = 0;
    while (to_string(static_cast<E>(count)) != "?") ++count;
    value = static_cast<E>(below(static_cast<std::uint64_t>(count)));
  }
  void fill(std::string& value) {
    constexpr std::string_view kPieces[] = {"a", "/", "é", "\U0001F600", "\n", " ", "@", "0123456789"};
    for (std::uint64_t n = below(3) == 0 ? 0 : below(12); n > 0; --n) value += kPieces[below(8)];
    if (below(100) == 0) value.push_back('\0');
  }
  template <class T, std::size_t N>
  void fill(std::array<T, N>& values) {
    for (T& value : values) fill(value);
  }
  template <class A, class B>
  void fill(std::pair<A, B>& pair) {
    fill(pair.first);
    fill(pair.second);
  }
  template <class T>
  void fill(std::optional<T>& value) {
    if (below(2) == 0) fill(value.emplace());
  }
  template <class T>
  void fill(std::vector<T>& values) {
    values.resize(below(4));
    for (T& value : values) fill(value);
  }
  template <class T>
  void fill(std::map<std::string, T>& values) {
    for (std::uint64_t n = below(4); n > 0; --n) fill(values[make<std::string>()]);
  }
  template <class... Ts>
  void fill(std::variant<Ts...>& value) {
    fill_alternative(value, below(sizeof...(Ts)), std::index_sequence_for<Ts...>());
  }
  template <class Variant, std::size_t... I>
  void fill_alternative(Variant& value, std::size_t chosen, std::index_sequence<I...>) {
    const auto fill_if = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
      if (chosen == J) fill(value.template emplace<J>());
    };
    (fill_if(std::integral_constant<std::size_t, I>()), ...);
  }
  void fill(absl::Status& status) {
    if (below(3) != 0) return;
    status = absl::Status(static_cast<absl::StatusCode>(1 + below(16)), make<std::string>());
  }
  void fill(Batch& batch) {
    batch.items.resize(1 + below(5));
    for (BatchItem& item : batch.items) fill(item);
  }
  void fill(result::BatchResult& value) {
    value.replies.resize(batch_depth_ < 2 ? below(4) : 0);
    ++batch_depth_;
    for (Reply& reply : value.replies) fill(reply);
    --batch_depth_;
  }
  void fill(registry::PackedModel& value) {
    registry::ModelMetadata model;
    fill(model);
    value = model;
  }
  // A version stands beside a model only.
  void fill(result::BestModelFound& value) {
    fill_fields(value);
    if (!value.model_id) value.version = {};
  }
  void fill(Reply& reply) {
    fill_fields(reply);
    if (!reply.status.ok()) reply.result = {};
  }
  template <class Struct>
  requires std::is_aggregate_v<Struct>
  void fill(Struct& value) { fill_fields(value); }
  template <class Struct>
  void fill_fields(Struct& value) {
    fields::each_field(value, [&](auto&... field) { (fill(field), ...); });
  }

  std::mt19937_64 random_;
  int batch_depth_ = 0;
};

}  // namespace tensorforge
