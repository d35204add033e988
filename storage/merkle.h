#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "platform/log_types.h"

namespace tensorforge::storage {

/// The Merkle tree hash of RFC 6962, section 2.1 (SHA-256), kept as a compact frontier: the roots of the complete
/// subtrees that the leaves so far fall into, largest first; at most 64 hashes, whatever the size.
///
/// Threads: a value; an instance belongs to one thread at a time.
class MerkleFrontier {
 public:
  MerkleFrontier() = default;
  /// `hashes` as hashes() gave them for `size` leaves. There are as many as `size` has one bits; asserted.
  MerkleFrontier(std::uint64_t size, std::vector<Hash> hashes);

  void append(std::string_view leaf);

  std::uint64_t size() const { return size_; }
  std::span<const Hash> hashes() const { return hashes_; }
  Hash root() const;

 private:
  std::uint64_t size_{};
  std::vector<Hash> hashes_;
};

}  // namespace tensorforge::storage
