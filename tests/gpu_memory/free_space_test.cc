#include "gpu_memory/free_space.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gpu_memory/summary_tree.h"

namespace tensorforge::gpu_memory {
namespace {

using testing::ElementsAre;
using testing::Pair;

constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();

TEST(FreeSpace, MergesWhatTouchesAndSplitsWhatIsCut) {
  FreeSpace space;
  space.add({10, 10});
  space.add({30, 10});
  EXPECT_EQ(space.count(), 2U);
  space.add({20, 10});
  EXPECT_THAT(space.holes(), ElementsAre(Pair(10, 30)));
  space.remove({15, 5});
  EXPECT_THAT(space.holes(), ElementsAre(Pair(10, 5), Pair(20, 20)));
  space.remove({10, 5});
  space.remove({20, 20});
  EXPECT_EQ(space.count(), 0U);
  EXPECT_EQ(space.bytes(), 0U);
  EXPECT_EQ(space.largest(), 0U);
}

TEST(FreeSpace, PassesByAHundredThousandMisalignedHolesOfTheRightSize) {
  FreeSpace space;
  for (std::size_t i = 0; i < 100'000; ++i) space.add({i * 8192 + 1, 4096});
  EXPECT_EQ(space.best_fit(4096, 4096), std::nullopt);
  EXPECT_EQ(space.best_fit(4096, 1), (Extent{1, 4096}));
  space.add({100'000 * 8192, 4096});
  EXPECT_EQ(space.best_fit(4096, 4096), (Extent{100'000 * 8192, 4096}));
  EXPECT_EQ(space.best_fit(2048, 2048), (Extent{1, 4096}));
}

TEST(FreeSpace, FitsUpToTheEndOfTheNumbers) {
  FreeSpace space;
  space.add({1, kMax - 1});
  constexpr std::size_t kHalf = std::size_t{1} << 63U;
  EXPECT_EQ(space.best_fit(kHalf, kHalf), std::nullopt);  // [2^63, 2^64) lacks its last byte
  EXPECT_EQ(space.best_fit(kHalf / 2, kHalf / 2), (Extent{1, kMax - 1}));
  EXPECT_EQ(space.best_fit(kMax - 1, 1), (Extent{1, kMax - 1}));
  EXPECT_EQ(space.best_fit(kMax, 1), std::nullopt);
}

std::optional<Extent> best_fit_by_scan(const std::map<std::size_t, std::size_t>& holes, std::size_t size,
                                       std::size_t alignment) {
  std::optional<Extent> best;
  for (const auto& [offset, bytes] : holes) {
    const std::size_t aligned = (offset + alignment - 1) / alignment * alignment;
    if (aligned + size > offset + bytes) continue;
    if (!best || bytes < best->size) best = Extent{offset, bytes};
  }
  return best;
}

TEST(FreeSpaceProperty, FindsTheBestFitOfAScan) {
  for (std::uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const std::size_t total = std::size_t{1} << (6 + random() % 14);
    std::vector<bool> is_free(total);
    FreeSpace space;
    for (int step = 0; step < 60; ++step) {
      const std::size_t begin = random() % total;
      std::size_t end = begin;
      const std::size_t longest = 1 + random() % (total / 8);
      while (end < total && end - begin < longest && is_free[end] == is_free[begin]) ++end;
      const bool adds = !is_free[begin];
      std::fill(is_free.begin() + static_cast<std::ptrdiff_t>(begin),
                is_free.begin() + static_cast<std::ptrdiff_t>(end), adds);
      adds ? space.add({begin, end - begin}) : space.remove({begin, end - begin});

      std::map<std::size_t, std::size_t> holes;
      for (std::size_t at = 0; at < total; ++at) {
        if (!is_free[at]) continue;
        const std::size_t first = at;
        while (at < total && is_free[at]) ++at;
        holes[first] = at - first;
      }
      ASSERT_EQ(std::map(space.holes().begin(), space.holes().end()), holes);
      for (int query = 0; query < 20; ++query) {
        const std::size_t alignment = std::size_t{1} << random() % 12;
        const std::size_t size = alignment * (1 + random() % std::max<std::size_t>(1, total / 4 / alignment));
        ASSERT_EQ(space.best_fit(size, alignment), best_fit_by_scan(holes, size, alignment))
            << size << " at " << alignment;
      }
    }
  }
}

struct LowestRest {
  using Key = std::uint64_t;
  using Value = std::uint64_t;
  using Summary = std::uint64_t;
  static Summary of(Key /*key*/, Value rest) { return rest; }
  static Summary join(Summary a, Summary b) { return std::min(a, b); }
};

using TreeItem = std::optional<SummaryTree<LowestRest>::Item>;

TEST(SummaryTreeProperty, AgreesWithASetWhileItGrowsAndShrinks) {
  const auto item = [](std::uint64_t key) { return TreeItem({key, key % 1000}); };
  for (std::uint32_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    SummaryTree<LowestRest>::Nodes nodes;
    SummaryTree<LowestRest> tree;
    std::set<std::uint64_t> set;
    const bool ascending = seed % 3 == 0;
    for (std::uint64_t step = 0; step < 12'000; ++step) {
      const bool grows = (step / 3'000) % 2 == 0;
      const std::uint64_t key = ascending && grows ? step : random() % 20'000;
      if (grows ? random() % 8 != 0 : random() % 8 == 0) {
        if (set.insert(key).second) tree.insert(nodes, key, key % 1000);
      } else if (!set.empty()) {
        const auto victim = grows || random() % 2 == 0 ? set.lower_bound(key) : set.begin();
        if (victim == set.end()) {
          ASSERT_FALSE(tree.erase(nodes, key));
        } else {
          ASSERT_TRUE(tree.erase(nodes, *victim));
          set.erase(victim);
        }
      }
      ASSERT_EQ(tree.size(), set.size());
      ASSERT_EQ(tree.last(), set.empty() ? std::nullopt : item(*set.rbegin()));
      const std::uint64_t from = random() % 20'000, most = random() % 1'000 / (1 + random() % 50);
      const auto want =
          std::find_if(set.lower_bound(from), set.end(), [&](std::uint64_t k) { return k % 1000 <= most; });
      ASSERT_EQ(tree.first(from, [&](std::uint64_t lowest) { return lowest <= most; }),
                want == set.end() ? std::nullopt : item(*want));
      const auto lowest = std::find_if(set.begin(), set.end(), [&](std::uint64_t k) { return k % 1000 <= most; });
      ASSERT_EQ(tree.first_of_all([&](std::uint64_t rest) { return rest <= most; }),
                lowest == set.end() ? std::nullopt : item(*lowest));
    }
    while (!set.empty()) {
      ASSERT_TRUE(tree.erase(nodes, *set.begin()));
      set.erase(set.begin());
    }
    ASSERT_TRUE(tree.empty());
    ASSERT_EQ(tree.first(0), std::nullopt);
  }
}

}  // namespace
}  // namespace tensorforge::gpu_memory
