#include "gpu_memory/defragment.h"

#include <limits>

namespace tensorforge::gpu_memory {
namespace {

/// Finds, for blocks in offset order, the lowest aligned place that overlaps no Pinned block.
class Compactor {
 public:
  /// For the blocks that begin at or behind `from`; those before it are where they belong.
  Compactor(const Pool& pool, std::size_t from) : pool_(pool) {
    const Block* last = from == 0 ? nullptr : pool.last_live(from - 1);
    while (last != nullptr && last->status == BlockStatus::Pinned) last = pool.previous_live(*last);
    if (last != nullptr) cursor_ = last->end();
    next_ = pool.last_live(cursor_);
    if (next_ == nullptr) next_ = pool.first_live();
  }

  std::size_t place(const Block& block) {
    std::size_t to = align_up(cursor_, block.alignment);
    for (; next_ != nullptr && next_->offset < to + block.size; next_ = pool_.next_live(*next_)) {
      const bool in_the_way = next_->status == BlockStatus::Pinned && next_->end() > to;
      if (in_the_way) to = align_up(next_->end(), block.alignment);
    }
    cursor_ = to + block.size;
    return to;
  }

 private:
  const Pool& pool_;
  std::size_t cursor_{};  ///< end of the block placed last
  // The first block that, if it is Pinned, can still be in the way: places only rise, so what ends below one is never
  // looked at again, and what begins behind one not yet.
  const Block* next_{};
};

}  // namespace

// Why nothing is overwritten. Let blocks b1, b2, ... be the Allocated and Cached ones by offset, from(i) and to(i)
// their places before and after. to(i) <= from(i): where b(i) lies is aligned, overlaps no Pinned block, and is behind
// to(i-1) + size(i-1) <= from(i-1) + size(i-1), so the lowest such place is no higher. When b(i) is copied, b1 ...
// b(i-1) lie at their new places, all of which end at or below to(i); b(i+1) and later ones lie at or above from(i) +
// size(i) >= to(i) + size(i); and no Pinned block overlaps [to(i), to(i) + size(i)). So only b(i)'s own bytes can be
// under the copy. The first i moves leave b1 ... b(i) where a new plan would put them: the rest is the same.
std::vector<BlockMove> plan_moves(const Pool& pool, std::size_t limit) {
  std::vector<BlockMove> moves;
  Compactor compactor(pool, pool.settled());
  for (const Block* at = pool.first_live(pool.settled()); at != nullptr && moves.size() < limit;
       at = pool.next_live(*at)) {
    if (at->status == BlockStatus::Pinned) continue;
    const std::size_t to = compactor.place(*at);
    if (to != at->offset) moves.push_back({at, to});
  }
  return moves;
}

std::size_t next_unsettled(const Pool& pool) {
  const std::vector<BlockMove> next = plan_moves(pool, 1);
  return next.empty() ? std::numeric_limits<std::size_t>::max() : next.front().block->offset;
}

}  // namespace tensorforge::gpu_memory
