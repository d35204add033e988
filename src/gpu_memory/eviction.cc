#include "gpu_memory/eviction.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace tensorforge::gpu_memory {
namespace {

bool fits(Extent extent, std::size_t size, std::size_t alignment) {
  const std::size_t padding = (std::size_t{0} - extent.offset) & (alignment - 1);
  return padding <= extent.size && size <= extent.size - padding;
}

Extent between(std::size_t begin, std::size_t end) { return {begin, end - begin}; }

/// The holes that grow while blocks are taken, on top of a pool that stays as it is.
class GrowingHoles {
 public:
  /// The hole in which the bytes of a block are once it is taken.
  Extent take(const Block& block) {
    std::size_t begin = block.offset;
    std::size_t end = block.end();
    if (const auto before = begin_of_.extract(begin)) {
      begin = before.mapped();
      end_of_.erase(begin);
    } else if (const Place* const hole = block.before.hole()) {
      begin = hole->offset;
    }
    if (const auto behind = end_of_.extract(end)) {
      end = behind.mapped();
      begin_of_.erase(end);
    } else if (const Place* const hole = block.behind.hole()) {
      end = hole->end();
    }
    begin_of_[end] = begin;
    end_of_[begin] = end;
    return between(begin, end);
  }

 private:
  // Of each hole that has a taken block in it, and so is not one of the pool's: end -> begin, and begin -> end.
  absl::flat_hash_map<std::size_t, std::size_t> begin_of_, end_of_;
};

struct Taken {
  CachedBlock last;  ///< the block that made the fit
  Extent hole;       ///< where it is
};

std::optional<Taken> take_until_fit(const Pool& pool, std::size_t size, std::size_t alignment,
                                    std::int32_t max_priority) {
  GrowingHoles holes;
  for (auto block = pool.next_cached(std::nullopt, max_priority); block;
       block = pool.next_cached(block, max_priority)) {
    const Extent hole = holes.take(*block->block);
    if (fits(hole, size, alignment)) return Taken{*block, hole};
  }
  return std::nullopt;
}

/// The live blocks in `hole`, all of them taken, but for `last`: most recently accessed first.
std::vector<CachedBlock> others_in(const Pool& pool, const Taken& taken) {
  std::vector<CachedBlock> blocks;
  const auto is_inside = [&](const Block* block) {
    return block != nullptr && block->offset >= taken.hole.offset && block->offset < taken.hole.end();
  };
  for (auto* at = pool.previous_live(*taken.last.block); is_inside(at); at = pool.previous_live(*at)) {
    blocks.push_back(to_cached_block(*at));
  }
  for (auto* at = pool.next_live(*taken.last.block); is_inside(at); at = pool.next_live(*at)) {
    blocks.push_back(to_cached_block(*at));
  }
  std::sort(blocks.rbegin(), blocks.rend());
  return blocks;
}

}  // namespace

// No fit exists before the last block is taken. So every fit, in any later state of the hole and of the other holes,
// has bytes of that block: it is never given back, what lies in other holes is given back at once, and of its own hole
// only the run around it counts. A block that stands in that run again ends it there; the piece beyond is no fit, being
// part of what was free before the last block was taken. One that cannot go back when its turn comes stays evicted, and
// in the run: without it the run, which only gets shorter, has no fit. At the end the run is the one hole with a fit.
std::optional<EvictionPlan> plan_eviction(const Pool& pool, std::size_t size, std::size_t alignment,
                                          std::int32_t max_priority) {
  if (!pool.fits_without_cached(size, alignment)) return std::nullopt;
  const auto taken = take_until_fit(pool, size, alignment, max_priority);
  if (!taken) return std::nullopt;

  Extent run = taken->hole;
  std::vector<CachedBlock> evicted;
  for (const CachedBlock& block : others_in(pool, *taken)) {
    if (block.offset < run.offset || block.offset >= run.end()) continue;
    const bool before_last = block.offset < taken->last.offset;
    const Extent shorter = before_last ? between(block.block->end(), run.end()) : between(run.offset, block.offset);
    if (fits(shorter, size, alignment)) {
      run = shorter;
    } else {
      evicted.push_back(block);
    }
  }
  std::reverse(evicted.begin(), evicted.end());
  evicted.push_back(taken->last);
  return EvictionPlan{std::move(evicted), align_up(run.offset, alignment)};
}

}  // namespace tensorforge::gpu_memory
