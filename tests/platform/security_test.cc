#include "platform/security.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::security {
namespace {

constexpr std::uint64_t kExpires = 1'000;
const std::vector<std::string> kScopes = {"model/read", "model/write"};

TokenStore::Secret secret_of(std::uint8_t byte) {
  TokenStore::Secret secret;
  secret.fill(byte);
  return secret;
}

absl::StatusCode code_of(const TokenStore& store, std::string_view token, std::uint64_t now = 0) {
  return store.validate(token, now).status().code();
}

class TokenStoreTest : public testing::Test {
 protected:
  TokenStore store_{"the server's key"};
  const std::string token_ = store_.issue("alice", kScopes, kExpires, secret_of(0xA5)).value();
};

TEST_F(TokenStoreTest, GivesThePrincipalOfATokenItIssued) {
  const Result<Principal> principal = store_.validate(token_, kExpires - 1);
  ASSERT_TRUE(principal.ok()) << principal.status();
  EXPECT_EQ(*principal, (Principal{"alice", kScopes, kExpires}));
}

TEST_F(TokenStoreTest, WritesATokenAsIdAndSecret) {
  std::string hex;
  for (int i = 0; i < 32; ++i) hex += "a5";
  EXPECT_EQ(token_, "t-1." + hex);
  EXPECT_EQ(store_.issue("bob", {}, kExpires, secret_of(1)).value().substr(0, 4), "t-2.");
}

TEST_F(TokenStoreTest, RefusesATokenFromItsExpiryOn) {
  EXPECT_EQ(code_of(store_, token_, kExpires - 1), absl::StatusCode::kOk);
  EXPECT_EQ(code_of(store_, token_, kExpires), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(code_of(store_, token_, kExpires + 1), absl::StatusCode::kUnauthenticated);
}

TEST_F(TokenStoreTest, RefusesWhateverIsNotExactlyTheToken) {
  std::string wrong_digit = token_, capitals = token_;
  wrong_digit.back() = '6';
  capitals[4] = 'A';
  const struct {
    const char* name;
    std::string token;
  } cases[] = {
      {"empty", ""},
      {"no dot", "t-1"},
      {"no secret", "t-1."},
      {"no id", token_.substr(3)},
      {"wrong digit", wrong_digit},
      {"capital digits", capitals},
      {"cut", token_.substr(0, token_.size() - 1)},
      {"longer", token_ + "a"},
      {"another's id", "t-2" + token_.substr(3)},
      {"a zero byte behind", token_ + std::string(1, '\0')},
  };
  for (const auto& [name, token] : cases) {
    SCOPED_TRACE(name);
    EXPECT_EQ(code_of(store_, token), absl::StatusCode::kUnauthenticated);
  }
}

TEST_F(TokenStoreTest, TellsNothingAboutWhyATokenIsWrong) {
  EXPECT_EQ(store_.validate("t-1.guess", 0).status(), store_.validate("t-99.guess", 0).status());
  EXPECT_EQ(std::string(store_.validate("t-1.guess", 0).status().message()).find("guess"), std::string::npos);
}

TEST_F(TokenStoreTest, RefusesTheTokenOfAServerWithAnotherKey) {
  TokenStore other("another key");
  ASSERT_EQ(other.issue("alice", kScopes, kExpires, secret_of(0x11)).value().substr(0, 4), "t-1.");
  EXPECT_EQ(code_of(other, token_), absl::StatusCode::kUnauthenticated);
}

TEST_F(TokenStoreTest, RevokesOneTokenAndNoOther) {
  const std::string other = store_.issue("alice", {}, kExpires, secret_of(2)).value();
  EXPECT_TRUE(store_.revoke("t-1").ok());
  EXPECT_EQ(code_of(store_, token_), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(code_of(store_, other), absl::StatusCode::kOk);
  EXPECT_EQ(store_.revoke("t-1").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_.revoke("never").code(), absl::StatusCode::kNotFound);
}

TEST_F(TokenStoreTest, NeverGivesOutAnIdAgain) {
  ASSERT_TRUE(store_.revoke("t-1").ok());
  EXPECT_EQ(store_.issue("alice", {}, kExpires, secret_of(3)).value().substr(0, 4), "t-2.");
}

TEST_F(TokenStoreTest, RefusesBadNames) {
  EXPECT_EQ(store_.issue("", {}, kExpires, secret_of(4)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_.issue("bob", {"a scope "}, kExpires, secret_of(4)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tensorforge::security
