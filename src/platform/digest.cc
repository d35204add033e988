#include "platform/digest.h"

#include <fmt/format.h>
#include <xxhash.h>

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

CanonicalBytes& CanonicalBytes::number(std::uint64_t value) {
  char bytes[sizeof value];
  for (unsigned i = 0; i < sizeof value; ++i) bytes[i] = static_cast<char>(value >> (8U * i));
  bytes_.append(bytes, sizeof value);
  return *this;
}

CanonicalBytes& CanonicalBytes::text(std::string_view value) {
  number(value.size());
  bytes_.append(value);
  return *this;
}

Digest CanonicalBytes::digest() const {
  const XXH128_hash_t hash = XXH3_128bits(bytes_.data(), bytes_.size());
  return {hash.high64, hash.low64};
}

}  // namespace tensorforge
