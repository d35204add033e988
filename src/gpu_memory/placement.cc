#include "gpu_memory/placement.h"

#include <cassert>
#include <iterator>

#include "absl/hash/hash.h"
#include "platform/prefetch.h"

namespace tensorforge::gpu_memory {

static_assert(sizeof(Place) == 32);

// Twice: one hash of multiples of a number is as regular as they are, in some bits.
bool is_landmark(std::size_t offset) { return absl::HashOf(absl::HashOf(offset)) % 64 == 0; }

Placement::Placement(std::size_t total) : free_bytes_(total) {
  if (total == 0) return;
  Place* const all = hole_places_.make();
  link(Link::to_hole(*all), {}, {});
  set_hole(*all, {0, total});
}

void Placement::link_ends(Link before, Link behind) {
  (before ? before.place()->behind : first_) = behind;
  (behind ? behind.place()->before : last_) = before;
}

void Placement::link(Link piece, Link before, Link behind) {
  link_ends(before, piece);
  link_ends(piece, behind);
}

void Placement::set_hole(Place& hole, Extent extent) {
  hole.offset = extent.offset;
  hole.size = extent.size;
  holes_.insert(to_hole(hole));
}

void Placement::set_vacated(Place& hole, Extent extent) {
  set_hole(hole, extent);
  vacated_last_ = Link::to_hole(hole);
}

std::optional<Placement::Hole> Placement::best_fit(std::size_t size, std::size_t alignment) const {
  if (found_last_.hole.place == nullptr || found_last_.size != size || found_last_.alignment != alignment) {
    const std::optional<Hole> found = holes_.best_fit(size, alignment);
    if (!found) return std::nullopt;
    prefetch_object(found->place);
    found_last_ = {size, alignment, *found};
  }
  return found_last_.hole;
}

void Placement::occupy(Place& place, Extent extent, const Hole& hole) {
  assert(hole.place->extent() == hole.extent());
  assert((hole.place->before ? hole.place->before.place()->behind : first_) == Link::to_hole(*hole.place));
  assert(extent.size > 0 && hole.offset <= extent.offset && extent.end() - 1 <= hole.extent().end() - 1);
  const Extent padding{hole.offset, extent.offset - hole.offset};
  const Extent rest{extent.end(), hole.extent().end() - extent.end()};
  Place& taken = *hole.place;
  holes_.erase(hole);
  forget_last();
  free_bytes_ -= extent.size;
  place.offset = extent.offset;
  place.size = extent.size;
  if (is_landmark(place.offset)) landmarks_.emplace(place.offset, &place);

  const Link live = Link::to_live(place);
  if (padding.size > 0) {
    link(live, Link::to_hole(taken), taken.behind);
    set_hole(taken, padding);
    if (rest.size == 0) return;
    Place* const behind = hole_places_.make();
    link(Link::to_hole(*behind), live, place.behind);
    set_hole(*behind, rest);
  } else if (rest.size > 0) {
    link(live, taken.before, Link::to_hole(taken));
    set_hole(taken, rest);
  } else {
    link(live, taken.before, taken.behind);
    hole_places_.destroy(&taken);
  }
}

void Placement::vacate(Place& place) {
  assert((place.before ? place.before.place()->behind : first_) == Link::to_live(place));
  forget_last();
  free_bytes_ += place.size;
  if (is_landmark(place.offset)) landmarks_.erase(place.offset);
  Place* const before = place.before.hole();
  Place* const behind = place.behind.hole();
  Extent all = place.extent();
  if (before != nullptr) {
    holes_.erase(to_hole(*before));
    all = {before->offset, before->size + all.size};
  }
  if (behind != nullptr) {
    holes_.erase(to_hole(*behind));
    all.size += behind->size;
  }
  if (before != nullptr) {
    link_ends(place.before, behind != nullptr ? behind->behind : place.behind);
    if (behind != nullptr) hole_places_.destroy(behind);
    return set_vacated(*before, all);
  }
  if (behind != nullptr) {
    link_ends(place.before, place.behind);
    return set_vacated(*behind, all);
  }
  Place* const hole = hole_places_.make();
  link(Link::to_hole(*hole), place.before, place.behind);
  set_vacated(*hole, all);
}

Link Placement::containing_near(Link near, std::size_t offset) {
  constexpr int kMostLinks = 16;
  for (int links = 0; near && links < kMostLinks; ++links) {
    const Place& place = *near.place();
    if (offset < place.offset) {
      near = place.before;
    } else if (offset - place.offset >= place.size) {
      near = place.behind;
    } else {
      return near;
    }
  }
  return {};
}

Link Placement::containing(std::size_t offset) const {
  if (const Link found = containing_near(vacated_last_, offset)) return found;
  const auto above = landmarks_.upper_bound(offset);
  Link at = above == landmarks_.begin() ? first_ : Link::to_live(*std::prev(above)->second);
  while (at && offset - at.place()->offset >= at.place()->size) at = at.place()->behind;
  return at;
}

}  // namespace tensorforge::gpu_memory
