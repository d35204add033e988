#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/container/btree_map.h"
#include "gpu_memory/summary_tree.h"

namespace tensorforge::gpu_memory {

/// The bytes [offset, offset + size).
struct Extent {
  std::size_t offset{}, size{};
  std::size_t end() const { return offset + size; }
  bool operator==(const Extent&) const = default;
};

/// A set of bytes of [0, 2^64) as its maximal runs, the holes, with the exact best fit under alignment. The placement
/// core: it knows offsets and sizes only.
///
/// A request is a power-of-two alignment A and a size S that is a multiple of A. A hole of h bytes at offset o holds
/// the request when its padding p = -o mod A leaves room: S <= h - p. Write h = qA + r with 0 <= r < A. Then
///   h >= S + A      always fits, because p < A;
///   S <= h < S + A  fits exactly when p <= r, that is (-o mod A) <= (h mod A);
///   h < S           never.
/// The middle condition does not depend on S. So each hole has 64 bits, one per alignment 2^k, and the best fit is the
/// first hole in (size, offset) order from S on whose bit is set, or the first from S + A on: two searches in a tree
/// that keeps the bitwise or of the bits below each node, whatever the holes look like.
///
/// Cost: every call is O(log holes), but for bytes(), count() and the like, which are O(1).
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

  std::optional<Extent> hole_at(std::size_t begin) const;
  std::optional<Extent> hole_ending_at(std::size_t end) const;
  std::size_t bytes() const { return bytes_; }
  std::size_t count() const { return by_offset_.size(); }
  std::size_t largest() const;
  /// The holes: offset -> size.
  const absl::btree_map<std::size_t, std::size_t>& holes() const { return by_offset_; }

 private:
  struct BySize {
    struct Key {
      std::size_t size{}, offset{};
      friend auto operator<=>(const Key&, const Key&) = default;
    };
    using Summary = std::uint64_t;  ///< bit k: the middle condition holds for alignment 2^k
    static Summary of(const Key&);
    static Summary join(Summary a, Summary b) { return a | b; }
  };

  void insert(Extent);

  absl::btree_map<std::size_t, std::size_t> by_offset_;
  SummaryTree<BySize> by_size_;
  std::size_t bytes_{};
};

}  // namespace tensorforge::gpu_memory
