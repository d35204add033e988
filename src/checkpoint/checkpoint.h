#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "platform/result.h"

namespace tensorforge::checkpoint {

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
  std::uint64_t size_bytes{}, created_at{};
  std::optional<std::string> parent_id;
  std::map<std::string, double> metrics;
  std::string storage_path;
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
  std::optional<std::uint32_t> max_epoch;
  std::optional<std::uint64_t> max_step;
  bool require_complete{true}, prefer_full{};
  bool operator==(const RestoreCriteria&) const = default;
};
struct GcPolicy {
  std::size_t max_checkpoints_per_run{};
  std::uint64_t max_age_seconds{};
  std::size_t keep_best_n{};
  std::string metric_key;
  bool metric_ascending{true};
  bool operator==(const GcPolicy&) const = default;
};
