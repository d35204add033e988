#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "storage/data_directory.h"
#include "storage/journal.h"

namespace tensorforge::storage {

/// A directory of its own, gone at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Every file and directory below `path`: kind, size, time of change, bytes. Nothing may hold a lock there.
std::map<std::string, std::string> picture(const std::filesystem::path& path);

void write_bytes(const std::filesystem::path&, const std::string& bytes);
std::string read_bytes(const std::filesystem::path&);
void flip_bit(const std::filesystem::path&, std::uintmax_t offset, int bit = 0);
/// The files of a kind in a database, by the beginning or the end of their names, in order.
std::vector<std::filesystem::path> files_like(const std::filesystem::path& directory, const std::string& part);

/// What record `sequence` says in these tests, `size` bytes of it.
std::string record_text(Sequence sequence, std::size_t size = 20);
/// One command of one record each, that follow `head`.
Group make_group(const TreeHead& head, std::size_t commands, std::size_t record_size = 20);

/// A directory, opened and served: appends wait until what they wrote is durable.
class Served {
 public:
  explicit Served(const OpenOptions& options);
  ~Served();

  const absl::Status& opening() const { return opening_; }
  Journal& journal() { return *opened_.journal; }
  const OpenedDirectory& opened() const { return opened_; }

  /// The group, or why it failed.
  Result<Sequence> append(Group group);
  /// `groups` groups of one command each.
  absl::Status append_each(std::size_t groups, std::size_t record_size = 20);
  TreeHead end() const;
  /// Waits until the journal failed.
  absl::Status failure();
  std::size_t failures() const;

 private:
  absl::Status opening_;
  OpenedDirectory opened_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t groups_synced_{};
  Sequence durable_{};
  std::optional<absl::Status> failed_;
  std::size_t failures_{};
};

/// All records of a log, by read(); an error ends the test.
std::vector<std::string> all_records(const Log&);

}  // namespace tensorforge::storage
