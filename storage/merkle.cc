#include "storage/merkle.h"

#include <bit>
#include <cassert>
#include <cstddef>
#include <new>
#include <utility>

#include <openssl/evp.h>

namespace tensorforge::storage {
namespace {

// RFC 6962 sets leaves and inner nodes apart by their first byte, so that neither can pass for the other.
constexpr std::string_view kLeafPrefix{"\x00", 1};
constexpr std::string_view kNodePrefix{"\x01", 1};

std::string_view bytes_of(const Hash& hash) { return {reinterpret_cast<const char*>(hash.data()), hash.size()}; }

void must(int result) {
  // SHA-256 of memory fails only where memory or the library itself is gone.
  if (result != 1) throw std::bad_alloc();
}

}  // namespace

/// One digest context, used again and again: making one costs more than hashing a short record.
class MerkleFrontier::Hasher {
 public:
  Hasher() : context_(EVP_MD_CTX_new()) {
    must(context_ != nullptr ? 1 : 0);
    must(EVP_DigestInit_ex2(context_, EVP_sha256(), nullptr));
  }
  ~Hasher() { EVP_MD_CTX_free(context_); }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  Hash hash(std::string_view prefix, std::string_view first, std::string_view second = {}) {
    Hash out;
    must(EVP_DigestInit_ex2(context_, nullptr, nullptr));
    must(EVP_DigestUpdate(context_, prefix.data(), prefix.size()));
    must(EVP_DigestUpdate(context_, first.data(), first.size()));
    must(EVP_DigestUpdate(context_, second.data(), second.size()));
    must(EVP_DigestFinal_ex(context_, out.data(), nullptr));
    return out;
  }
  Hash node(const Hash& left, const Hash& right) { return hash(kNodePrefix, bytes_of(left), bytes_of(right)); }

 private:
  EVP_MD_CTX* context_;
};

MerkleFrontier::MerkleFrontier() : hasher_(std::make_unique<Hasher>()) {}

MerkleFrontier::MerkleFrontier(std::uint64_t size, std::vector<Hash> hashes)
    : size_(size), hashes_(std::move(hashes)), hasher_(std::make_unique<Hasher>()) {
  assert(hashes_.size() == static_cast<std::size_t>(std::popcount(size_)));
}

MerkleFrontier::MerkleFrontier(const MerkleFrontier& other)
    : size_(other.size_), hashes_(other.hashes_), hasher_(std::make_unique<Hasher>()) {}

MerkleFrontier& MerkleFrontier::operator=(const MerkleFrontier& other) {
  size_ = other.size_;
  hashes_ = other.hashes_;
  if (!hasher_) hasher_ = std::make_unique<Hasher>();
  return *this;
}

MerkleFrontier::MerkleFrontier(MerkleFrontier&&) noexcept = default;
MerkleFrontier& MerkleFrontier::operator=(MerkleFrontier&&) noexcept = default;
MerkleFrontier::~MerkleFrontier() = default;

void MerkleFrontier::append(std::string_view leaf) {
  Hash hash = hasher_->hash(kLeafPrefix, leaf);
  // As in binary addition: each one bit at the end of the size is a complete subtree as large as the new one.
  for (std::uint64_t rest = size_; (rest & 1U) != 0; rest >>= 1U) {
    hash = hasher_->node(hashes_.back(), hash);
    hashes_.pop_back();
  }
  hashes_.push_back(hash);
  ++size_;
}

Hash MerkleFrontier::root() const {
  if (hashes_.empty()) return hasher_->hash({}, {});
  Hash root = hashes_.back();
  for (std::size_t i = hashes_.size() - 1; i > 0; --i) root = hasher_->node(hashes_[i - 1], root);
  return root;
}

}  // namespace tensorforge::storage
