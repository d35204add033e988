#include "platform/digest.h"

#include <cstring>

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

/// Where `bytes` more bytes go.
char* CanonicalBytes::room(std::size_t bytes) {
  const std::size_t at = size_;
  size_ += bytes;
  if (size_ <= near_.size()) return near_.data() + at;
  if (far_.empty()) far_.assign(near_.data(), at);
  far_.resize(size_);
  return far_.data() + at;
}

CanonicalBytes& CanonicalBytes::number(std::uint64_t value) {
  static_assert(std::endian::native == std::endian::little);
  std::memcpy(room(sizeof value), &value, sizeof value);
  return *this;
}

CanonicalBytes& CanonicalBytes::text(std::string_view value) {
  number(value.size());
  value.copy(room(value.size()), value.size());
  return *this;
}

Digest CanonicalBytes::digest() const {
  const XXH128_hash_t hash = XXH3_128bits(far_.empty() ? near_.data() : far_.data(), size_);
  return {hash.high64, hash.low64};
}

}  // namespace tensorforge
