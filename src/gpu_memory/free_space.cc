#include "gpu_memory/free_space.h"

#include <cassert>
#include <iterator>

namespace tensorforge::gpu_memory {

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
  const auto found = by_size_.best_fit(size, alignment);
  if (!found) return std::nullopt;
  return Extent{found->offset, found->size};
}

}  // namespace tensorforge::gpu_memory
