#include <atomic>
#include <cstdint>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"

namespace tensorforge::checkpoint {
namespace {

TEST(CheckpointManagerThreads, KeepEveryRunWholeWhileOthersWriteReadAndCollect) {
  constexpr int kWriters = 4;
  constexpr std::uint64_t kSaves = 300;
  CheckpointManager manager({3, 0, 1, "loss", true});
  std::atomic<bool> writing{true};
  std::vector<std::vector<std::string>> made(kWriters);

  const auto write = [&](int writer) {
    const std::string run = "run" + std::to_string(writer);
    for (std::uint64_t step = 0; step < kSaves; ++step) {
      const CheckpointType type = step % 5 == 0 ? CheckpointType::Full : CheckpointType::Incremental;
      const auto created = manager.create({run, 0, step, type, {{"loss", 1.0 / static_cast<double>(step + 1)}}}, step);
      ASSERT_TRUE(created.ok()) << created.status();
      made[static_cast<std::size_t>(writer)].push_back(created->checkpoint_id);
      ASSERT_TRUE(manager.complete(created->checkpoint_id, 10, "/p").ok());
      if (step % 50 == 0) manager.gc(step);
    }
  };
  const auto read = [&] {
    do {
      for (int writer = 0; writer < kWriters; ++writer) {
        const std::string run = "run" + std::to_string(writer);
        const std::vector<CheckpointMeta> all = manager.list_for_run(run);
        for (const CheckpointMeta& meta : all) EXPECT_TRUE(validate_checkpoint(meta, all).ok());
        if (const auto found = manager.find_restore_point({run, {}, {}, true, false})) {
          EXPECT_EQ(found->state, CheckpointState::Complete);
          EXPECT_TRUE(manager.get(found->checkpoint_id).has_value());
        }
        EXPECT_LE(manager.find_by_metric(run, "loss", 2.0, true).size(), kSaves);
        manager.total_size();
      }
    } while (writing);
  };

  std::vector<std::thread> writers, readers;
  for (int i = 0; i < kWriters; ++i) writers.emplace_back(write, i);
  for (int i = 0; i < 2; ++i) readers.emplace_back(read);
  for (std::thread& thread : writers) thread.join();
  writing = false;
  for (std::thread& thread : readers) thread.join();

  std::set<std::string> ids;
  for (const auto& of_writer : made) ids.insert(of_writer.begin(), of_writer.end());
  EXPECT_EQ(ids.size(), kWriters * kSaves) << "an id was given twice";
  std::uint64_t live = 0;
  for (const std::string& id : ids) live += manager.get(id)->state != CheckpointState::Deleted ? 1 : 0;
  EXPECT_EQ(manager.total_count(), live);
  EXPECT_EQ(manager.total_size(), live * 10);
}

}  // namespace
}  // namespace tensorforge::checkpoint
