#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace tensorforge {

/// What stands behind an id that we make ("b-0a1b2c3d-17"): unique for ever, opaque to users.
///
/// `number` counts up within the log and is never given out twice; `incarnation` is the log's at that moment, so that
/// a log restored from a backup cannot hand out an id again. A facade counts within itself, with incarnation 0.
struct EntityId {
  std::uint32_t incarnation{};
  std::uint64_t number{};
  friend auto operator<=>(const EntityId&, const EntityId&) = default;
};

/// "<prefix>-<8 hex digits>-<number>".
std::string format_entity_id(std::string_view prefix, EntityId id);
/// The exact inverse of format_entity_id; nullopt for every other text (capital digits and leading zeros too).
std::optional<EntityId> parse_entity_id(std::string_view prefix, std::string_view text);

}  // namespace tensorforge

template <>
struct std::hash<tensorforge::EntityId> {
  std::size_t operator()(const tensorforge::EntityId& id) const noexcept {
    // Fibonacci hashing; the incarnation is the same for nearly all ids of a log, so it may weigh little.
    return static_cast<std::size_t>((id.number ^ (std::uint64_t{id.incarnation} << 32U)) * 0x9E3779B97F4A7C15U);
  }
};
