#include "output.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <utility>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

namespace tensorforge::cli {
namespace {

constexpr std::array<std::string_view, 7> kTimeKeys{"registered_at", "created_at", "allocated_at", "last_accessed",
                                                    "time",          "wall_time",  "started_at"};
constexpr std::array<std::string_view, 5> kSizeKeys{"size", "total_memory", "actual_size", "largest_free_block",
                                                    "bytes"};

bool is_one_of(std::string_view key, const auto& keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

std::string joined(std::string_view key, const Json& array, std::string_view separator) {
  std::string text;
  for (const Json& element : array) {
    if (!text.empty()) text += separator;
    text += display(key, element);
  }
  return text;
}

std::string display_text(std::string_view text) {  // a control character from another user must not drive this terminal
  std::string safe;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      safe += fmt::format("\\x{:02x}", byte);
    } else {
      safe += c;
    }
  }
  return safe;
}

std::string padded(const std::string& text, std::size_t width, bool right) {
  const std::string blank(width - std::min(width, display_width(text)), ' ');
  return right ? blank + text : text + blank;
}

std::uint64_t steady_ms() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}

}  // namespace

std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::string display_bytes(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 7> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return unit == 0 ? std::to_string(bytes) : fmt::format("{} ({:.1f} {})", bytes, value, kUnits[unit]);
}

std::string display_time(std::uint64_t ms_since_epoch) {
  constexpr std::uint64_t kYear10000 = 253'402'300'800'000;
  if (ms_since_epoch >= kYear10000) return fmt::format("{} ms", ms_since_epoch);
  const std::tm utc = fmt::gmtime(static_cast<std::time_t>(ms_since_epoch / 1000));
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", utc, ms_since_epoch % 1000);
}

std::string display(std::string_view key, const Json& value) {
  if (value.is_string()) return display_text(value.get_ref<const std::string&>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_number_unsigned() || (value.is_number_integer() && value.get<std::int64_t>() >= 0)) {
    if (is_one_of(key, kTimeKeys)) return value == 0U ? "-" : display_time(value.get<std::uint64_t>());  // 0: never
    if (key.ends_with("_bytes") || is_one_of(key, kSizeKeys)) return display_bytes(value.get<std::uint64_t>());
  }
  if (value.is_number_float() && std::isinf(value.get<double>())) return "infinite";
  if (value.is_array()) return joined({}, value, key.ends_with("_shape") ? "x" : ", ");
  if (value.is_object()) {
    std::string text;
    for (const auto& [name, element] : value.items()) {
      if (!text.empty()) text += ", ";
      text += fmt::format("{}={}", display_text(name), display(name, element));
    }
    return text;
  }
  return dump(value);
}

void Output::object(const Json& object) {
  if (format_ != Format::Text) {
    stream_ << dump(object, format_ == Format::Document ? 2 : -1) << '\n';
    return;
  }
  std::size_t width = 0;
  for (const auto& [key, value] : object.items()) width = std::max(width, display_width(key));
  for (const auto& [key, value] : object.items()) {
    const bool none = value.is_null() || ((value.is_structured() || value.is_string()) && display(key, value).empty());
    stream_ << padded(key, width, false) << "  " << (none ? "-" : display(key, value)) << '\n';
  }
}

void Output::line(std::string_view text) {
  if (format_ == Format::Text) stream_ << text << '\n';
}

void List::add(const Json& row) {
  ++rows_;
  switch (output_.format_) {
    case Format::Text:
      return add_text(row);
    case Format::Document:
      output_.stream_ << (rows_ == 1 ? "[\n  " : ",\n  ") << dump(row);
      return;
    case Format::JsonLines:
      output_.stream_ << dump(row) << '\n';
      return;
  }
}

void List::add_text(const Json& row) {
  std::vector<Cell> cells;
  for (const Column& column : columns_) {
    const auto found = row.is_object() ? row.find(column.key) : row.end();
    const Json value = !row.is_object() ? row : found == row.end() ? Json() : *found;
    std::string text = value.is_null() ? "" : display(column.key, value);
    cells.push_back({text.empty() ? "-" : std::move(text), value.is_number()});
  }
  waiting_.push_back(std::move(cells));
}

void List::flush() {
  if (!waiting_.empty() && !header_written_ && columns_.size() > 1) {
    std::vector<Cell> header;
    for (std::size_t i = 0; i < columns_.size(); ++i) header.push_back({columns_[i].header, waiting_.front()[i].right});
    waiting_.insert(waiting_.begin(), std::move(header));
    header_written_ = true;
  }
  widths_.resize(columns_.size());
  for (const std::vector<Cell>& cells : waiting_) {
    for (std::size_t i = 0; i < cells.size(); ++i) widths_[i] = std::max(widths_[i], display_width(cells[i].text));
  }
  for (const std::vector<Cell>& cells : waiting_) write(cells);
  waiting_.clear();
  output_.flush();
}

void List::write(const std::vector<Cell>& cells) {
  std::string line;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const bool last = i + 1 == cells.size();
    const bool bare = last && !cells[i].right;
    line += bare ? cells[i].text : padded(cells[i].text, widths_[i], cells[i].right);
    if (!last) line += "  ";
  }
  output_.stream_ << line << '\n';
}

void List::finish() {
  flush();
  if (output_.format_ == Format::Document) output_.stream_ << (rows_ == 0 ? "[]\n" : "\n]\n");
  output_.flush();
}

Progress::Progress(std::string doing, std::uint64_t total)
    : doing_(std::move(doing)), total_(total), terminal_(isatty(STDERR_FILENO) == 1) {}

void Progress::update(std::uint64_t done) {
  if (!terminal_ || steady_ms() < next_write_ms_) return;
  next_write_ms_ = steady_ms() + 100;
  written_ = true;
  const std::string of_total = total_ == 0 ? "" : fmt::format(" of {} ({}%)", total_, done * 100 / total_);
  fmt::print(stderr, "\r{} {}{}\x1b[K", doing_, done, of_total);
}

void Progress::clear() {
  if (std::exchange(written_, false)) fmt::print(stderr, "\r\x1b[K");
}

}  // namespace tensorforge::cli
