#include "gpu_memory/hole_index.h"

#include <cassert>
#include <limits>

namespace tensorforge::gpu_memory {

HoleIndex::BySize::Summary HoleIndex::BySize::of(const Key& hole, Value /*place*/) {
  // For every k at once: (-offset mod 2^k) <= (size mod 2^k) exactly when subtracting the two borrows nothing out of
  // bit k - 1. The borrows of x - y are (~x & y) | (~(x ^ y) & (x - y)): Warren, Hacker's Delight, 2-16.
  const std::uint64_t x = hole.size;
  const std::uint64_t y = std::uint64_t{0} - hole.offset;
  const std::uint64_t borrows = (~x & y) | (~(x ^ y) & (x - y));
  return ~(borrows << 1U);
}

unsigned HoleIndex::bin_of(std::size_t size) {
  if (size < kBins) return static_cast<unsigned>(size);
  const unsigned shift = static_cast<unsigned>(std::bit_width(size)) - 1 - kBinBits;
  return ((shift + 1) << kBinBits) + static_cast<unsigned>(size >> shift) % kBins;
}

unsigned HoleIndex::used_from(unsigned bin) const {
  if (bin >= kNoBin) return kNoBin;
  const unsigned group = bin >> kBinBits;
  const Used& used = used_bins_[group];
  unsigned skipped = bin % 64;  // bins of the first word
  for (unsigned word = bin % kBins / 64; word < used.size(); ++word, skipped = 0) {
    const std::uint64_t bins = used[word] >> skipped;
    if (bins != 0) return (group << kBinBits) + word * 64 + skipped + static_cast<unsigned>(std::countr_zero(bins));
  }
  const std::uint64_t groups = used_groups_ & (~std::uint64_t{0} << group << 1U);
  if (groups == 0) return kNoBin;
  return used_from(static_cast<unsigned>(std::countr_zero(groups)) << kBinBits);
}

void HoleIndex::insert(const Hole& hole) {
  const unsigned bin = bin_of(hole.size);
  const unsigned group = bin >> kBinBits;
  auto& chunk = chunks_[bin / kChunkBins];
  if (chunk == nullptr) chunk = std::make_unique<Chunk>();
  bin_at(bin).insert(nodes_, key_of(hole), hole.place);
  used_bins_[group][bin % kBins / 64] |= std::uint64_t{1} << (bin % 64);
  used_groups_ |= std::uint64_t{1} << group;
  ++count_;
}

void HoleIndex::erase(const Hole& hole) {
  const unsigned bin = bin_of(hole.size);
  const unsigned group = bin >> kBinBits;
  Bin& holes = bin_at(bin);
  [[maybe_unused]] const bool found = holes.erase(nodes_, key_of(hole));
  assert(found);
  --count_;
  if (!holes.empty()) return;
  used_bins_[group][bin % kBins / 64] &= ~(std::uint64_t{1} << (bin % 64));
  if (used_bins_[group] == Used{}) used_groups_ &= ~(std::uint64_t{1} << group);
}

std::optional<HoleIndex::Hole> HoleIndex::best_fit(std::size_t size, std::size_t alignment) const {
  assert(size > 0 && std::has_single_bit(alignment) && size % alignment == 0);
  const auto k = static_cast<unsigned>(std::countr_zero(alignment));
  const auto fits = [k](std::uint64_t summary) { return ((summary >> k) & 1U) != 0; };
  const BySize::Key least{size, 0};
  const bool any_size = size > std::numeric_limits<std::size_t>::max() - alignment;  // size + alignment is over 2^64
  const unsigned first_bin = bin_of(size);
  const unsigned last_bin = any_size ? kNoBin - 1 : bin_of(size + alignment - 1);
  for (unsigned bin = used_from(first_bin); bin <= last_bin; bin = used_from(bin + 1)) {
    const auto found = bin == first_bin ? bin_at(bin).first(least, fits) : bin_at(bin).first_of_all(fits);
    if (!found) continue;
    if (found->key.size - size < alignment) return to_hole(*found);
    break;
  }
  if (any_size) return std::nullopt;

  const BySize::Key ample{size + alignment, 0};
  const unsigned ample_bin = bin_of(ample.size);
  unsigned bin = used_from(ample_bin);
  if (bin == ample_bin) {
    if (const auto found = bin_at(bin).first(ample)) return to_hole(*found);
    bin = used_from(bin + 1);
  }
  if (bin == kNoBin) return std::nullopt;
  return to_hole(*bin_at(bin).first_of_all([](std::uint64_t) { return true; }));
}

std::size_t HoleIndex::largest() const {
  if (used_groups_ == 0) return 0;
  const auto group = static_cast<unsigned>(std::bit_width(used_groups_)) - 1;
  unsigned word = kBins / 64 - 1;
  while (used_bins_[group][word] == 0) --word;
  const unsigned in_word = static_cast<unsigned>(std::bit_width(used_bins_[group][word])) - 1;
  return bin_at((group << kBinBits) + word * 64 + in_word).last()->key.size;
}

}  // namespace tensorforge::gpu_memory
