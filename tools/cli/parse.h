#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "platform/result.h"
#include "registry/registry.h"

namespace tensorforge::cli {

// What people type, as values. Each refuses with kInvalidArgument and a message that quotes the text.

/// Decimal digits alone: no sign, no space, no other base.
Result<std::uint64_t> parse_whole(std::string_view text);
Result<std::uint32_t> parse_whole32(std::string_view text);
Result<std::int32_t> parse_signed(std::string_view text);
/// A decimal number; "inf" and "nan" too, which the service refuses where they make no sense.
Result<double> parse_real(std::string_view text);
/// Bytes: "4096", "512KiB", "1.5GiB", "80 GiB"; the units are B, KiB, MiB, GiB and TiB, in any case.
Result<std::uint64_t> parse_size(std::string_view text);
/// "1x3x224x224"; an empty text is the empty shape.
Result<std::vector<std::size_t>> parse_shape(std::string_view text);
Result<registry::ModelVersion> parse_model_version(std::string_view text);
/// "ID@VERSION", parted at the last `@`.
Result<std::pair<std::string, registry::ModelVersion>> parse_model_at_version(std::string_view text);
/// "8.6".
Result<std::pair<std::uint32_t, std::uint32_t>> parse_compute_capability(std::string_view text);
/// "key=value", parted at the first `=`.
Result<std::pair<std::string, std::string>> parse_pair(std::string_view text);

bool equal_ignoring_case(std::string_view a, std::string_view b);
/// Parts of `text` between `separator`s, empty ones too.
std::vector<std::string_view> split(std::string_view text, char separator);

/// The names of an enum whose enumerators count from 0 without a gap, as its to_string gives them.
template <class E>
std::vector<std::string_view> enumerator_names() {
  std::vector<std::string_view> names;
  for (int i = 0; to_string(static_cast<E>(i)) != "?"; ++i) names.push_back(to_string(static_cast<E>(i)));
  return names;
}
/// The place of `text` among `names`, in any case.
Result<std::size_t> parse_name(std::string_view text, const std::vector<std::string_view>& names);
template <class E>
Result<E> parse_enumerator(std::string_view text) {
  const Result<std::size_t> place = parse_name(text, enumerator_names<E>());
  if (!place.ok()) return place.status();
  return static_cast<E>(*place);
}

/// The lines of a file of comma-separated values without quoting, each with its number; empty ones and those that begin
/// with `#` are left out.
struct CsvLine {
  std::size_t number{};
  std::vector<std::string> fields;
};
std::vector<CsvLine> parse_csv(std::string_view text);

}  // namespace tensorforge::cli
