#include "platform/digest.h"

#include <fmt/format.h>

#include "platform/xxh3.h"

namespace tensorforge {

Digest& Digest::operator+=(const Digest& other) {
  low += other.low;
  high += other.high + (low < other.low ? 1 : 0);
  return *this;
}

Digest& Digest::operator-=(const Digest& other) {
  const bool borrow = low < other.low;
  low -= other.low;
  high -= other.high + (borrow ? 1 : 0);
  return *this;
}

std::string format_digest(const Digest& digest) { return fmt::format("{:016x}{:016x}", digest.high, digest.low); }

char* CanonicalBytes::far_room(std::size_t at) {
  if (far_.empty()) far_.assign(near_.data(), at);
  far_.resize(size_);
  return far_.data() + at;
}

Digest CanonicalBytes::digest() const {
  const XXH128_hash_t hash = XXH3_128bits(far_.empty() ? near_.data() : far_.data(), size_);
  return {hash.high64, hash.low64};
}

}  // namespace tensorforge
