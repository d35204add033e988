#include "gpu_memory/free_space.h"

#include <bit>
#include <cassert>
#include <limits>

namespace tensorforge::gpu_memory {

FreeSpace::BySize::Summary FreeSpace::BySize::of(const Key& hole) {
  // For every k at once: (-offset mod 2^k) <= (size mod 2^k) exactly when subtracting the two borrows nothing out of
  // bit k - 1. The borrows of x - y are (~x & y) | (~(x ^ y) & (x - y)): Warren, Hacker's Delight, 2-16.
  const std::uint64_t x = hole.size;
  const std::uint64_t y = std::uint64_t{0} - hole.offset;
  const std::uint64_t borrows = (~x & y) | (~(x ^ y) & (x - y));
  return ~(borrows << 1U);
}

void FreeSpace::insert(Extent hole) {
  by_offset_.emplace(hole.offset, hole.size);
  by_size_.insert({hole.size, hole.offset});
}

void FreeSpace::add(Extent extent) {
  if (extent.size == 0) return;
  bytes_ += extent.size;
  auto next = by_offset_.lower_bound(extent.offset);
  if (next != by_offset_.end() && next->first == extent.end()) {
    by_size_.erase({next->second, next->first});
    extent.size += next->second;
    next = by_offset_.erase(next);
  }
  if (next != by_offset_.begin()) {
    const auto before = std::prev(next);
    assert(before->first + before->second <= extent.offset);
    if (before->first + before->second == extent.offset) {
      by_size_.erase({before->second, before->first});
      before->second += extent.size;
      by_size_.insert({before->second, before->first});
      return;
    }
  }
  insert(extent);
}

void FreeSpace::remove(Extent extent) {
  if (extent.size == 0) return;
  auto after = by_offset_.upper_bound(extent.offset);
  assert(after != by_offset_.begin());
  const auto found = std::prev(after);
  const Extent hole{found->first, found->second};
  assert(hole.offset <= extent.offset && extent.end() <= hole.end());
  bytes_ -= extent.size;
  by_size_.erase({hole.size, hole.offset});
  if (hole.offset < extent.offset) {
    found->second = extent.offset - hole.offset;
    by_size_.insert({found->second, hole.offset});
  } else {
    by_offset_.erase(found);
  }
  if (extent.end() < hole.end()) insert({extent.end(), hole.end() - extent.end()});
}

std::optional<Extent> FreeSpace::best_fit(std::size_t size, std::size_t alignment) const {
  assert(size > 0 && std::has_single_bit(alignment) && size % alignment == 0);
  const auto bit = static_cast<unsigned>(std::countr_zero(alignment));
  auto found = by_size_.first({size, 0}, [bit](std::uint64_t fits) { return ((fits >> bit) & 1U) != 0; });
  if (!found || found->size - size >= alignment) {
    if (size > std::numeric_limits<std::size_t>::max() - alignment) return std::nullopt;
    found = by_size_.first({size + alignment, 0});
  }
  if (!found) return std::nullopt;
  return Extent{found->offset, found->size};
}

std::optional<Extent> FreeSpace::hole_at(std::size_t begin) const {
  const auto found = by_offset_.find(begin);
  if (found == by_offset_.end()) return std::nullopt;
  return Extent{found->first, found->second};
}

std::optional<Extent> FreeSpace::hole_ending_at(std::size_t end) const {
  const auto after = by_offset_.lower_bound(end);
  if (after == by_offset_.begin()) return std::nullopt;
  const auto before = std::prev(after);
  if (before->first + before->second != end) return std::nullopt;
  return Extent{before->first, before->second};
}

std::size_t FreeSpace::largest() const {
  const auto last = by_size_.last();
  return last ? last->size : 0;
}

}  // namespace tensorforge::gpu_memory
