#include "platform/endpoint.h"

#include <charconv>

#include <fmt/format.h>

#include "platform/names.h"

namespace tensorforge {

Result<Endpoint> parse_endpoint(std::string_view text) {
  const absl::Status bad = absl::InvalidArgumentError(fmt::format(
      "{} is no HOST:PORT with a port of 0 to 65535, such as 127.0.0.1:7411 or [::1]:7411", names::quoted(text)));
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad;
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (host.empty() || host.find_first_of(bracketed ? "[]" : "[]:") != std::string_view::npos) return bad;

  Endpoint endpoint{std::string(host), 0};
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), endpoint.port);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size()) return bad;
  return endpoint;
}

std::string format_endpoint(const Endpoint& endpoint) {
  const bool is_ipv6 = endpoint.host.find(':') != std::string::npos;
  return is_ipv6 ? fmt::format("[{}]:{}", endpoint.host, endpoint.port)
                 : fmt::format("{}:{}", endpoint.host, endpoint.port);
}

}  // namespace tensorforge
