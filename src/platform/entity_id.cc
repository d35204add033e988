#include "platform/entity_id.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <system_error>

namespace tensorforge {

std::string format_entity_id(std::string_view prefix, EntityId id) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::array<char, 10 + std::numeric_limits<std::uint64_t>::digits10 + 1> text{};
  char* at = text.data();
  *at++ = '-';
  for (unsigned shift = 32; shift > 0;) {
    shift -= 4;
    *at++ = kDigits[(id.incarnation >> shift) & 0xFU];
  }
  *at++ = '-';
  at = std::to_chars(at, text.data() + text.size(), id.number).ptr;
  std::string out;
  out.reserve(prefix.size() + static_cast<std::size_t>(at - text.data()));
  return out.append(prefix).append(text.data(), at);
}

std::optional<EntityId> parse_entity_id(std::string_view prefix, std::string_view text) {
  constexpr std::size_t kHexDigits = 8;
  if (!text.starts_with(prefix)) return std::nullopt;
  const std::string_view rest = text.substr(prefix.size());
  if (rest.size() < kHexDigits + 3 || rest[0] != '-' || rest[kHexDigits + 1] != '-') return std::nullopt;
  const std::string_view hex = rest.substr(1, kHexDigits);
  const std::string_view digits = rest.substr(kHexDigits + 2);
  const auto is_decimal = [](char c) { return c >= '0' && c <= '9'; };
  const auto is_hex = [&](char c) { return is_decimal(c) || (c >= 'a' && c <= 'f'); };
  if (!std::all_of(hex.begin(), hex.end(), is_hex)) return std::nullopt;
  if (!std::all_of(digits.begin(), digits.end(), is_decimal)) return std::nullopt;
  if (digits.size() > 1 && digits.front() == '0') return std::nullopt;
  EntityId id;
  std::from_chars(hex.data(), hex.data() + hex.size(), id.incarnation, 16);
  if (std::from_chars(digits.data(), digits.data() + digits.size(), id.number).ec != std::errc()) return std::nullopt;
  return id;
}

}  // namespace tensorforge
