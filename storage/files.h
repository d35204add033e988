#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <rocksdb/file_system.h>

#include "platform/result.h"

namespace tensorforge::storage {

// The few things that are done with files beside the database, all through the one FileSystem.

/// Of RocksDB: damaged or missing files are kDataLoss, all else is a failing disk, kUnavailable.
absl::Status to_status(const rocksdb::Status&, std::string_view doing);

/// By name, without "." and "..". kNotFound: no such directory.
Result<std::vector<std::string>> list_directory(rocksdb::FileSystem&, const std::string& path);
Result<bool> file_exists(rocksdb::FileSystem&, const std::string& path);
/// At most `max_bytes` from its beginning. kNotFound: no such file.
Result<std::string> read_file(rocksdb::FileSystem&, const std::string& path, std::size_t max_bytes);
/// A new file, or over what is there; synced, its name not yet.
absl::Status write_file(rocksdb::FileSystem&, const std::string& path, std::string_view bytes);
absl::Status rename_file(rocksdb::FileSystem&, const std::string& from, const std::string& to);
/// A second name for a file.
absl::Status link_file(rocksdb::FileSystem&, const std::string& from, const std::string& to);
absl::Status create_directory(rocksdb::FileSystem&, const std::string& path);
/// With all that is in it. What has another name elsewhere is still there by that.
absl::Status remove_directory(rocksdb::FileSystem&, const std::string& path);
/// Makes the names in it durable.
absl::Status sync_directory(rocksdb::FileSystem&, const std::string& path);
Result<std::uint64_t> free_space(rocksdb::FileSystem&, const std::string& path);

/// A lock on a file that other processes see, and so does a second opening by this one.
class DirectoryLock {
 public:
  /// kAborted: someone holds it.
  static Result<DirectoryLock> take(std::shared_ptr<rocksdb::FileSystem>, const std::string& path);
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  ~DirectoryLock();

 private:
  DirectoryLock(std::shared_ptr<rocksdb::FileSystem> files, rocksdb::FileLock* lock);
  std::shared_ptr<rocksdb::FileSystem> files_;
  rocksdb::FileLock* lock_;
};

}  // namespace tensorforge::storage
