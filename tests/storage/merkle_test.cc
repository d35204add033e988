#include "storage/merkle.h"

#include <bit>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <openssl/sha.h>

namespace tensorforge::storage {
namespace {

std::string hex(const Hash& hash) { return fmt::format("{:02x}", fmt::join(hash, "")); }

std::string from_hex(std::string_view text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

Hash sha256(const std::string& bytes) {
  Hash hash;
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), hash.data());
  return hash;
}

/// The definition of RFC 6962, section 2.1, word for word.
Hash naive_root(std::span<const std::string> leaves) {
  if (leaves.empty()) return sha256("");
  if (leaves.size() == 1) return sha256(std::string(1, '\x00') + leaves[0]);
  const std::size_t k = std::bit_floor(leaves.size() - 1);
  const Hash left = naive_root(leaves.first(k));
  const Hash right = naive_root(leaves.subspan(k));
  return sha256(std::string(1, '\x01') + std::string(left.begin(), left.end()) +
                std::string(right.begin(), right.end()));
}

TEST(MerkleFrontier, GivesTheRootsOfTheReferenceImplementation) {
  // github.com/google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc
  const struct {
    std::string_view leaf, root;
  } vectors[] = {
      {"", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"},
      {"00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"},
      {"10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"},
      {"2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"},
      {"3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"},
      {"40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"},
      {"5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"},
      {"606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"},
  };
  MerkleFrontier tree;
  EXPECT_EQ(hex(tree.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  for (const auto& [leaf, root] : vectors) {
    tree.append(from_hex(leaf));
    EXPECT_EQ(hex(tree.root()), root) << tree.size();
  }
}

TEST(MerkleFrontier, AgreesWithTheRecursiveDefinition) {
  constexpr std::uint32_t kSeed = 6962;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  std::vector<std::string> leaves;
  MerkleFrontier tree;
  for (int i = 0; i < 300; ++i) {
    leaves.emplace_back(random() % 90, static_cast<char>(random()));
    tree.append(leaves.back());
    ASSERT_EQ(tree.size(), leaves.size());
    ASSERT_EQ(tree.root(), naive_root(leaves)) << leaves.size();
    ASSERT_EQ(tree.hashes().size(), static_cast<std::size_t>(std::popcount(tree.size())));
  }
}

TEST(MerkleFrontier, GoesOnFromItsHashes) {
  MerkleFrontier whole;
  for (int i = 0; i < 77; ++i) whole.append(std::to_string(i));
  MerkleFrontier restored(whole.size(), {whole.hashes().begin(), whole.hashes().end()});
  MerkleFrontier copy;
  copy = whole;
  for (int i = 77; i < 140; ++i) {
    whole.append(std::to_string(i));
    restored.append(std::to_string(i));
    copy.append(std::to_string(i));
  }
  EXPECT_EQ(restored.root(), whole.root());
  EXPECT_EQ(copy.root(), whole.root());
}

}  // namespace
}  // namespace tensorforge::storage
