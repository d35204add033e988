#include "platform/sharded_index.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <random>

#include <gmock/gmock.h>

namespace tensorforge {
namespace {

struct Thing {
  std::uint64_t key{};
};
/// Keys that differ by a multiple of the modulus have one hash.
struct Colliding {
  using Key = std::uint64_t;
  static constexpr std::uint64_t kModulus = 50'000;
  static Key key_of(const Thing& thing) {
    ++looks;
    return thing.key;
  }
  static std::size_t hash_of(Key key) { return (key % kModulus) * 0x9E3779B97F4A7C15U; }
  static inline std::uint64_t looks = 0;
};
using Index = ShardedIndex<Thing, Colliding>;

TEST(ShardedIndex, AgreesWithAMapThroughRandomChanges) {
  constexpr std::uint64_t kKeys = 3 * Colliding::kModulus;
  std::deque<Thing> things;
  std::map<std::uint64_t, Thing*> model;
  Index index;
  std::mt19937_64 random(7);
  for (int change = 0; change < 200'000; ++change) {
    const std::uint64_t key = random() % kKeys;
    const auto known = model.find(key);
    ASSERT_EQ(index.find(key), known == model.end() ? nullptr : known->second) << change;
    index.prefetch(key);
    if (known == model.end()) {
      things.push_back({key});
      index.insert(things.back());
      model.emplace(key, &things.back());
    } else if (change % 2 == 0) {
      index.erase(*known->second);
      model.erase(known);
    }
    ASSERT_EQ(index.size(), model.size());
  }
  for (std::uint64_t key = 0; key < kKeys; ++key) {
    ASSERT_EQ(index.find(key), model.contains(key) ? model.at(key) : nullptr) << key;
  }
}

TEST(ShardedIndex, GrowsWithoutALookAtWhatIsThere) {
  std::deque<Thing> things;
  Index index;
  Colliding::looks = 0;
  for (std::uint64_t key = 0; key < Colliding::kModulus; ++key) index.insert(things.emplace_back(Thing{key}));
  EXPECT_EQ(Colliding::looks, Colliding::kModulus);
}

TEST(ShardedIndex, WhatIsLikelyIsFoundWithoutALookAtIt) {
  Thing thing{17}, same_hash{17 + Colliding::kModulus};
  Index index;
  EXPECT_EQ(index.likely(17), nullptr);
  index.insert(thing);
  Colliding::looks = 0;
  EXPECT_EQ(index.likely(17), &thing);
  EXPECT_EQ(index.likely(same_hash.key), &thing);
  EXPECT_EQ(Colliding::looks, 0u);
  EXPECT_EQ(index.find(same_hash.key), nullptr);
}

}  // namespace
}  // namespace tensorforge
