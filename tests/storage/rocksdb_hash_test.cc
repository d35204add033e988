#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <xxhash.h>

namespace tensorforge::storage {
namespace {

using Hash = std::uint64_t (*)(const char*, std::size_t, std::uint64_t);

/// Of RocksDB, as the loader finds it: `handle` RTLD_DEFAULT for everybody, RTLD_NEXT behind this program.
Hash rocksdb_hash(void* handle) { return reinterpret_cast<Hash>(dlsym(handle, "_ZN7rocksdb6Hash64EPKcmm")); }

TEST(RocksDbHash, IsThatOfXxhash) {
  const Hash in_its_library = rocksdb_hash(RTLD_NEXT);
  ASSERT_NE(in_its_library, nullptr) << "it has no such function any more: storage/database.cc defines it in vain";
  const Hash ours = rocksdb_hash(RTLD_DEFAULT);
  ASSERT_NE(ours, in_its_library) << "of this release of RocksDB the callers are to be looked at: docs/decisions/0029";

  std::mt19937_64 random(1);
  std::string bytes(100'000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  for (int i = 0; i < 2'000; ++i) {
    const std::size_t at = random() % 1'000;
    const std::size_t size = random() % (i % 10 == 0 ? bytes.size() - at : 600);
    const std::uint64_t seed = random();
    ASSERT_EQ(ours(bytes.data() + at, size, seed), XXH3_64bits_withSeed(bytes.data() + at, size, seed)) << size;
  }
}

}  // namespace
}  // namespace tensorforge::storage
