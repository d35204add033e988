#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <limits>

#include "absl/container/flat_hash_set.h"
#include "platform/huge_pages.h"

namespace tensorforge {

/// Finds entities, which belong to others and stay where they are, by a key that each of them holds.
///
/// It is a hash table in shards, which grow one by one, and it keeps the hash beside each pointer. So no call moves
/// more than about an eighth of it, and none looks at other entities than the one it is about: a single table of
/// pointers stops its owner when it doubles, for a wait for memory per entity.
///
/// `Traits` says what a key is:
///   Key                        comparable by ==
///   key_of(const Entity&) -> Key
///   hash_of(const Key&) -> std::size_t, of which all bits count
///   hash_of(const Entity&), where the entity keeps it
///
/// Cost: O(1), but for an insert that makes a shard grow, O(size / 8).
/// Threads: none.
template <class Entity, class Traits>
class ShardedIndex {
 public:
  using Key = typename Traits::Key;

  /// nullptr: there is none.
  Entity* find(const Key& key) const {
    const std::size_t hash = Traits::hash_of(key);
    prefetch_hash(hash);  // or the table would ask for the place only after waiting for its control bytes
    return look_up(Sought{hash, key});
  }
  /// The same for who only wants it to be brought: it may be another one, and is not looked at.
  Entity* likely(const Key& key) const { return likely_by_hash(Traits::hash_of(key)); }
  Entity* likely_by_hash(std::size_t hash) const { return look_up(OfHash{hash}); }
  void prefetch(const Key& key) const { prefetch_hash(Traits::hash_of(key)); }
  void prefetch_hash(std::size_t hash) const { shard_of(hash).prefetch(ToPrefetch{hash}); }

  /// None with its key is there. It must keep that key until it is erased.
  void insert(Entity& entity) {
    const std::size_t hash = hash_of(entity);
    [[maybe_unused]] const bool is_new = shards_[number_of(hash)].insert({hash, &entity}).second;
    assert(is_new);
    ++size_;
  }
  /// It is there.
  void erase(Entity& entity) {
    const std::size_t hash = hash_of(entity);
    [[maybe_unused]] const std::size_t erased = shards_[number_of(hash)].erase(Slot{hash, &entity});
    assert(erased == 1);
    --size_;
  }
  std::size_t size() const { return size_; }

 private:
  struct Slot {
    std::size_t hash{};
    Entity* entity{};
  };
  struct Sought {
    std::size_t hash{};
    const Key& key;
  };
  struct OfHash {
    std::size_t hash{};
  };
  struct ToPrefetch {
    std::size_t hash{};
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(const auto& any) const { return any.hash; }
    std::size_t operator()(const ToPrefetch& sought) const {
      // GCC takes a function that does nothing but prefetch for one without effect, and leaves no call of it.
      asm volatile("");
      return sought.hash;
    }
  };
  struct Same {
    using is_transparent = void;
    bool operator()(const Slot& a, const Slot& b) const { return a.entity == b.entity; }
    bool operator()(const Slot& slot, const Sought& sought) const {
      return slot.hash == sought.hash && Traits::key_of(*slot.entity) == sought.key;
    }
    bool operator()(const Slot& slot, const OfHash& sought) const { return slot.hash == sought.hash; }
  };
  using Shard = absl::flat_hash_set<Slot, Hash, Same, HugePageAllocator<Slot>>;

  static std::size_t hash_of(const Entity& entity) {
    if constexpr (requires { Traits::hash_of(entity); }) {
      return Traits::hash_of(entity);
    } else {
      return Traits::hash_of(Traits::key_of(entity));
    }
  }

  static constexpr std::size_t kShards = 8;
  /// By the highest bits: the table of a shard goes by the others.
  static std::size_t number_of(std::size_t hash) {
    return hash / (std::numeric_limits<std::size_t>::max() / kShards + 1);
  }
  const Shard& shard_of(std::size_t hash) const { return shards_[number_of(hash)]; }
  Entity* look_up(const auto& sought) const {
    const Shard& shard = shard_of(sought.hash);
    const auto found = shard.find(sought);
    return found == shard.end() ? nullptr : found->entity;
  }

  std::array<Shard, kShards> shards_;
  std::size_t size_{};
};

}  // namespace tensorforge
