// Functions of RocksDB that this program defines too, so that RocksDB asks for these: docs/decisions/0026 and 0029.
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include "storage/crc32c.h"

namespace tensorforge::storage {
namespace {

/// As the loader finds it.
template <class Function>
struct Interposed {
  explicit Interposed(const char* symbol)
      : ours(reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, symbol))),
        in_its_library(reinterpret_cast<Function*>(dlsym(RTLD_NEXT, symbol))) {}
  Function* ours;            ///< for everybody
  Function* in_its_library;  ///< behind this program
};

class InterpositionTest : public testing::Test {
 protected:
  struct Piece {
    std::size_t at;
    std::string_view bytes;
    std::uint64_t number;  ///< to begin with
  };

  InterpositionTest() {
    for (char& byte : bytes_) byte = static_cast<char>(random_());
  }
  /// Of random bytes; one in ten may be long, the others have less than `usual` bytes.
  std::vector<Piece> pieces(std::size_t usual) {
    std::vector<Piece> pieces;
    for (int i = 0; i < 2'000; ++i) {
      const std::size_t at = random_() % 1'000;
      const std::size_t size = random_() % (i % 10 == 0 ? bytes_.size() - at : usual);
      pieces.push_back({at, std::string_view(bytes_).substr(at, size), random_()});
    }
    return pieces;
  }

 private:
  std::mt19937_64 random_{1};
  std::string bytes_ = std::string(100'000, '\0');
};

TEST_F(InterpositionTest, Crc32cStandsBeforeRocksDbsOwnAndAgreesWithIt) {
  const Interposed<std::uint32_t(std::uint32_t, const char*, std::size_t)> extend("_ZN7rocksdb6crc32c6ExtendEjPKcm");
  ASSERT_NE(extend.in_its_library, nullptr) << "it has no such function any more: storage/crc32c.cc defines it in vain";
  ASSERT_NE(extend.ours, extend.in_its_library);
  for (const auto& [at, bytes, number] : pieces(300)) {
    const auto before = static_cast<std::uint32_t>(number);
    const std::uint32_t theirs = extend.in_its_library(before, bytes.data(), bytes.size());
    ASSERT_EQ(extend.ours(before, bytes.data(), bytes.size()), theirs) << at << " " << bytes.size();
    ASSERT_EQ(crc32c(bytes, before), theirs) << at << " " << bytes.size();
  }
}

TEST_F(InterpositionTest, TheHashIsThatOfXxhash) {
  const Interposed<std::uint64_t(const char*, std::size_t, std::uint64_t)> hash("_ZN7rocksdb6Hash64EPKcmm");
  ASSERT_NE(hash.in_its_library, nullptr) << "it has no such function any more: storage/database.cc defines it in vain";
  ASSERT_NE(hash.ours, hash.in_its_library)
      << "of this release of RocksDB the callers are to be looked at: docs/decisions/0029";
  for (const auto& [at, bytes, seed] : pieces(600)) {
    ASSERT_EQ(hash.ours(bytes.data(), bytes.size(), seed), XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed))
        << at << " " << bytes.size();
  }
}

}  // namespace
}  // namespace tensorforge::storage
