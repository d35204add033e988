#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "platform/result.h"

namespace tensorforge::security {

/// Who a valid token speaks for, and what it may do.
struct Principal {
  std::string name;
  std::vector<std::string> scopes;
  std::uint64_t expires_at{};
  bool operator==(const Principal&) const = default;
};

/// The tokens that are good now. A token is `<id>.<secret>`; kept of it is an HMAC-SHA-256 of the secret under the
/// server's key, so that who reads the store cannot make a token of it.
///
/// Times are ms since the Unix epoch and come from the caller, as do random bytes.
/// Threads: safe to call from any.
class TokenStore {
 public:
  static constexpr std::size_t kSecretBytes = 32;
  using Secret = std::array<std::uint8_t, kSecretBytes>;

  explicit TokenStore(std::string server_key) : server_key_(std::move(server_key)) {}

  /// A new token, good until before `expires_at`. Its text is given out this once. `secret` is 256 random bits that are
  /// used for nothing else. The id counts up within the store: `t-1`, `t-2`, ...
  /// kInvalidArgument: `principal` or a scope breaks the rules of ids.
  Result<std::string> issue(std::string_view principal, std::vector<std::string> scopes, std::uint64_t expires_at,
                            const Secret& secret);
  /// kUnauthenticated: malformed, unknown, revoked, or a wrong secret (one message for all: who guesses learns
  /// nothing), or expired.
  Result<Principal> validate(std::string_view token, std::uint64_t now) const;
  /// Makes the token worthless at once. kNotFound: no such id, or revoked before.
  absl::Status revoke(std::string_view id);

 private:
  using Mac = std::array<std::uint8_t, 32>;
  struct Stored {
    Mac mac{};
    Principal principal;
  };
  Mac mac_of(std::string_view secret) const;

  const std::string server_key_;
  mutable std::mutex mutex_;
  std::map<std::string, Stored, std::less<>> tokens_;  // by id
  std::uint64_t last_id_{};
};

}  // namespace tensorforge::security
