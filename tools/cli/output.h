#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "json.h"

namespace tensorforge::cli {

enum class Format { Text, Document, JsonLines };

/// A column of a list for people: the rows' key and the header above it.
struct Column {
  std::string key, header;
};

/// Writes what a verb found, for people or for scripts. Both are made from the same JSON value: for people a value is
/// shown by its key, so that a size gets a readable unit and a time is a date in UTC wherever it appears.
///
/// Threads: one.
class Output {
 public:
  Output(Format format, std::ostream& stream) : format_(format), stream_(stream) {}

  Format format() const { return format_; }
  /// For a list that never ends, of which no JSON document can be made.
  void use_json_lines() {
    if (format_ == Format::Document) format_ = Format::JsonLines;
  }
  /// One thing: an aligned "key  value" list for people; otherwise one document, for JSON Lines on one line.
  void object(const Json&);
  /// For people alone: a line of text. Scripts do not see it.
  void line(std::string_view text);
  void flush() { stream_.flush(); }

 private:
  friend class List;
  Format format_;
  std::ostream& stream_;
};

/// Writes a list as its rows arrive, so that a long one starts to print at once.
///
/// For people the rows of one flush() are aligned with each other and with those before them, as far as the widths
/// known then allow. A JSON array is closed by finish(), which must be called once.
class List {
 public:
  /// `columns` are for people alone; with one column the rows are bare values without a header.
  List(Output& output, std::vector<Column> columns) : output_(output), columns_(std::move(columns)) {}

  void add(const Json& row);
  /// Writes what is still held back for its width.
  void flush();
  void finish();

 private:
  struct Cell {
    std::string text;
    bool right{};  ///< a number
  };
  void add_text(const Json& row);
  void write(const std::vector<Cell>& cells);

  Output& output_;
  std::vector<Column> columns_;
  std::vector<std::size_t> widths_;
  std::vector<std::vector<Cell>> waiting_;
  bool header_written_{};
  std::size_t rows_{};
};

/// A value for people: what `key` holds decides how it is shown.
std::string display(std::string_view key, const Json& value);
/// "1048576 (1.0 MiB)"; below 1 KiB the number alone.
std::string display_bytes(std::uint64_t bytes);
/// ISO 8601 in UTC with milliseconds: "2026-03-01T12:00:00.000Z".
std::string display_time(std::uint64_t ms_since_epoch);
/// Places that `text` takes on a terminal, counting a code point as one.
std::size_t display_width(std::string_view text);

/// Says on a terminal how far a long operation is; elsewhere it says nothing.
class Progress {
 public:
  /// `total` 0: unknown.
  Progress(std::string doing, std::uint64_t total);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Cheap: writes at most ten times a second.
  void update(std::uint64_t done);
  void clear();

 private:
  std::string doing_;
  std::uint64_t total_;
  std::uint64_t next_write_ms_{};
  bool terminal_, written_{};
};

}  // namespace tensorforge::cli
