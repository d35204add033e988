#pragma once

#include <array>
#include <cstdint>

namespace tensorforge {

using Sequence = std::uint64_t;                  ///< place of a record in the log: 1, 2, 3, ...; 0 is before the first
using Hash = std::array<std::uint8_t, 32>;       ///< SHA-256
using LogId = std::array<std::uint8_t, 16>;      ///< random, made once
using SessionId = std::array<std::uint8_t, 16>;  ///< random, made by the client
using Salt = std::array<std::uint8_t, 16>;       ///< random, of one note

/// Why a life of the log began.
enum class IncarnationCause { FirstStart, Restore, AcceptLoss };

}  // namespace tensorforge
