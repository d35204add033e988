// OpenSSL deprecates SHA256_Init() and its like for EVP, which costs half as much again for a record: it makes and
// cleans a context of its own for each. docs/performance.md
#define OPENSSL_SUPPRESS_DEPRECATED
#include "storage/merkle.h"

#include <bit>
#include <cassert>
#include <cstddef>
#include <utility>

#include <openssl/sha.h>

namespace tensorforge::storage {
namespace {

// RFC 6962 sets leaves and inner nodes apart by their first byte, so that neither can pass for the other.
constexpr std::string_view kLeafPrefix{"\x00", 1};
constexpr std::string_view kNodePrefix{"\x01", 1};

std::string_view bytes_of(const Hash& hash) { return {reinterpret_cast<const char*>(hash.data()), hash.size()}; }

Hash hash_of(std::string_view prefix, std::string_view first, std::string_view second = {}) {
  SHA256_CTX context;
  Hash out;
  SHA256_Init(&context);  // none of these can fail
  for (const std::string_view part : {prefix, first, second}) SHA256_Update(&context, part.data(), part.size());
  SHA256_Final(out.data(), &context);
  return out;
}
Hash hash_of_node(const Hash& left, const Hash& right) { return hash_of(kNodePrefix, bytes_of(left), bytes_of(right)); }

}  // namespace

MerkleFrontier::MerkleFrontier(std::uint64_t size, std::vector<Hash> hashes) : size_(size), hashes_(std::move(hashes)) {
  assert(hashes_.size() == static_cast<std::size_t>(std::popcount(size_)));
}

void MerkleFrontier::append(std::string_view leaf) {
  Hash hash = hash_of(kLeafPrefix, leaf);
  // As in binary addition: each one bit at the end of the size is a complete subtree as large as the new one.
  for (std::uint64_t rest = size_; (rest & 1U) != 0; rest >>= 1U) {
    hash = hash_of_node(hashes_.back(), hash);
    hashes_.pop_back();
  }
  hashes_.push_back(hash);
  ++size_;
}

Hash MerkleFrontier::root() const {
  if (hashes_.empty()) return hash_of({}, {});
  Hash root = hashes_.back();
  for (std::size_t i = hashes_.size() - 1; i > 0; --i) root = hash_of_node(hashes_[i - 1], root);
  return root;
}

}  // namespace tensorforge::storage
