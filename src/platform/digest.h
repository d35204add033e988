#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace tensorforge {

/// A 128-bit number; arithmetic is modulo 2^128.
struct Digest {
  std::uint64_t high{}, low{};
  friend auto operator<=>(const Digest&, const Digest&) = default;
  Digest& operator+=(const Digest& other);
  Digest& operator-=(const Digest& other);
};
/// 32 lower-case hexadecimal digits.
std::string format_digest(const Digest&);

/// The canonical bytes of one live entity, and their XXH3-128 (https://xxhash.com, seed 0).
///
/// The digest of a domain is the sum of its entities' hashes, so it is kept up at each change and does not depend on
/// any order. A number is 8 bytes, little endian (a signed one in two's complement, a double by its bits, a bool as 0
/// or 1); a text is its length as a number and its bytes; an absent optional is the number 0, a present one the number
/// 1 and its value; a list is its length and its elements. The bytes of an entity begin with a text that names its
/// kind. docs/journal_format.md gives the fields of each kind: digests are kept in the database, so this is for ever.
///
/// Threads: an instance belongs to one thread.
class CanonicalBytes {
 public:
  explicit CanonicalBytes(std::string_view kind) { text(kind); }
  CanonicalBytes& number(std::uint64_t value) {
    put_number(room(sizeof value), value);
    return *this;
  }
  /// -0 counts as 0, as it is equal to 0 and not every encoding keeps its sign.
  CanonicalBytes& real(double value) { return number(std::bit_cast<std::uint64_t>(value == 0 ? 0.0 : value)); }
  CanonicalBytes& text(std::string_view value) {
    char* const at = room(sizeof(std::uint64_t) + value.size());
    put_number(at, value.size());
    value.copy(at + sizeof(std::uint64_t), value.size());
    return *this;
  }
  Digest digest() const;

 private:
  static void put_number(char* at, std::uint64_t value) {
    static_assert(std::endian::native == std::endian::little);
    std::memcpy(at, &value, sizeof value);
  }
  /// Where `bytes` more bytes go.
  char* room(std::size_t bytes) {
    const std::size_t at = size_;
    size_ += bytes;
    return size_ <= near_.size() ? near_.data() + at : far_room(at);
  }
  char* far_room(std::size_t at);

  // Nearly every entity fits into `near_`, so that hashing it allocates nothing; what does not goes on in `far_`.
  std::size_t size_{};
  std::array<char, 1'024> near_;
  std::string far_;
};

}  // namespace tensorforge
