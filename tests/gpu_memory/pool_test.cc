#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gpu_memory/gpu_memory.h"

namespace tensorforge::gpu_memory {
namespace {

using enum BlockStatus;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();

class PoolTest : public testing::Test {
 protected:
  /// The id of a new block; each is one millisecond younger than the one before.
  std::string place(std::size_t size, std::size_t alignment = 1, std::int32_t priority = 0) {
    const AllocationResult result = pool_.allocate({"tensor", size, alignment, false, priority}, ++now_);
    EXPECT_TRUE(result.success) << result.error.value_or("");
    return result.block_id.value_or("");
  }
  std::string place_cached(std::size_t size, std::int32_t priority = 0) {
    std::string id = place(size, 1, priority);
    EXPECT_TRUE(pool_.mark_cached(id).ok());
    return id;
  }
  std::string refusal(const AllocationRequest& request) {
    const std::vector<MemoryBlock> before = pool_.blocks();
    const AllocationResult result = pool_.allocate(request, ++now_);
    EXPECT_FALSE(result.success);
    EXPECT_EQ(result.block_id, std::nullopt);
    EXPECT_EQ(result.offset, std::nullopt);
    EXPECT_EQ(result.actual_size, std::nullopt);
    EXPECT_EQ(pool_.blocks(), before);
    return result.error.value_or("");
  }
  void free(const std::string& id) { ASSERT_TRUE(pool_.free(id).ok()) << id; }
  /// "offset+size status", for each block.
  std::vector<std::string> layout() const {
    std::vector<std::string> out;
    for (const MemoryBlock& block : pool_.blocks()) {
      out.push_back(std::to_string(block.offset) + "+" + std::to_string(block.size) + " " +
                    std::string(to_string(block.status)));
    }
    return out;
  }
  std::size_t offset_of(const std::string& id) const { return pool_.get_block(id).value().offset; }
  bool is_there(const std::string& id) const { return pool_.get_block(id).has_value(); }

  MemoryPool pool_{{"gpu0", 1000, 1593, {8, 6}}};
  std::uint64_t now_{100};
};

TEST_F(PoolTest, IsNewAsOneFreeBlock) {
  MemoryBlock whole;
  whole.block_id = "free-0";
  whole.size = 1000;
  EXPECT_THAT(pool_.blocks(), ElementsAre(whole));
  EXPECT_EQ(pool_.get_block("free-0"), whole);
  EXPECT_EQ(pool_.stats(), (PoolStats{1000, 0, 1000, 0, 0, 0.0, 1000, 1, 0}));
}

TEST(EmptyPool, HasNoBlockAndRefusesEverything) {
  MemoryPool pool({"gpu0", 0, 0, {}});
  EXPECT_THAT(pool.blocks(), IsEmpty());
  EXPECT_EQ(pool.stats(), PoolStats{});
  EXPECT_THAT(pool.allocate({"t", 1}, 1).error.value(), HasSubstr("larger than the pool"));
  EXPECT_EQ(pool.evict(1), 0U);
  EXPECT_EQ(pool.defragment(), 0U);
  EXPECT_EQ(pool.free("free-0").code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PoolTest, RecordsWhatWasAskedFor) {
  const AllocationResult result = pool_.allocate({"weights", 100, 64, true, 7}, 12345);
  EXPECT_EQ(result, (AllocationResult{true, "b-00000000-1", 0, 128, std::nullopt}));
  EXPECT_EQ(pool_.get_block("b-00000000-1"),
            (MemoryBlock{"b-00000000-1", 0, 128, Pinned, "weights", 12345, 12345, 64, 7}));
}

TEST_F(PoolTest, SplitsAHoleIntoPaddingBlockAndRest) {
  place(10);
  place(64, 64);
  EXPECT_THAT(layout(), ElementsAre("0+10 Allocated", "10+54 Free", "64+64 Allocated", "128+872 Free"));
}

TEST_F(PoolTest, RoundsTheSizeUpToTheAlignment) {
  const struct {
    std::size_t size, alignment, actual;
  } cases[] = {{1, 1, 1}, {1, 2, 2}, {2, 2, 2}, {3, 2, 4}, {255, 256, 256}, {256, 256, 256}, {257, 256, 512}};
  for (const auto& [size, alignment, actual] : cases) {
    MemoryPool pool({"gpu0", 1024, 0, {}});
    const AllocationResult result = pool.allocate({"t", size, alignment}, 1);
    EXPECT_EQ(result.actual_size, actual) << size << " at " << alignment;
    EXPECT_EQ(result.offset, 0U);
  }
}

TEST_F(PoolTest, MergesAFreedBlockWithBothNeighbours) {
  const std::string a = place(100), b = place(100), c = place(100), d = place(700);
  free(a);
  EXPECT_THAT(layout(), ElementsAre("0+100 Free", "100+100 Allocated", "200+100 Allocated", "300+700 Allocated"));
  free(c);
  free(b);
  EXPECT_THAT(layout(), ElementsAre("0+300 Free", "300+700 Allocated"));
  free(d);
  EXPECT_THAT(layout(), ElementsAre("0+1000 Free"));
}

TEST_F(PoolTest, TakesTheSmallestHoleAndTheLowestOfEquals) {
  const std::string a = place(300), wall1 = place(1), b = place(100), wall2 = place(1), c = place(100);
  place(498);
  free(a);
  free(b);
  free(c);
  EXPECT_EQ(offset_of(place(90)), 301U);  // of the holes of 300, 100 and 100 bytes
  EXPECT_EQ(offset_of(place(95)), 402U);
  EXPECT_EQ(offset_of(place(101)), 0U);
}

TEST_F(PoolTest, CountsThePaddingOfAHole) {
  const std::string wall = place(4), odd = place(64), wall2 = place(60), even = place(80);
  place(792);
  free(odd);   // [4, 68): one aligned place for 32 bytes, none for 64
  free(even);  // [128, 208)
  EXPECT_EQ(offset_of(place(64, 64)), 128U);
  EXPECT_EQ(offset_of(place(32, 32)), 32U);
}

TEST_F(PoolTest, FillsUpToTheLastByte) {
  EXPECT_EQ(offset_of(place(1000)), 0U);
  EXPECT_THAT(refusal({"t", 1}), HasSubstr("out of memory"));
  const PoolStats full = pool_.stats();
  EXPECT_EQ(full.free_bytes, 0U);
  EXPECT_EQ(full.largest_free_block, 0U);
  EXPECT_EQ(full.fragmentation_ratio, 0.0);
  EXPECT_EQ(full.block_count, 1U);
}

TEST_F(PoolTest, RefusesWhatItCannotPlaceAndSaysWhy) {
  const std::string a = place(400), b = place(200), c = place(400);
  free(a);
  free(c);
  const struct {
    AllocationRequest request;
    const char* why;
  } cases[] = {
      {{"t", 1001}, "larger than the pool"},
      {{"t", 513, 512}, "larger than the pool"},  // 1024 bytes
      {{"t", 801}, "out of memory"},
      {{"t", 800}, "fragmented"},
      {{"t", 401}, "fragmented"},
      {{"t", 512, 512}, "fragmented"},
      {{"", 1}, "tensor id is empty"},
      {{"a@b", 1}, "'@'"},
      {{" a", 1}, "space"},
      {{"a\nb", 1}, "control character"},
      {{"t", 0}, "at least 1 byte"},
      {{"t", 1, 0}, "power of two"},
      {{"t", 1, 3}, "power of two"},
      {{"t", kMax, 2}, "no multiple"},
      {{"t", (std::size_t{1} << 63U) + 1, std::size_t{1} << 63U}, "no multiple"},
      {{"t", kMax, 1}, "larger than the pool"},
      {{"t", 1, std::size_t{1} << 63U}, "larger than the pool"},
  };
  for (const auto& [request, why] : cases) {
    EXPECT_THAT(refusal(request), HasSubstr(why)) << request.size << " at " << request.alignment;
  }
}

TEST_F(PoolTest, GivesTheFiguresWithARefusal) {
  const std::string a = place(400), b = place(200), c = place_cached(300, 5);
  free(a);
  EXPECT_THAT(refusal({"t", 500, 1, false, 4}),
              AllOf(HasSubstr("pool \"gpu0\""), HasSubstr("500 bytes"), HasSubstr("fragmented"),
                    HasSubstr("500 of 1000 bytes are free"), HasSubstr("0 more are Cached"),
                    HasSubstr("largest hole has 400")));
  EXPECT_THAT(refusal({"t", 1500}), HasSubstr("larger than the pool, which has 1000 bytes"));
}

TEST_F(PoolTest, CountsCachedMemoryAsAvailable) {
  place_cached(1000);
  EXPECT_EQ(offset_of(place(1000)), 0U);
  EXPECT_EQ(pool_.stats().cached_bytes, 0U);
}

TEST_F(PoolTest, EvictsLeastRecentlyUsedFirst) {
  const std::string a = place_cached(250), b = place_cached(250), c = place_cached(250), d = place_cached(250);
  ASSERT_TRUE(pool_.touch(a, 500).ok());
  EXPECT_EQ(offset_of(place(200)), 250U);  // b is the oldest now
  EXPECT_FALSE(is_there(b));
  EXPECT_TRUE(is_there(a) && is_there(c) && is_there(d));
}

TEST_F(PoolTest, BreaksTiesOfAgeByOffset) {
  for (int i = 0; i < 4; ++i) {
    now_ = 7;
    place_cached(250);
  }
  EXPECT_EQ(offset_of(place(250)), 0U);
}

TEST_F(PoolTest, GivesBackWhatTheFitDoesNotNeed) {
  // Ages: p1 < p2 < p3 < p4. A request of 300 needs two neighbours; the first pair to be complete is p3 and p1.
  const std::string x = place(200);  // [0, 200): stays
  const std::string q = place(200);  // [200, 400)
  const std::string r = place(200);  // [400, 600)
  const std::string s = place(200);  // [600, 800)
  const std::string t = place(200);  // [800, 1000)
  const std::vector<std::string> by_age = {q, s, t, r};
  for (std::size_t i = 0; i < by_age.size(); ++i) {
    ASSERT_TRUE(pool_.touch(by_age[i], 1000 + i).ok());
    ASSERT_TRUE(pool_.mark_cached(by_age[i]).ok());
  }
  EXPECT_EQ(offset_of(place(300)), 600U);  // q, s and t are taken; q goes back
  EXPECT_TRUE(is_there(q) && is_there(r));
  EXPECT_FALSE(is_there(s) || is_there(t));
}

TEST_F(PoolTest, GivesBackTheYoungestFirst) {
  // One run: a (oldest), m (made the fit), b. Either a or b would do beside m; b is younger, so b goes back.
  const std::string a = place(300), m = place(100), b = place(300);
  place(300);
  ASSERT_TRUE(pool_.touch(a, 1000).ok());
  ASSERT_TRUE(pool_.touch(b, 1001).ok());
  ASSERT_TRUE(pool_.touch(m, 1002).ok());
  for (const std::string& id : {a, b, m}) ASSERT_TRUE(pool_.mark_cached(id).ok());
  EXPECT_EQ(offset_of(place(350)), 0U);
  EXPECT_TRUE(is_there(b));
  EXPECT_FALSE(is_there(a) || is_there(m));
}

TEST_F(PoolTest, EvictsNoBlockOfAHigherPriority) {
  const std::string high = place_cached(500, 5), low = place_cached(500, 1);
  EXPECT_THAT(refusal({"t", 400, 1, false, 0}), HasSubstr("out of memory"));
  EXPECT_EQ(offset_of(place(400, 1, 1)), 500U);  // an equal priority may go
  EXPECT_FALSE(is_there(low));
  EXPECT_TRUE(is_there(high));
  EXPECT_EQ(offset_of(place(400, 1, std::numeric_limits<std::int32_t>::max())), 0U);
  EXPECT_FALSE(is_there(high));
}

TEST_F(PoolTest, EvictsNothingWhenThatCannotHelp) {
  const std::string a = place_cached(400), wall = place(100), b = place_cached(500);
  EXPECT_THAT(refusal({"t", 600}), HasSubstr("fragmented"));
  EXPECT_TRUE(is_there(a) && is_there(b));
}

TEST_F(PoolTest, NeverEvictsOrMovesAPinnedBlock) {
  const std::string a = place(100), b = place(100), c = place(800);
  ASSERT_TRUE(pool_.mark_cached(b).ok());
  ASSERT_TRUE(pool_.pin(b).ok());
  EXPECT_EQ(pool_.evict(1000), 0U);
  EXPECT_THAT(refusal({"t", 50}), HasSubstr("out of memory"));
  free(a);
  EXPECT_EQ(pool_.defragment(), 0U);
  EXPECT_EQ(offset_of(b), 100U);
  EXPECT_EQ(pool_.stats().pinned_bytes, 100U);
}

TEST_F(PoolTest, FollowsTheLifecycleOfABlock) {
  const auto failed = absl::StatusCode::kFailedPrecondition;
  const auto ok = absl::StatusCode::kOk;
  const struct {
    BlockStatus from;
    absl::StatusCode cache, pin, unpin, free;
  } cases[] = {
      {Allocated, ok, ok, failed, ok},
      {Pinned, failed, failed, ok, ok},
      {Cached, failed, ok, failed, ok},
  };
  for (const auto& [from, cache, pin, unpin, free_code] : cases) {
    SCOPED_TRACE(std::string(to_string(from)));
    const auto in_status = [&, status = from] {
      const std::string id = place(10);
      EXPECT_TRUE(status != Pinned || pool_.pin(id).ok());
      EXPECT_TRUE(status != Cached || pool_.mark_cached(id).ok());
      return id;
    };
    EXPECT_EQ(pool_.mark_cached(in_status()).code(), cache);
    EXPECT_EQ(pool_.pin(in_status()).code(), pin);
    EXPECT_EQ(pool_.unpin(in_status()).code(), unpin);
    EXPECT_EQ(pool_.free(in_status()).code(), free_code);
  }
  const std::string id = place(10);
  ASSERT_TRUE(pool_.pin(id).ok());
  ASSERT_TRUE(pool_.unpin(id).ok());
  EXPECT_EQ(pool_.get_block(id)->status, Allocated);
  EXPECT_EQ(
      std::string(pool_.unpin(id).message()),
      "pool \"gpu0\": block \"" + id + "\": cannot go from Allocated to Allocated; allowed: Cached, Pinned, Free");
}

TEST_F(PoolTest, TellsAnUnknownBlockFromAFreePlace) {
  const std::string gone = place(10);
  free(gone);
  const struct {
    const char* id;
    absl::StatusCode want;
  } cases[] = {
      {gone.c_str(), absl::StatusCode::kNotFound},  // a double free
      {"b-00000000-77", absl::StatusCode::kNotFound},
      {"b-00000001-1", absl::StatusCode::kNotFound},
      {"b-00000000-01", absl::StatusCode::kNotFound},
      {"", absl::StatusCode::kNotFound},
      {"free", absl::StatusCode::kNotFound},
      {"free-", absl::StatusCode::kNotFound},
      {"free-x", absl::StatusCode::kNotFound},
      {"free--1", absl::StatusCode::kNotFound},
      {"free-0", absl::StatusCode::kFailedPrecondition},
      {"free-5", absl::StatusCode::kFailedPrecondition},
      {"free-99999999999999999999999999", absl::StatusCode::kFailedPrecondition},
  };
  for (const auto& [id, want] : cases) {
    SCOPED_TRACE(id);
    EXPECT_EQ(pool_.free(id).code(), want);
    EXPECT_EQ(pool_.mark_cached(id).code(), want);
    EXPECT_EQ(pool_.pin(id).code(), want);
    EXPECT_EQ(pool_.unpin(id).code(), want);
    EXPECT_EQ(pool_.touch(id, 1).code(), want);
  }
  EXPECT_THAT(std::string(pool_.free("free-0").message()), HasSubstr("the name of a free place"));
  EXPECT_THAT(std::string(pool_.free("x\n").message()), HasSubstr("block \"x\\u000a\" is unknown"));
}

TEST_F(PoolTest, FindsAFreeBlockOnlyByItsExactName) {
  const std::string a = place(10);
  EXPECT_EQ(pool_.get_block("free-10")->size, 990U);
  for (const char* id : {"free-0", "free-11", "free-010", "free-", "free-+10", "free-99999999999999999999999999"}) {
    EXPECT_EQ(pool_.get_block(id), std::nullopt) << id;
  }
}

TEST_F(PoolTest, NeverUsesAnIdTwice) {
  EXPECT_EQ(place(10), "b-00000000-1");
  free("b-00000000-1");
  EXPECT_EQ(place(10), "b-00000000-2");
  EXPECT_FALSE(is_there("b-00000000-1"));
}

TEST_F(PoolTest, TouchesForwardOnly) {
  const std::string id = place(10);
  ASSERT_TRUE(pool_.touch(id, 5000).ok());
  EXPECT_EQ(pool_.get_block(id)->last_accessed, 5000U);
  ASSERT_TRUE(pool_.touch(id, 4999).ok());
  ASSERT_TRUE(pool_.touch(id, 0).ok());
  EXPECT_EQ(pool_.get_block(id)->last_accessed, 5000U);
  ASSERT_TRUE(pool_.touch(id, 5001).ok());
  EXPECT_EQ(pool_.get_block(id)->last_accessed, 5001U);
  EXPECT_EQ(pool_.get_block(id)->allocated_at, 101U);
}

TEST_F(PoolTest, EvictFreesInLruOrderUntilEnough) {
  const std::string a = place_cached(100, 9), b = place_cached(200), c = place_cached(300);
  EXPECT_EQ(pool_.evict(0), 0U);
  EXPECT_EQ(pool_.evict(1), 100U);  // whatever its priority
  EXPECT_FALSE(is_there(a));
  EXPECT_EQ(pool_.evict(201), 500U);
  EXPECT_EQ(pool_.evict(1), 0U);
  EXPECT_THAT(layout(), ElementsAre("0+1000 Free"));
}

TEST_F(PoolTest, EvictsAsMuchAsThereIs) {
  place_cached(100);
  place(100);
  place_cached(100);
  EXPECT_EQ(pool_.evict(kMax), 200U);
}

TEST_F(PoolTest, DefragmentSlidesBlocksDownAroundPinnedOnes) {
  const std::string gap1 = place(100), a = place(50), pinned = place(100), gap2 = place(100), b = place_cached(60),
                    gap3 = place(100), c = place(40), d = place(32, 32);
  ASSERT_TRUE(pool_.pin(pinned).ok());
  free(gap1);
  free(gap2);
  free(gap3);
  // a goes to 0; b to 50 in front of the pinned [150, 250); c no longer fits there; d is aligned behind c.
  const std::vector<Move> plan = pool_.plan_defragment();
  EXPECT_THAT(plan,
              ElementsAre(Move{a, 100, 0, 50}, Move{b, 350, 50, 60}, Move{c, 510, 110, 40}, Move{d, 576, 256, 32}));
  EXPECT_EQ(pool_.defragment(), 4U);
  EXPECT_THAT(layout(), ElementsAre("0+50 Allocated", "50+60 Cached", "110+40 Allocated", "150+100 Pinned",
                                    "250+6 Free", "256+32 Allocated", "288+712 Free"));
  EXPECT_EQ(pool_.defragment(), 0U);
  EXPECT_THAT(pool_.plan_defragment(), IsEmpty());
  EXPECT_EQ(offset_of(d), 256U);
  EXPECT_EQ(pool_.evict(1), 60U);  // a moved block is found where it is now
}

TEST(MemoryPoolDefragment, DoesNotLookAtAllThatLiesBehindAtEachMove) {
  constexpr std::size_t kBlocks = 250'000, kSize = 256;
  MemoryPool pool({"gpu0", 2 * kBlocks * kSize, 0, {}});
  std::vector<std::string> gaps;
  for (std::size_t i = 0; i < 2 * kBlocks; ++i) {
    std::string id = *pool.allocate({"t", kSize}, 1).block_id;
    if (i % 2 == 0) gaps.push_back(std::move(id));
  }
  for (const std::string& id : gaps) ASSERT_TRUE(pool.free(id).ok());
  EXPECT_EQ(pool.defragment(), kBlocks);  // with a walk through the rest at each it would take minutes
  EXPECT_EQ(pool.stats().largest_free_block, kBlocks * kSize);
}

// AddressSanitizer tells whether anything of them is left.
TEST(MemoryPoolEnd, TakesEveryTensorWithIt) {
  const std::string long_id(100, 'x');
  MemoryPool pool({"gpu0", 1U << 20U, 0, {}});
  for (int i = 0; i < 1'500; ++i) ASSERT_TRUE(pool.allocate({long_id, 8}, 1).success);
  for (int i = 0; i < 6; ++i) {
    const auto block = pool.allocate({long_id + std::to_string(i), 8}, 1);
    if (i % 2 == 0) {
      ASSERT_TRUE(pool.free(*block.block_id).ok());
    }
  }
  EXPECT_EQ(pool.stats().allocation_count, 1'503U);
}

TEST_F(PoolTest, DefragmentChangesNothingButTheOffset) {
  const std::string gap = place(100), id = place(64, 64, 3);
  ASSERT_TRUE(pool_.touch(id, 999).ok());
  MemoryBlock want = pool_.get_block(id).value();
  free(gap);
  ASSERT_EQ(pool_.defragment(), 1U);
  want.offset = 0;
  EXPECT_EQ(pool_.get_block(id), want);
  EXPECT_THAT(pool_.blocks_for_tensor("tensor"), ElementsAre(want));
}

TEST_F(PoolTest, ListsTheBlocksOfATensorByOffset) {
  const auto named = [&](const char* tensor, std::size_t size) {
    return pool_.allocate({tensor, size}, ++now_).block_id.value();
  };
  const std::string a = named("x", 100), b = named("y", 10), c = named("x", 50);
  free(a);
  const std::string d = named("x", 70);
  std::vector<std::string> ids;
  for (const MemoryBlock& block : pool_.blocks_for_tensor("x")) ids.push_back(block.block_id);
  EXPECT_THAT(ids, ElementsAre(d, c));
  EXPECT_THAT(pool_.blocks_for_tensor("z"), IsEmpty());
  free(b);
  EXPECT_THAT(pool_.blocks_for_tensor("y"), IsEmpty());
}

TEST_F(PoolTest, ReportsStatisticsThatAddUp) {
  const std::string a = place(100), b = place(200), c = place_cached(300), d = place(50);
  ASSERT_TRUE(pool_.pin(b).ok());
  free(a);
  const PoolStats stats = pool_.stats();
  EXPECT_EQ(stats.allocated_bytes, 50U);
  EXPECT_EQ(stats.pinned_bytes, 200U);
  EXPECT_EQ(stats.cached_bytes, 300U);
  EXPECT_EQ(stats.free_bytes, 450U);
  EXPECT_EQ(stats.largest_free_block, 350U);
  EXPECT_DOUBLE_EQ(stats.fragmentation_ratio, 1.0 - 350.0 / 450.0);
  EXPECT_EQ(stats.fragmentation_ratio, fragmentation_ratio(pool_.blocks()));
  EXPECT_EQ(stats.allocation_count, 3U);
  EXPECT_EQ(stats.block_count, 5U);
}

TEST(LargePool, ServesOffsetsUpToTheEndOfTheNumbers) {
  MemoryPool pool({"gpu0", kMax, 0, {}});
  EXPECT_EQ(pool.allocate({"t", 1}, 1).offset, 0U);
  EXPECT_EQ(pool.allocate({"t", std::size_t{1} << 62U, std::size_t{1} << 62U}, 1).offset, std::size_t{1} << 62U);
  EXPECT_EQ(pool.allocate({"t", std::size_t{1} << 63U, std::size_t{1} << 63U}, 1).success, false);
  EXPECT_EQ(pool.allocate({"t", kMax - (std::size_t{1} << 63U)}, 1).offset, std::size_t{1} << 63U);
  EXPECT_THAT(pool.allocate({"t", std::size_t{1} << 63U}, 1).error.value(), HasSubstr("out of memory"));
}

}  // namespace
}  // namespace tensorforge::gpu_memory
