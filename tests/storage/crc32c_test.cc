#include "storage/crc32c.h"

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

#include <dlfcn.h>
#include <gtest/gtest.h>

namespace tensorforge::storage {
namespace {

using Extend = std::uint32_t (*)(std::uint32_t, const char*, std::size_t);

/// Of RocksDB, as the loader finds it: `handle` RTLD_DEFAULT for everybody, RTLD_NEXT behind this program.
Extend rocksdb_extend(void* handle) {
  return reinterpret_cast<Extend>(dlsym(handle, "_ZN7rocksdb6crc32c6ExtendEjPKcm"));
}

TEST(Crc32c, GivesTheCheckValue) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(crc32c("6789", crc32c("12345")), 0xe3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(Crc32c, StandsBeforeRocksDbsOwnAndAgreesWithIt) {
  const Extend in_its_library = rocksdb_extend(RTLD_NEXT);
  ASSERT_NE(in_its_library, nullptr) << "it has no such function any more: storage/crc32c.cc defines it in vain";
  const Extend ours = rocksdb_extend(RTLD_DEFAULT);
  ASSERT_NE(ours, in_its_library);

  std::mt19937_64 random(1);
  std::string bytes(100'000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  for (int i = 0; i < 2'000; ++i) {
    const std::size_t at = random() % 1'000;
    const std::size_t size = random() % (i % 10 == 0 ? bytes.size() - at : 300);
    const auto before = static_cast<std::uint32_t>(random());
    const std::uint32_t theirs = in_its_library(before, bytes.data() + at, size);
    ASSERT_EQ(ours(before, bytes.data() + at, size), theirs) << at << " " << size;
    ASSERT_EQ(crc32c({bytes.data() + at, size}, before), theirs) << at << " " << size;
  }
}

}  // namespace
}  // namespace tensorforge::storage
