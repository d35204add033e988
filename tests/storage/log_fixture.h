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
#include "tests/support/files.h"

namespace tensorforge::storage {

using test::files_like;
using test::flip_bit;
using test::picture;
using test::read_bytes;
using test::write_bytes;

class TemporaryDirectory : public test::TemporaryDirectory {
 public:
  TemporaryDirectory() : test::TemporaryDirectory(Medium::kMemory) {}
};

/// What record `sequence` says in these tests, `size` bytes of it. One alone does not compress, so as many are written.
std::string record_text(Sequence sequence, std::size_t size = 20);
/// One command of one record each, that follow `head`.
Group make_group(const TreeHead& head, std::size_t commands, std::size_t record_size = 20);

/// The files of a directory, by their names.
std::map<std::string, std::string> bytes_in(const std::filesystem::path& directory);

/// A chunk as a writer with other ideas would leave it: the checksum is right.
std::string with_valid_checksum(std::string chunk);

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
