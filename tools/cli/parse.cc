#include "parse.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "platform/names.h"

namespace tensorforge::cli {
namespace {

using names::quoted;

template <class T>
Result<T> parse_number(std::string_view text, std::string_view what) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) {
    return absl::InvalidArgumentError(fmt::format("{} is out of range for {}", quoted(text), what));
  }
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    return absl::InvalidArgumentError(fmt::format("{} is not {}", quoted(text), what));
  }
  return value;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

struct Unit {
  std::string_view name;
  std::uint64_t bytes;
};
constexpr std::array kUnits{Unit{"B", 1}, Unit{"KiB", std::uint64_t{1} << 10U}, Unit{"MiB", std::uint64_t{1} << 20U},
                            Unit{"GiB", std::uint64_t{1} << 30U}, Unit{"TiB", std::uint64_t{1} << 40U}};

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return lower(x) == lower(y); });
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

Result<std::uint64_t> parse_whole(std::string_view text) { return parse_number<std::uint64_t>(text, "a whole number"); }

Result<std::uint32_t> parse_whole32(std::string_view text) {
  return parse_number<std::uint32_t>(text, "a whole number up to 4294967295");
}

Result<std::int32_t> parse_signed(std::string_view text) { return parse_number<std::int32_t>(text, "a whole number"); }

Result<double> parse_real(std::string_view text) { return parse_number<double>(text, "a number"); }

Result<std::uint64_t> parse_size(std::string_view text) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  std::string_view unit = text.substr(digits);
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  const auto* found =
      std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& u) { return equal_ignoring_case(u.name, unit); });
  if (found == kUnits.end() && !unit.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("{} is no size: bytes, or a number with KiB, MiB, GiB or TiB", quoted(text)));
  }
  const std::uint64_t scale = unit.empty() ? 1 : found->bytes;
  const std::string_view number = text.substr(0, digits);
  if (number.find('.') == std::string_view::npos) {  // exact up to 2^64 - 1
    const Result<std::uint64_t> whole = parse_number<std::uint64_t>(number, "a size");
    if (!whole.ok()) return absl::InvalidArgumentError(fmt::format("{} is no size in bytes", quoted(text)));
    if (*whole > std::numeric_limits<std::uint64_t>::max() / scale) {
      return absl::InvalidArgumentError(fmt::format("{} is over 2^64 - 1 bytes", quoted(text)));
    }
    return *whole * scale;
  }
  const Result<double> value = parse_number<double>(number, "a size");
  const double bytes = value.ok() ? *value * static_cast<double>(scale) : -1;
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (!(bytes >= 0) || bytes >= kExact || bytes != std::floor(bytes)) {
    return absl::InvalidArgumentError(fmt::format("{} is no whole number of bytes", quoted(text)));
  }
  return static_cast<std::uint64_t>(bytes);
}

Result<std::vector<std::size_t>> parse_shape(std::string_view text) {
  std::vector<std::size_t> shape;
  if (text.empty()) return shape;
  for (const std::string_view part : split(text, 'x')) {
    const Result<std::uint64_t> dimension = parse_whole(part);
    if (!dimension.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("{} is no shape: whole numbers joined by x, such as 1x3x224x224", quoted(text)));
    }
    shape.push_back(*dimension);
  }
  return shape;
}

Result<registry::ModelVersion> parse_model_version(std::string_view text) {
  const std::optional<registry::ModelVersion> version = registry::parse_version(text);
  if (version) return *version;
  return absl::InvalidArgumentError(fmt::format(
      "{} is no version: MAJOR.MINOR.PATCH, without sign or leading zero, each at most 4294967295", quoted(text)));
}

Result<std::pair<std::string, registry::ModelVersion>> parse_model_at_version(std::string_view text) {
  const std::size_t at = text.rfind('@');
  if (at == std::string_view::npos) {
    return absl::InvalidArgumentError(fmt::format("{} is no ID@VERSION, such as resnet50@1.0.0", quoted(text)));
  }
  const Result<registry::ModelVersion> version = parse_model_version(text.substr(at + 1));
  if (!version.ok()) return version.status();
  return std::pair{std::string(text.substr(0, at)), *version};
}

Result<std::pair<std::uint32_t, std::uint32_t>> parse_compute_capability(std::string_view text) {
  const std::vector<std::string_view> parts = split(text, '.');
  if (parts.size() == 2) {
    const Result<std::uint32_t> major = parse_whole32(parts[0]);
    const Result<std::uint32_t> minor = parse_whole32(parts[1]);
    if (major.ok() && minor.ok()) {
      return std::pair{*major, *minor};
    }
  }
  return absl::InvalidArgumentError(fmt::format("{} is no compute capability, such as 8.6", quoted(text)));
}

Result<std::pair<std::string, std::string>> parse_pair(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(fmt::format("{} is no KEY=VALUE", quoted(text)));
  }
  return std::pair{std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

Result<std::size_t> parse_name(std::string_view text, const std::vector<std::string_view>& names) {
  const auto found =
      std::find_if(names.begin(), names.end(), [&](std::string_view name) { return equal_ignoring_case(name, text); });
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  return absl::InvalidArgumentError(fmt::format("{} is none of: {}", quoted(text), fmt::join(names, ", ")));
}

std::vector<CsvLine> parse_csv(std::string_view text) {
  std::vector<CsvLine> lines;
  std::size_t number = 0;
  for (std::string_view line : split(text, '\n')) {
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with('#')) continue;
    const std::vector<std::string_view> fields = split(line, ',');
    lines.push_back({number, {fields.begin(), fields.end()}});
  }
  return lines;
}

}  // namespace tensorforge::cli
