#include "platform/names.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <fmt/format.h>
#include <utf8.h>

namespace tensorforge::names {
namespace {

bool is_control(std::uint32_t code_point) { return code_point <= 0x1F || (code_point >= 0x7F && code_point <= 0x9F); }

bool has_control(std::string_view utf8_text) {
  for (auto at = utf8_text.begin(); at != utf8_text.end();) {
    if (is_control(utf8::unchecked::next(at))) return true;
  }
  return false;
}

constexpr std::size_t kStep = sizeof(std::uint64_t);
constexpr std::uint64_t kEach = 0x0101010101010101, kHighBits = 0x80 * kEach;  // of the bytes of a number

/// Eight bytes of `value`, those from `at` on among them: near its end the last eight; of a shorter one all, and
/// spaces.
std::uint64_t eight_bytes(std::string_view value, std::size_t at) {
  std::uint64_t bytes = ' ' * kEach;
  if (value.size() >= kStep) {
    std::memcpy(&bytes, value.data() + std::min(at, value.size() - kStep), kStep);
  } else {
    std::memcpy(&bytes, value.data(), value.size());
  }
  return bytes;
}

/// Whether there are only printable ASCII characters, as in nearly every name: then most rules are kept.
bool is_plain(std::string_view value) {
  std::uint64_t other = 0;
  for (std::size_t at = 0; at < value.size(); at += kStep) {
    // A byte's high bit tells. A carry or borrow into it comes from a byte whose own bit is set, so it changes nothing
    // in the answer.
    const std::uint64_t bytes = eight_bytes(value, at);
    other |= bytes | (bytes + kEach) | (bytes - ' ' * kEach);
  }
  return (other & kHighBits) == 0;
}

/// What is left from the first eight bytes on that are not all ASCII.
std::string_view behind_ascii(std::string_view value) {
  for (std::size_t at = 0; at < value.size(); at += kStep) {
    if ((eight_bytes(value, at) & kHighBits) != 0) return value.substr(at);
  }
  return {};
}

absl::Status invalid(std::string_view what, std::string_view value, std::string_view rule) {
  return absl::InvalidArgumentError(fmt::format("{} {}: {}", what, quoted(value), rule));
}

absl::Status check_name(std::string_view what, std::string_view value, bool at_sign_allowed) {
  if (value.empty()) return absl::InvalidArgumentError(fmt::format("{} is empty; the limit is 1 to 255 bytes", what));
  if (value.size() > kMaxIdBytes) {
    return invalid(what, value, fmt::format("has {} bytes; the limit is {}", value.size(), kMaxIdBytes));
  }
  if (!is_plain(value)) {
    if (!is_utf8(value)) return invalid(what, value, "is not valid UTF-8");
    if (has_control(value)) return invalid(what, value, "has a control character");
  }
  if (!at_sign_allowed && value.find('@') != std::string_view::npos) return invalid(what, value, "has an '@'");
  if (value.front() == ' ' || value.back() == ' ') return invalid(what, value, "has a space at an end");
  return absl::OkStatus();
}

}  // namespace

absl::Status check_id(std::string_view what, std::string_view value) { return check_name(what, value, false); }

absl::Status check_key(std::string_view what, std::string_view value) { return check_name(what, value, true); }

absl::Status check_text(std::string_view what, std::string_view value, std::size_t max_bytes) {
  if (value.size() > max_bytes) {
    return invalid(what, value, fmt::format("has {} bytes; the limit is {}", value.size(), max_bytes));
  }
  if (!is_utf8(value)) return invalid(what, value, "is not valid UTF-8");
  return absl::OkStatus();
}

bool is_utf8(std::string_view value) {
  // A character that is not ASCII has no ASCII bytes in it, so what is left stands for itself.
  const std::string_view rest = behind_ascii(value);
  return rest.empty() || utf8::is_valid(rest.begin(), rest.end());
}

std::string quoted(std::string_view value) {
  std::string out = "\"";
  const std::string_view shown = value.substr(0, kMaxIdBytes);
  for (auto at = shown.begin(); at != shown.end();) {
    const auto start = at;
    try {
      const std::uint32_t code_point = utf8::next(at, shown.end());
      if (code_point == '"' || code_point == '\\') {
        out += '\\';
        out += static_cast<char>(code_point);
      } else if (is_control(code_point)) {
        out += fmt::format("\\u{:04x}", code_point);
      } else {
        out.append(start, at);
      }
    } catch (const utf8::exception&) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(*start));
      at = start + 1;
    }
  }
  if (shown.size() < value.size()) out += "…";
  return out + '"';
}

}  // namespace tensorforge::names
