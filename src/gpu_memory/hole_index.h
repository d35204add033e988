#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "gpu_memory/summary_tree.h"

namespace tensorforge::gpu_memory {

struct Place;

/// The bytes [offset, offset + size).
struct Extent {
  std::size_t offset{}, size{};
  std::size_t end() const { return offset + size; }
  bool operator==(const Extent&) const = default;
};

/// Holes (runs of free bytes) by size and offset, with the exact best fit under alignment.
///
/// A request is a power-of-two alignment A and a size S that is a multiple of A. A hole of h bytes at offset o holds
/// the request when its padding p = -o mod A leaves room: S <= h - p. Write h = qA + r with 0 <= r < A. Then
///   h >= S + A      always fits, because p < A;
///   S <= h < S + A  fits exactly when p <= r, that is (-o mod A) <= (h mod A);
///   h < S           never.
/// The middle condition does not depend on S. So each hole has 64 bits, one per alignment 2^k, and the best fit is the
/// first hole in (size, offset) order from S on whose bit is set, or the first from S + A on.
///
/// The holes are in bins, 128 for each power of two of the size (sizes below 128 have one each), and two levels of bits
/// say which bins hold something. In a bin they are in a tree that keeps the bitwise or of the bits below each node;
/// most bins are one node or a single hole. S is a multiple of A, so [S, S + A) lies in at most 129 bins. Whatever the
/// holes look like, a search goes down two trees, and looks besides at no more than those bins, of each that is a
/// single node at its 32 holes or fewer.
///
/// Cost: insert, erase and a search are O(log holes of a bin).
/// Threads: none.
class HoleIndex {
 public:
  struct Hole {
    std::size_t size{}, offset{};
    Place* place{};  ///< of the owner; not looked at here
    Extent extent() const { return {offset, size}; }
  };

  /// `hole` has at least 1 byte and is not in the index.
  void insert(const Hole& hole);
  /// `hole` is in the index.
  void erase(const Hole& hole);

  /// The smallest hole in which `size` bytes fit at a multiple of `alignment`, the lower of two equally small ones.
  /// `alignment` is a power of two, and `size` a multiple of it and not 0.
  std::optional<Hole> best_fit(std::size_t size, std::size_t alignment) const;
  /// The size of the largest hole, 0 without one.
  std::size_t largest() const;
  std::size_t count() const { return count_; }

 private:
  static constexpr unsigned kBinBits = 7;
  static constexpr unsigned kBins = 1U << kBinBits;        ///< of one power of two
  static constexpr unsigned kGroups = 64 - kBinBits + 1;   ///< the first one has the sizes below kBins
  static constexpr unsigned kNoBin = kGroups << kBinBits;  ///< behind the last

  struct BySize {
    struct Key {
      std::size_t size{}, offset{};
      /// By size, then offset; two holes are never at one offset.
      friend bool operator<(const Key& a, const Key& b) {
        return static_cast<bool>(static_cast<unsigned>(a.size < b.size) | (static_cast<unsigned>(a.size == b.size) &
                                                                           static_cast<unsigned>(a.offset < b.offset)));
      }
      friend bool operator==(const Key& a, const Key& b) { return a.offset == b.offset && a.size == b.size; }
    };
    using Value = Place*;
    using Summary = std::uint64_t;  ///< bit k: the middle condition holds for alignment 2^k
    static Summary of(const Key&, Value);
    static Summary join(Summary a, Summary b) { return a | b; }
  };
  struct alignas(64) Bin : SummaryTree<BySize> {};
  static_assert(sizeof(Bin) == 64);
  static constexpr unsigned kChunkBins = 32;
  struct alignas(64) Chunk {
    std::array<Bin, kChunkBins> bins;  ///< each of them is a cache line
  };
  using Used = std::array<std::uint64_t, kBins / 64>;  ///< the bins of a group that hold something

  static BySize::Key key_of(const Hole& hole) { return {hole.size, hole.offset}; }
  static Hole to_hole(const Bin::Item& item) { return {item.key.size, item.key.offset, item.value}; }
  static unsigned bin_of(std::size_t size);
  /// The first bin from `bin` on that holds something; kNoBin: there is none.
  unsigned used_from(unsigned bin) const;
  /// Its chunk has been made.
  const Bin& bin_at(unsigned bin) const { return chunks_[bin / kChunkBins]->bins[bin % kChunkBins]; }
  Bin& bin_at(unsigned bin) { return chunks_[bin / kChunkBins]->bins[bin % kChunkBins]; }

  Bin::Nodes nodes_;
  std::size_t count_{};
  std::uint64_t used_groups_{};
  std::array<Used, kGroups> used_bins_{};
  std::array<std::unique_ptr<Chunk>, kNoBin / kChunkBins> chunks_;  ///< made when first used: small pools have few
};

}  // namespace tensorforge::gpu_memory
