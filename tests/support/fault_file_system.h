#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <rocksdb/file_system.h>

namespace tensorforge::test {

/// The machine's file system, which fails where a test wants it to. One that forgets what was not synced is
/// crashtest::SimulatedDisk.
///
/// Threads: any.
class FaultFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  enum class Operation { kWrite, kSync, kTruncate, kRename, kDirectorySync };
  struct Call {
    Operation operation{};
    std::string path;
    std::uint64_t size{};  ///< of the file after a kTruncate
  };
  /// The error that a call ends with, without being carried out; ok: it is carried out.
  using Fault = std::function<rocksdb::IOStatus(const Call&)>;

  FaultFileSystem();
  static const char* kClassName() { return "FaultFileSystem"; }
  const char* Name() const override { return kClassName(); }

  /// Asked before each call from now on; empty: nothing fails.
  void set_fault(Fault fault);
  /// Calls since the last set_fault(), the failed ones too.
  std::vector<Call> calls() const;
  void set_free_bytes(std::optional<std::uint64_t> bytes);

  rocksdb::IOStatus NewWritableFile(const std::string&, const rocksdb::FileOptions&,
                                    std::unique_ptr<rocksdb::FSWritableFile>*, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string&, const rocksdb::FileOptions&,
                                       std::unique_ptr<rocksdb::FSWritableFile>*, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string&, const rocksdb::FileOptions&,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>*, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewDirectory(const std::string&, const rocksdb::IOOptions&, std::unique_ptr<rocksdb::FSDirectory>*,
                                 rocksdb::IODebugContext*) override;
  rocksdb::IOStatus RenameFile(const std::string&, const std::string&, const rocksdb::IOOptions&,
                               rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetFreeSpace(const std::string&, const rocksdb::IOOptions&, std::uint64_t*,
                                 rocksdb::IODebugContext*) override;

 private:
  class WritableFile;
  class RandomRWFile;
  class Directory;
  rocksdb::IOStatus ask(Operation, const std::string& path, std::uint64_t size = 0);

  mutable std::mutex mutex_;
  Fault fault_;
  std::vector<Call> calls_;
  std::optional<std::uint64_t> free_bytes_;
};

/// Fails call number `n` (from 1) of that operation on paths that end so, and all after it, with `error`.
FaultFileSystem::Fault fail_from(FaultFileSystem::Operation, const std::string& path_end, int n,
                                 const rocksdb::IOStatus& error);

}  // namespace tensorforge::test
