#include "service/pages.h"

#include <charconv>
#include <string>

#include "fmt/format.h"
#include "platform/names.h"

namespace tensorforge::service {

Result<std::size_t> page_size(const Page& page) {
  if (page.size <= kMaxPageSize) return page.size == 0 ? kDefaultPageSize : page.size;
  return absl::InvalidArgumentError(fmt::format("page size {}: at most {}", page.size, kMaxPageSize));
}

Result<std::uint64_t> number_token(const Page& page) {
  const std::string& token = *page.token;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), value);
  if (error != std::errc() || end != token.data() + token.size()) return bad_token(page);
  return value;
}

absl::Status bad_token(const Page& page) {
  return absl::InvalidArgumentError(
      fmt::format("page token {}: not one of a reply to this query; leave it out to begin at the start",
                  names::quoted(page.token.value_or(""))));
}

}  // namespace tensorforge::service
