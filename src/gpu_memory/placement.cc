#include "gpu_memory/placement.h"

#include <cassert>
#include <iterator>

namespace tensorforge::gpu_memory {

Placement::Placement(std::size_t total) : free_bytes_(total) {
  if (total == 0) return;
  Place* const all = hole_places_.make();
  link(*all, nullptr, nullptr);
  set_hole(*all, {0, total});
}

void Placement::link_ends(Place* before, Place* behind) {
  (before == nullptr ? first_ : before->behind) = behind;
  (behind == nullptr ? last_ : behind->before) = before;
}

void Placement::link(Place& place, Place* before, Place* behind) {
  link_ends(before, &place);
  link_ends(&place, behind);
  place.before = before;
  place.behind = behind;
}

void Placement::set_hole(Place& hole, Extent extent) {
  hole.offset = extent.offset;
  hole.size = extent.size;
  hole.is_hole = true;
  holes_.insert(key_of(hole));
}

void Placement::drop_hole(Place& hole) {
  unlink(hole);
  hole_places_.give_back(&hole);
}

bool Placement::next_is_landmark() {
  random_ = random_ * 6364136223846793005U + 1442695040888963407U;  // Knuth's MMIX generator; its high bits are good
  return random_ >> 60U == 0;
}

Place* Placement::best_fit(std::size_t size, std::size_t alignment) const {
  const auto found = holes_.best_fit(size, alignment);
  return found ? found->place : nullptr;
}

void Placement::occupy(Place& place, Extent extent, Place& hole) {
  assert(hole.is_hole && extent.size > 0 && hole.offset <= extent.offset && extent.end() - 1 <= hole.end() - 1);
  const Extent padding{hole.offset, extent.offset - hole.offset};
  const Extent rest{extent.end(), hole.end() - extent.end()};
  holes_.erase(key_of(hole));
  free_bytes_ -= extent.size;
  place.offset = extent.offset;
  place.size = extent.size;
  place.is_hole = false;
  place.is_landmark = next_is_landmark();
  if (place.is_landmark) landmarks_.emplace(place.offset, &place);

  if (padding.size == 0) {
    link(place, hole.before, &hole);
    if (rest.size == 0) return drop_hole(hole);
    return set_hole(hole, rest);
  }
  link(place, &hole, hole.behind);
  set_hole(hole, padding);
  if (rest.size == 0) return;
  Place* const behind = hole_places_.make();
  link(*behind, &place, place.behind);
  set_hole(*behind, rest);
}

void Placement::vacate(Place& place) {
  assert(!place.is_hole);
  free_bytes_ += place.size;
  if (place.is_landmark) landmarks_.erase(place.offset);
  Place* const before = place.before != nullptr && place.before->is_hole ? place.before : nullptr;
  Place* const behind = place.behind != nullptr && place.behind->is_hole ? place.behind : nullptr;
  Extent all = place.extent();
  if (before != nullptr) {
    holes_.erase(key_of(*before));
    all = {before->offset, before->size + all.size};
  }
  if (behind != nullptr) {
    holes_.erase(key_of(*behind));
    all.size += behind->size;
  }
  Place* hole = before != nullptr ? before : behind;
  if (hole == nullptr) {
    hole = hole_places_.make();
    link(*hole, place.before, place.behind);
  } else {
    unlink(place);
    if (before != nullptr && behind != nullptr) drop_hole(*behind);
  }
  set_hole(*hole, all);
}

Place* Placement::containing(std::size_t offset) const {
  const auto above = landmarks_.upper_bound(offset);
  Place* place = above == landmarks_.begin() ? first_ : std::prev(above)->second;
  while (place != nullptr && offset - place->offset >= place->size) place = place->behind;
  return place;
}

}  // namespace tensorforge::gpu_memory
