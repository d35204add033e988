#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/container/btree_map.h"
#include "gpu_memory/hole_index.h"
#include "gpu_memory/slab.h"

namespace tensorforge::gpu_memory {

struct Place;

/// The way to a piece of the memory, and whether that is a hole or a live block's, in one word: who frees a block
/// between two others only writes to those, and waits for neither.
class Link {
 public:
  Link() = default;  ///< to nothing
  static Link to_live(Place& place) { return Link(&place, 0); }
  static Link to_hole(Place& place) { return Link(&place, kHole); }

  Place* place() const {                              ///< nullptr: there is none
    return reinterpret_cast<Place*>(word_ & ~kHole);  // NOLINT(performance-no-int-to-ptr): it was one
  }
  Place* live() const { return is_hole() ? nullptr : place(); }  ///< nullptr: there is none, or a hole
  Place* hole() const { return is_hole() ? place() : nullptr; }  ///< nullptr: there is none, or a block
  bool is_hole() const { return (word_ & kHole) != 0; }
  explicit operator bool() const { return word_ != 0; }
  bool operator==(const Link&) const = default;

 private:
  static constexpr std::uintptr_t kHole = 1;  ///< free in every address, since places are aligned
  Link(Place* place, std::uintptr_t kind) : word_(reinterpret_cast<std::uintptr_t>(place) | kind) {}

  std::uintptr_t word_{};
};

/// A piece of the memory: a hole, or a live block's. It fills half a cache line, and never lies in two.
struct alignas(32) Place {
  std::size_t offset{}, size{};
  Link before;  ///< the piece that ends where this one begins; none: this is the first
  Link behind;  ///< the piece that begins where this one ends; none: this is the last

  Extent extent() const { return {offset, size}; }
  std::size_t end() const { return offset + size; }
};

/// Whether a live place at this offset is a landmark: one in 64, by a hash that differs between processes. It decides
/// nothing but the time that a look-up takes.
bool is_landmark(std::size_t offset);

/// Where everything lies in [0, total): the placement core, which knows offsets and sizes only.
///
/// Live places and holes tile the memory, and no two holes touch. All are linked in the order of their offsets, so that
/// taking bytes of a hole and giving them back look at neighbours and never search; the holes are in a HoleIndex too.
/// What has to find a place by its offset goes by landmarks, the 64th part of the live places whose offsets have a
/// certain hash, in a tree, and from the nearest one on along the links; or from what was vacated last, if it is near:
/// who evicts finds the places one by one.
///
/// Live places belong to the caller and stay where they are until vacated; their fields are kept up here.
///
/// Cost: best_fit(), occupy() with a hole, and vacate() are O(log holes of nearly one size); look-ups by offset are
///       O(log live places) and, expected, up to 128 links.
/// Threads: none.
class Placement {
 public:
  /// One hole over all memory; none where that has 0 bytes.
  explicit Placement(std::size_t total);
  Placement(const Placement&) = delete;
  Placement& operator=(const Placement&) = delete;

  using Hole = HoleIndex::Hole;
  static Hole to_hole(Place& hole) { return {hole.size, hole.offset, &hole}; }

  /// The smallest hole in which `size` bytes fit at a multiple of `alignment`, the lower of two equally small ones.
  /// `alignment` is a power of two, and `size` a multiple of it and not 0. The place of the hole is not looked at, but
  /// the memory is asked for it.
  std::optional<Hole> best_fit(std::size_t size, std::size_t alignment) const;
  /// Makes `place` the live place of `extent`, which is not empty and lies in `hole`.
  void occupy(Place& place, Extent extent, const Hole& hole);
  /// Makes the bytes of a live place free: they become one hole with the holes that they touch.
  void vacate(Place& place);

  /// The piece in which the byte at `offset` is; none: it is at or behind the total.
  Link containing(std::size_t offset) const;
  Link first() const { return first_; }
  Link last() const { return last_; }

  std::size_t free_bytes() const { return free_bytes_; }
  std::size_t largest_hole() const { return holes_.largest(); }
  std::size_t hole_count() const { return holes_.count(); }

 private:
  /// Puts `piece` into the order between two that are neighbours.
  void link(Link piece, Link before, Link behind);
  void link_ends(Link before, Link behind);
  /// containing(), by a few links from `near`; none: it is farther away.
  static Link containing_near(Link near, std::size_t offset);
  void set_hole(Place& hole, Extent extent);
  void set_vacated(Place& hole, Extent extent);
  void forget_last() {
    vacated_last_ = {};
    found_last_.hole.place = nullptr;
  }

  HoleIndex holes_;
  Slab<Place> hole_places_;
  Link first_, last_;
  // Until the next change:
  Link vacated_last_;  ///< the hole that vacate() made
  struct Found {
    std::size_t size{}, alignment{};  ///< what best_fit() was asked for: who decides asks, and who applies asks again
    Hole hole;                        ///< without a place: nothing is known
  };
  mutable Found found_last_;
  std::size_t free_bytes_{};
  absl::btree_map<std::size_t, Place*> landmarks_;  ///< by offset
};

}  // namespace tensorforge::gpu_memory
