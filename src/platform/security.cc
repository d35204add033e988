#include "platform/security.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "platform/names.h"

namespace tensorforge::security {
namespace {

std::string hex(const TokenStore::Secret& bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::uint8_t byte : bytes) fmt::format_to(std::back_inserter(text), "{:02x}", byte);
  return text;
}

}  // namespace

TokenStore::Mac TokenStore::mac_of(std::string_view secret) const {
  Mac mac{};
  const auto* const bytes = reinterpret_cast<const unsigned char*>(secret.data());
  unsigned int size = 0;
  HMAC(EVP_sha256(), server_key_.data(), static_cast<int>(server_key_.size()), bytes, secret.size(), mac.data(), &size);
  return mac;
}

Result<std::string> TokenStore::issue(std::string_view principal, std::vector<std::string> scopes,
                                      std::uint64_t expires_at, const Secret& secret) {
  if (absl::Status status = names::check_id("principal", principal); !status.ok()) return status;
  for (const std::string& scope : scopes) {
    if (absl::Status status = names::check_id("scope", scope); !status.ok()) return status;
  }
  const std::string text = hex(secret);
  Stored stored{mac_of(text), {std::string(principal), std::move(scopes), expires_at}};

  const std::lock_guard lock(mutex_);
  const std::string id = fmt::format("t-{}", ++last_id_);
  tokens_.emplace(id, std::move(stored));
  return id + '.' + text;
}

Result<Principal> TokenStore::validate(std::string_view token, std::uint64_t now) const {
  const absl::Status invalid = absl::UnauthenticatedError("the token is not valid; ask for a new one");
  const std::size_t dot = token.find('.');
  if (dot == std::string_view::npos) return invalid;
  const std::string_view id = token.substr(0, dot);
  const Mac mac = mac_of(token.substr(dot + 1));

  const std::lock_guard lock(mutex_);
  const auto found = tokens_.find(id);
  if (found == tokens_.end()) return invalid;
  const Stored& stored = found->second;
  if (CRYPTO_memcmp(mac.data(), stored.mac.data(), mac.size()) != 0) return invalid;
  if (now >= stored.principal.expires_at) {
    return absl::UnauthenticatedError(fmt::format("token {} expired at {} ms, now is {} ms; ask for a new one", id,
                                                  stored.principal.expires_at, now));
  }
  return stored.principal;
}

absl::Status TokenStore::revoke(std::string_view id) {
  const std::lock_guard lock(mutex_);
  const auto found = tokens_.find(id);
  if (found == tokens_.end()) return absl::NotFoundError(fmt::format("token {} is unknown", names::quoted(id)));
  tokens_.erase(found);
  return absl::OkStatus();
}

}  // namespace tensorforge::security
