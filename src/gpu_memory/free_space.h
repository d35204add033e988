#pragma once

#include <cstddef>
#include <optional>

#include "absl/container/btree_map.h"
#include "gpu_memory/hole_index.h"

namespace tensorforge::gpu_memory {

/// A set of bytes of [0, 2^64) as its maximal runs, the holes, with the exact best fit under alignment.
///
/// Cost: every call is O(log holes), but for bytes() and count(), which are O(1).
/// Threads: none.
class FreeSpace {
 public:
  /// Adds bytes of which none is in the set; they become one run with what they touch.
  void add(Extent);
  /// Removes bytes that are all in the set.
  void remove(Extent);

  /// The smallest hole in which `size` bytes fit at a multiple of `alignment`, the lower of two equally small ones.
  /// `alignment` is a power of two, and `size` a multiple of it and not 0.
  std::optional<Extent> best_fit(std::size_t size, std::size_t alignment) const;

  std::size_t bytes() const { return bytes_; }
  std::size_t count() const { return by_offset_.size(); }
  std::size_t largest() const { return by_size_.largest(); }
  /// The holes: offset -> size.
  const absl::btree_map<std::size_t, std::size_t>& holes() const { return by_offset_; }

 private:
  void insert(Extent);

  absl::btree_map<std::size_t, std::size_t> by_offset_;
  HoleIndex by_size_;
  std::size_t bytes_{};
};

}  // namespace tensorforge::gpu_memory
