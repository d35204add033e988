#pragma once

#include <cstdint>
#include <string_view>

namespace tensorforge::storage {

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4): "123456789" gives 0xe3069283.
///
/// `before` is the value of the bytes before `bytes`, to go on from.
std::uint32_t crc32c(std::string_view bytes, std::uint32_t before = 0);

}  // namespace tensorforge::storage
