#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "platform/log_types.h"

namespace tensorforge::storage {

// The numbers of the formats: little endian in values, big endian in keys, so that keys sort as their numbers.

template <std::unsigned_integral T>
void put_little(char* to, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) to[i] = static_cast<char>(static_cast<std::uint8_t>(value >> (8 * i)));
}

template <std::unsigned_integral T>
T get_little(const char* from) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(T{static_cast<std::uint8_t>(from[i])} << (8 * i));
  return value;
}

inline std::string big_endian(std::uint64_t value) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(static_cast<std::uint8_t>(value >> (8 * (7 - i))));
  return bytes;
}

/// `bytes` are 8.
inline std::uint64_t get_big_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (const char byte : bytes) value = value << 8U | static_cast<std::uint8_t>(byte);
  return value;
}

template <std::size_t N>
std::string_view view_of(const std::array<std::uint8_t, N>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), N};
}

}  // namespace tensorforge::storage
