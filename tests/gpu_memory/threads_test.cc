#include <atomic>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "gpu_memory/gpu_memory.h"

namespace tensorforge::gpu_memory {
namespace {

constexpr unsigned kThreads = 4;

/// Runs `work(thread)` on kThreads threads that start together.
template <class Work>
void together(const Work& work) {
  std::latch start(kThreads);
  std::vector<std::jthread> threads;
  for (unsigned thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      start.arrive_and_wait();
      work(thread);
    });
  }
}

TEST(MemoryPoolThreads, LoseNoAllocationAndNoByte) {
  constexpr std::size_t kEach = 200, kSize = 64;
  MemoryPool pool({"gpu0", kThreads * kEach * kSize, 0, {}});
  std::vector<std::vector<std::string>> ids(kThreads);
  together([&](unsigned thread) {
    for (std::size_t i = 0; i < kEach; ++i) {
      const AllocationResult result = pool.allocate({"tensor" + std::to_string(thread), kSize}, i);
      ASSERT_TRUE(result.success) << result.error.value_or("");
      ids[thread].push_back(*result.block_id);
    }
  });
  EXPECT_EQ(pool.stats().free_bytes, 0U);
  EXPECT_EQ(pool.stats().allocation_count, kThreads * kEach);
  for (unsigned thread = 0; thread < kThreads; ++thread) {
    EXPECT_EQ(pool.blocks_for_tensor("tensor" + std::to_string(thread)).size(), kEach);
  }
  together([&](unsigned thread) {
    for (const std::string& id : ids[thread]) ASSERT_TRUE(pool.free(id).ok());
  });
  EXPECT_EQ(pool.blocks().size(), 1U);
}

TEST(MemoryPoolThreads, SeeAPoolThatAlwaysTiles) {
  constexpr std::size_t kTotal = 1 << 14;
  MemoryPool pool({"gpu0", kTotal, 0, {}});
  std::atomic<unsigned> working{kThreads - 1};
  together([&](unsigned thread) {
    if (thread == 0) {  // the reader
      while (working.load() > 0) {
        std::size_t end = 0;
        for (const MemoryBlock& block : pool.blocks()) {
          ASSERT_EQ(block.offset, end);
          end += block.size;
        }
        ASSERT_EQ(end, kTotal);
        const PoolStats stats = pool.stats();
        ASSERT_EQ(stats.allocated_bytes + stats.pinned_bytes + stats.cached_bytes + stats.free_bytes, kTotal);
      }
      return;
    }
    std::mt19937 random(thread);
    for (std::uint64_t now = 1; now <= 400; ++now) {
      const AllocationResult result =
          pool.allocate({"tensor", 1 + random() % 600, std::size_t{1} << random() % 9, random() % 10 == 0}, now);
      if (result.success) {
        // Another thread may evict what is Cached, and defragment what is not Pinned; nobody else frees it.
        const std::string& id = *result.block_id;
        EXPECT_TRUE(pool.get_block(id).has_value());
        EXPECT_TRUE(pool.touch(id, now + 1).ok());
        if (random() % 2 == 0) pool.mark_cached(id).IgnoreError();
        if (random() % 3 == 0) pool.free(id).IgnoreError();
      }
      if (now % 50 == 0) pool.evict(random() % 2000);
      if (now % 80 == 0) pool.defragment();
    }
    --working;
  });
}

}  // namespace
}  // namespace tensorforge::gpu_memory
