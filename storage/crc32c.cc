#include "storage/crc32c.h"

#include <algorithm>
#include <cstddef>

#include <isa-l/crc.h>

namespace tensorforge::storage {

std::uint32_t crc32c(std::string_view bytes, std::uint32_t before) {
  constexpr std::size_t kMaxStep = std::size_t{1} << 30U;  // the library's lengths are ints
  std::uint32_t crc = ~before;
  while (!bytes.empty()) {
    const std::size_t step = std::min(bytes.size(), kMaxStep);
    // The library takes a pointer to mutable bytes and only reads them.
    auto* const data = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
    crc = crc32_iscsi(data, static_cast<int>(step), crc);
    bytes.remove_prefix(step);
  }
  return ~crc;
}

}  // namespace tensorforge::storage

// RocksDB's own, which it asks for above all for its write-ahead log: this definition comes before that of its shared
// library. docs/decisions/0026
namespace rocksdb::crc32c {
[[gnu::visibility("default")]] std::uint32_t Extend(std::uint32_t before, const char* data, std::size_t size) {
  return tensorforge::storage::crc32c({data, size}, before);
}
}  // namespace rocksdb::crc32c
