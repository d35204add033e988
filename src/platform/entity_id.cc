#include "platform/entity_id.h"

#include <charconv>

#include <fmt/format.h>

namespace tensorforge {

std::string format_entity_id(std::string_view prefix, EntityId id) {
  return fmt::format("{}-{:08x}-{}", prefix, id.incarnation, id.number);
}

std::optional<EntityId> parse_entity_id(std::string_view prefix, std::string_view text) {
  constexpr std::size_t kHexDigits = 8;
  if (!text.starts_with(prefix)) return std::nullopt;
  const std::string_view rest = text.substr(prefix.size());
  if (rest.size() < kHexDigits + 3 || rest[0] != '-' || rest[kHexDigits + 1] != '-') return std::nullopt;
  EntityId id;
  const char* const hex_end = rest.data() + 1 + kHexDigits;
  const char* const end = rest.data() + rest.size();
  const auto hex = std::from_chars(rest.data() + 1, hex_end, id.incarnation, 16);
  const auto number = std::from_chars(hex_end + 1, end, id.number);
  if (hex.ec != std::errc() || hex.ptr != hex_end || number.ec != std::errc() || number.ptr != end) return std::nullopt;
  if (format_entity_id(prefix, id) != text) return std::nullopt;  // capital digits, leading zeros
  return id;
}

}  // namespace tensorforge
