#pragma once

#include <cstdint>
#include <random>

namespace tensorforge::crashtest {

// Numbers that a seed decides, the same on every machine; the distributions of the standard library are not.

/// 0 to `limit` - 1.
inline std::uint64_t below(std::mt19937_64& random, std::uint64_t limit) { return random() % limit; }
/// `from` to `to`, both counted.
inline std::uint64_t between(std::mt19937_64& random, std::uint64_t from, std::uint64_t to) {
  return from + below(random, to - from + 1);
}
inline bool one_in(std::mt19937_64& random, std::uint64_t n) { return below(random, n) == 0; }

}  // namespace tensorforge::crashtest
