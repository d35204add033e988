#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include <rocksdb/file_system.h>

namespace tensorforge::storage {

/// What a process that checks a log comes upon at one place of one table file, by any name of it that ends alike, as
/// long as the object lives. The machine around tests is sound, so the child is told by its environment what to make of
/// a read there.
class ReadTrap {
 public:
  enum class Kind { kSignal, kNoMemory, kHang, kIoError };
  ReadTrap(Kind, int signal, const std::filesystem::path& table, std::uint64_t offset);
  ~ReadTrap();
  ReadTrap(const ReadTrap&) = delete;
  ReadTrap& operator=(const ReadTrap&) = delete;

  /// In the child: the file system with the trap; nullptr: none is set.
  static std::shared_ptr<rocksdb::FileSystem> of_environment();
};

}  // namespace tensorforge::storage
