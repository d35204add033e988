#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gpu_memory/gpu_memory.h"
#include "gpu_memory/state_machine.h"

namespace tensorforge::gpu_memory {
namespace {

using enum BlockStatus;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

MemoryBlock block(std::string id, std::size_t offset, std::size_t size, BlockStatus status,
                  std::uint64_t accessed = 0) {
  MemoryBlock made;
  made.block_id = std::move(id);
  made.offset = offset;
  made.size = size;
  made.status = status;
  made.last_accessed = accessed;
  return made;
}

TEST(Names, AreTheEnumeratorsOwnAndParseBack) {
  const struct {
    BlockStatus status;
    const char* name;
  } cases[] = {{Free, "Free"}, {Allocated, "Allocated"}, {Pinned, "Pinned"}, {Cached, "Cached"}};
  for (const auto& [status, name] : cases) {
    EXPECT_EQ(to_string(status), name);
    EXPECT_EQ(parse_block_status(name), status);
  }
  EXPECT_EQ(parse_block_status("cached"), std::nullopt);
  EXPECT_EQ(parse_block_status(""), std::nullopt);
  EXPECT_EQ(parse_allocation_failure("Fragmented"), AllocationFailure::Fragmented);
  EXPECT_EQ(to_string(AllocationFailure::LargerThanPool), "LargerThanPool");
  EXPECT_EQ(parse_allocation_failure("?"), std::nullopt);
}

TEST(AlignUp, GivesTheSmallestMultipleOrTheLargestNumber) {
  const struct {
    std::size_t size, alignment, want;
  } cases[] = {
      {0, 0, 0},
      {5, 0, 5},
      {5, 1, 5},
      {0, 8, 0},
      {1, 8, 8},
      {8, 8, 8},
      {9, 8, 16},
      {7, 3, 9},
      {9, 3, 9},
      {1, 12, 12},
      {13, 12, 24},
      {kMax, 1, kMax},
      {kMax, kMax, kMax},
      {2, kMax, kMax},
      {kMax - 7, 8, kMax - 7},
      {kMax - 6, 8, kMax},
      {1, std::size_t{1} << 63U, std::size_t{1} << 63U},
      {(std::size_t{1} << 63U) + 1, std::size_t{1} << 63U, kMax},
      {kMax, 3, kMax},      // 2^64 - 1 is a multiple of 3
      {kMax - 1, 3, kMax},  // and the multiple above this
      {kMax, 2, kMax},
  };
  for (const auto& [size, alignment, want] : cases) {
    EXPECT_EQ(align_up(size, alignment), want) << size << " to " << alignment;
  }
}

TEST(IsPowerOfTwo, KnowsItsEdges) {
  for (const std::size_t yes : {std::size_t{1}, std::size_t{2}, std::size_t{4096}, std::size_t{1} << 63U}) {
    EXPECT_TRUE(is_power_of_two(yes)) << yes;
  }
  for (const std::size_t no : {std::size_t{0}, std::size_t{3}, std::size_t{4095}, kMax}) {
    EXPECT_FALSE(is_power_of_two(no)) << no;
  }
}

TEST(FragmentationRatio, ComparesTheLargestFreeBlockWithAllFreeBytes) {
  EXPECT_EQ(fragmentation_ratio({}), 0.0);
  const MemoryBlock full[] = {block("a", 0, 10, Allocated), block("b", 10, 10, Pinned), block("c", 20, 10, Cached)};
  EXPECT_EQ(fragmentation_ratio(full), 0.0);
  const MemoryBlock one[] = {block("a", 0, 10, Free), block("b", 10, 90, Allocated)};
  EXPECT_EQ(fragmentation_ratio(one), 0.0);
  const MemoryBlock many[] = {block("a", 0, 10, Free), block("b", 10, 90, Allocated), block("c", 100, 30, Free)};
  EXPECT_DOUBLE_EQ(fragmentation_ratio(many), 0.25);
}

TEST(BestFitBlock, TakesTheSmallestThatFitsWithItsPaddingAndTheLowestOfEquals) {
  const std::vector<MemoryBlock> blocks = {
      block("large", 0, 100, Free),    block("held", 100, 8, Allocated), block("odd", 108, 16, Free),
      block("cached", 124, 4, Cached), block("even", 128, 16, Free),     block("pinned", 144, 16, Pinned),
      block("even2", 160, 16, Free),   block("tail", 176, 3, Allocated), block("small", 179, 7, Free),
  };
  const struct {
    std::size_t size, alignment;
    std::optional<std::string> want;
  } cases[] = {
      {7, 1, "small"},   // exactly
      {6, 4, "small"},   // 179 -> 180 leaves just 6 bytes
      {7, 4, "odd"},     // and 7 do not fit there
      {8, 1, "odd"},     // the lowest of three equals
      {16, 16, "even"},  // "odd" needs 4 bytes of padding
      {12, 16, "odd"},   // 108 -> 112 leaves just 12 bytes in "odd"
      {13, 16, "even"},
      {17, 1, "large"},        // only one
      {100, 64, "large"},      // at 0
      {101, 1, std::nullopt},  // nothing is larger
      {1, 256, "large"},
      {1, std::size_t{1} << 63U, "large"},  // 0 is aligned to anything
      {0, 1, std::nullopt},
      {1, 0, std::nullopt},
      {1, 3, std::nullopt},
      {kMax, 1, std::nullopt},
      {kMax, std::size_t{1} << 63U, std::nullopt},
  };
  for (const auto& [size, alignment, want] : cases) {
    EXPECT_EQ(best_fit_block(blocks, size, alignment), want) << size << " at " << alignment;
  }
  EXPECT_EQ(best_fit_block({}, 1, 1), std::nullopt);
}

TEST(BestFitBlock, DoesNotWrapAtTheEndOfTheNumbers) {
  const MemoryBlock high[] = {block("high", kMax - 3, 3, Free)};
  EXPECT_EQ(best_fit_block(high, 3, 1), "high");
  EXPECT_EQ(best_fit_block(high, 1, 8), std::nullopt);  // the next multiple of 8 would be 2^64
}

TEST(EvictionCandidates, AreTheCachedOnesLeastRecentlyUsedFirstTiesByOffset) {
  const MemoryBlock blocks[] = {
      block("d", 30, 10, Cached, 5), block("free", 40, 10, Free),        block("a", 50, 10, Cached, 1),
      block("c", 10, 10, Cached, 5), block("held", 0, 10, Allocated, 0), block("pinned", 60, 10, Pinned, 0),
  };
  EXPECT_THAT(eviction_candidates(blocks), ElementsAre("a", "c", "d"));
  EXPECT_THAT(eviction_candidates({}), IsEmpty());
}

TEST(MemoryPressure, IsTheShareInUse) {
  EXPECT_EQ(memory_pressure(0, 100), 0.0);
  EXPECT_EQ(memory_pressure(25, 100), 0.25);
  EXPECT_EQ(memory_pressure(100, 100), 1.0);
  EXPECT_EQ(memory_pressure(300, 100), 1.0);
  EXPECT_EQ(memory_pressure(0, 0), 1.0);
  EXPECT_EQ(memory_pressure(kMax, kMax), 1.0);
}

TEST(ShouldDefragment, NeedsBothLimitsToBeCrossed) {
  PoolStats stats;
  stats.fragmentation_ratio = 0.5;
  stats.largest_free_block = 100;
  EXPECT_TRUE(should_defragment(stats, 0.4, 101));
  EXPECT_FALSE(should_defragment(stats, 0.5, 101));  // strict
  EXPECT_FALSE(should_defragment(stats, 0.4, 100));  // strict
  EXPECT_FALSE(should_defragment(stats, kNaN, 101));
  stats.fragmentation_ratio = kNaN;
  EXPECT_FALSE(should_defragment(stats, 0.4, 101));
}

TEST(EstimateOomSeconds, DividesWhatIsFreeByTheRate) {
  EXPECT_EQ(estimate_oom_seconds(100, 50), 2.0);
  EXPECT_EQ(estimate_oom_seconds(0, 50), 0.0);
  for (const double rate : {0.0, -1.0, -kInfinity, kNaN}) {
    EXPECT_EQ(estimate_oom_seconds(100, rate), kInfinity) << rate;
    EXPECT_EQ(estimate_oom_seconds(0, rate), kInfinity) << rate;
  }
  EXPECT_EQ(estimate_oom_seconds(100, kInfinity), 0.0);
  EXPECT_EQ(estimate_oom_seconds(0, std::numeric_limits<double>::denorm_min()), 0.0);
}

TEST(OptimalPoolSize, AddsHeadroomRoundsToPagesAndSaturates) {
  const struct {
    std::size_t peak;
    double headroom;
    std::size_t page, want;
  } cases[] = {
      {1000, 1.2, 0, 1200},
      {1000, 1.2, 512, 1536},
      {1024, 1.0, 512, 1024},
      {1000, 0.5, 0, 1000},  // below 1 counts as 1
      {1000, kNaN, 0, 1000},
      {1000, -kInfinity, 0, 1000},
      {1000, kInfinity, 0, kMax},
      {1000, kInfinity, 4096, kMax},
      {0, 2.0, 4096, 0},
      {0, kInfinity, 4096, 0},
      {3, 1.5, 0, 5},    // 4.5: halves go up
      {1, 1.25, 0, 1},   // 1.25
      {10, 1.0, 7, 14},  // any page size
      {kMax, 1.0, 0, kMax},
      {kMax, 1.0, 4096, kMax},
      {kMax, 2.0, 0, kMax},
      {kMax - 4095, 1.0, 4096, kMax - 4095},
      {(std::size_t{1} << 63U) + 1, 1.0, 0, (std::size_t{1} << 63U) + 1},  // exact where a double is not
      {(std::size_t{1} << 62U) + 1, 2.0, 0, (std::size_t{1} << 63U) + 2},
  };
  for (const auto& [peak, headroom, page, want] : cases) {
    EXPECT_EQ(optimal_pool_size(peak, headroom, page), want) << peak << " * " << headroom << " by " << page;
  }
}

}  // namespace
}  // namespace tensorforge::gpu_memory
