// The facade from several threads at once: ThreadSanitizer sees the races, the counts the lost updates.
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "registry/registry.h"

namespace tensorforge::registry {
namespace {

using enum DeploymentState;

constexpr int kThreads = 4;
constexpr std::uint32_t kVersions = 100;

void in_threads(const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

ModelMetadata model(std::string id, std::uint32_t major) {
  ModelMetadata made;
  made.model_id = std::move(id);
  made.version = {major, 0, 0};
  return made;
}

TEST(ModelRegistryThreads, OneOfManyRegistersEachVersion) {
  ModelRegistry registry;
  std::atomic<std::uint32_t> registered = 0, refused = 0;
  in_threads([&](int) {
    for (std::uint32_t major = 0; major < kVersions; ++major) {
      const absl::Status status = registry.register_model(model("resnet", major));
      if (status.ok()) ++registered;
      if (status.code() == absl::StatusCode::kAlreadyExists) ++refused;
    }
  });
  EXPECT_EQ(registered, kVersions);
  EXPECT_EQ(refused, kVersions * (kThreads - 1));
  EXPECT_EQ(registry.version_count(), kVersions);
}

TEST(ModelRegistryThreads, OneOfManyMakesEachTransition) {
  ModelRegistry registry;
  for (std::uint32_t major = 0; major < kVersions; ++major) {
    ASSERT_TRUE(registry.register_model(model("resnet", major)).ok());
  }
  std::atomic<std::uint32_t> moved = 0;
  in_threads([&](int) {
    for (std::uint32_t major = 0; major < kVersions; ++major) {
      if (registry.transition_state("resnet", {major, 0, 0}, Validating).ok()) ++moved;
    }
  });
  EXPECT_EQ(moved, kVersions);
  EXPECT_EQ(registry.find_by_state(Validating).size(), kVersions);
}

TEST(ModelRegistryThreads, ReadersSeeWholeChangesOnly) {
  ModelRegistry registry;
  std::atomic<int> writers = kThreads / 2;
  in_threads([&](int thread) {
    const std::string id = "model-" + std::to_string(thread);
    if (thread < kThreads / 2) {
      for (std::uint32_t major = 0; major < kVersions; ++major) {
        EXPECT_TRUE(registry.register_model(model(id, major)).ok());
        const double figure = major;
        EXPECT_TRUE(registry.record_validation({id, {major, 0, 0}, true, figure, figure, figure, {}}).ok());
        EXPECT_TRUE(registry.transition_state(id, {major, 0, 0}, Validating).ok());
      }
      --writers;
      return;
    }
    const std::string watched = "model-" + std::to_string(thread - kThreads / 2);
    std::size_t seen = 0;
    do {
      const std::vector<ModelVersion> versions = registry.list_versions(watched);
      EXPECT_GE(versions.size(), seen);  // versions never go
      seen = versions.size();
      if (const auto latest = registry.get_latest(watched)) {
        EXPECT_GE(latest->version.major + 1, seen);
        if (const auto validation = registry.get_validation(watched, latest->version)) {
          EXPECT_EQ(validation->latency_p50_ms, validation->accuracy_score);
        }
      }
      for (const ModelMetadata& found : registry.find_by_state(Validating)) EXPECT_EQ(found.state, Validating);
      EXPECT_GE(registry.version_count(), seen);
    } while (writers > 0);
  });
  EXPECT_EQ(registry.model_count(), std::size_t{kThreads / 2});
  EXPECT_EQ(registry.find_by_state(Validating).size(), std::size_t{kVersions} * kThreads / 2);
}

}  // namespace
}  // namespace tensorforge::registry
