#include "platform/endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge {
namespace {

TEST(Endpoint, IsAHostAndAPort) {
  const struct {
    const char* text;
    Endpoint want;
  } cases[] = {
      {"127.0.0.1:7411", {"127.0.0.1", 7411}},
      {"localhost:0", {"localhost", 0}},
      {"[::1]:65535", {"::1", 65535}},
  };
  for (const auto& [text, want] : cases) {
    SCOPED_TRACE(text);
    const Result<Endpoint> endpoint = parse_endpoint(text);
    ASSERT_TRUE(endpoint.ok()) << endpoint.status();
    EXPECT_EQ(*endpoint, want);
    EXPECT_EQ(format_endpoint(*endpoint), text);
  }
}

TEST(Endpoint, IsNothingElse) {
  for (const char* text : {"", "7411", ":7411", "host:", "host:65536", "host:-1", "host:+1", "host: 1", "host:1x",
                           "::1:1", "[]:1", "[::1]", "a:b:1"}) {
    SCOPED_TRACE(text);
    const absl::Status status = parse_endpoint(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(text));
  }
}

}  // namespace
}  // namespace tensorforge
