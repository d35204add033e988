#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "platform/result.h"

namespace tensorforge {

/// Where a service listens. `host` is an address or a name, without the brackets of an IPv6 address.
struct Endpoint {
  std::string host;
  std::uint16_t port{};
  bool operator==(const Endpoint&) const = default;
};

/// "127.0.0.1:7411", "localhost:0", "[::1]:7411". kInvalidArgument: it is none.
Result<Endpoint> parse_endpoint(std::string_view text);
/// The inverse of parse_endpoint.
std::string format_endpoint(const Endpoint& endpoint);

}  // namespace tensorforge
