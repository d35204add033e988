#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"

namespace tensorforge::checkpoint {

constexpr CheckpointType kFull = CheckpointType::Full;
constexpr CheckpointType kIncremental = CheckpointType::Incremental;
constexpr CheckpointType kEmergency = CheckpointType::Emergency;

/// A Complete checkpoint of run "r" for the pure functions; with a parent it is an Incremental.
inline CheckpointMeta link(std::string id, std::optional<std::string> parent = {}, std::uint64_t size_bytes = 10) {
  CheckpointMeta meta;
  meta.checkpoint_id = std::move(id);
  meta.training_run_id = "r";
  meta.checkpoint_type = parent ? kIncremental : kFull;
  meta.state = CheckpointState::Complete;
  meta.size_bytes = size_bytes;
  meta.parent_id = std::move(parent);
  meta.storage_path = "/somewhere";
  return meta;
}

/// A facade with a clock that moves one second at each creation.
class Training {
 public:
  explicit Training(GcPolicy policy = {}) : manager(std::move(policy)) {}

  CheckpointMeta start(CheckpointType type, std::uint64_t step, const std::string& run = "r",
                       std::map<std::string, double> metrics = {}, std::uint32_t epoch = 0) {
    now += 1000;
    const Result<CheckpointMeta> created = manager.create({run, epoch, step, type, std::move(metrics)}, now);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? *created : CheckpointMeta{};
  }
  std::string save(CheckpointType type, std::uint64_t step, const std::string& run = "r",
                   std::map<std::string, double> metrics = {}, std::uint32_t epoch = 0) {
    const std::string id = start(type, step, run, std::move(metrics), epoch).checkpoint_id;
    finish(id);
    return id;
  }
  void finish(std::string_view id) {
    const absl::Status status = manager.complete(id, 100, "/store/" + std::string(id));
    EXPECT_TRUE(status.ok()) << status;
  }
  void corrupt(std::string_view id) {
    const absl::Status status = manager.mark_corrupted(id);
    EXPECT_TRUE(status.ok()) << status;
  }
  std::vector<std::string> live(const std::string& run = "r") const {
    std::vector<std::string> ids;
    for (const CheckpointMeta& meta : manager.list_for_run(run)) ids.push_back(meta.checkpoint_id);
    return ids;
  }
  /// The step of the restore point, -1: none.
  int restore_step(const RestoreCriteria& criteria) const {
    const auto found = manager.find_restore_point(criteria);
    return found ? static_cast<int>(found->step) : -1;
  }

  CheckpointManager manager;
  std::uint64_t now = 1'700'000'000'000;
};

inline std::vector<std::string> ids_of(const std::vector<CheckpointMeta>& checkpoints) {
  std::vector<std::string> ids;
  for (const CheckpointMeta& meta : checkpoints) ids.push_back(meta.checkpoint_id);
  return ids;
}

}  // namespace tensorforge::checkpoint
