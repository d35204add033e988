#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/container/btree_map.h"
#include "gpu_memory/free_space.h"
#include "gpu_memory/hole_index.h"
#include "gpu_memory/slab.h"

namespace tensorforge::gpu_memory {

/// A piece of the memory: a hole, or a live block's.
struct Place {
  std::size_t offset{}, size{};
  Place* before{};  ///< the piece that ends where this one begins; nullptr: this is the first
  Place* behind{};  ///< the piece that begins where this one ends; nullptr: this is the last
  bool is_hole{};
  bool is_landmark{};

  Extent extent() const { return {offset, size}; }
  std::size_t end() const { return offset + size; }
};

/// Where everything lies in [0, total): the placement core, which knows offsets and sizes only.
///
/// Live places and holes tile the memory, and no two holes touch. All are linked in the order of their offsets, so that
/// taking bytes of a hole and giving them back look at neighbours and never search; the holes are in a HoleIndex too.
/// What has to find a place by its offset goes by landmarks, a random sixteenth of the live places in a tree, and from
/// the nearest one on along the links.
///
/// Live places belong to the caller and stay where they are until vacated; their fields are kept up here.
///
/// Cost: best_fit(), occupy() with a hole, and vacate() are O(log holes of nearly one size); look-ups by offset are
///       O(log live places) and, expected, 16 steps.
/// Threads: none.
class Placement {
 public:
  /// One hole over all memory; none where that has 0 bytes.
  explicit Placement(std::size_t total);
  Placement(const Placement&) = delete;
  Placement& operator=(const Placement&) = delete;

  /// The smallest hole in which `size` bytes fit at a multiple of `alignment`, the lower of two equally small ones;
  /// nullptr: there is none. `alignment` is a power of two, and `size` a multiple of it and not 0.
  Place* best_fit(std::size_t size, std::size_t alignment) const;
  /// Makes `place` the live place of `extent`, which is not empty and lies in `hole`.
  void occupy(Place& place, Extent extent, Place& hole);
  /// Makes the bytes of a live place free: they become one hole with the holes that they touch.
  void vacate(Place& place);

  /// The piece in which the byte at `offset` is; nullptr: none, it is at or behind the total.
  Place* containing(std::size_t offset) const;
  Place* first() const { return first_; }
  Place* last() const { return last_; }

  std::size_t free_bytes() const { return free_bytes_; }
  std::size_t largest_hole() const { return holes_.largest(); }
  std::size_t hole_count() const { return holes_.count(); }

 private:
  static HoleIndex::Hole key_of(Place& hole) { return {hole.size, hole.offset, &hole}; }
  /// Puts `place` into the order between two that are neighbours.
  void link(Place& place, Place* before, Place* behind);
  void unlink(Place& place) { link_ends(place.before, place.behind); }
  void link_ends(Place* before, Place* behind);
  void drop_hole(Place& hole);
  void set_hole(Place& hole, Extent extent);
  bool next_is_landmark();

  HoleIndex holes_;
  Slab<Place> hole_places_;
  Place* first_{};
  Place* last_{};
  std::size_t free_bytes_{};
  absl::btree_map<std::size_t, Place*> landmarks_;
  std::uint64_t random_{1};  ///< the choice of landmarks changes nothing but the time that a look-up takes
};

}  // namespace tensorforge::gpu_memory
