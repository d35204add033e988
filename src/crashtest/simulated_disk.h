#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <rocksdb/file_system.h>

#include "platform/digest.h"
#include "platform/result.h"

namespace tensorforge::crashtest {

/// A file system in memory that knows what a power cut may take: of each file, what was synced apart from what was only
/// written, and of each directory, which names were synced. And a disk that fails or waits where a hook says so.
///
/// What it promises is what the file systems of Linux do, and not more: a file's fsync makes durable its bytes and the
/// name under which it was made, a directory's fsync the names in it. A change of names (a rename is one) is durable
/// whole or not at all, each by itself, whatever happened before it. Where an fsync fails, what was written before it
/// can still be read, and no later fsync makes it durable.
///
/// Paths are absolute; "/" is there and durable.
///
/// Threads: any.
class SimulatedDisk final : public rocksdb::FileSystem {
 public:
  enum class Operation { kOpen, kRead, kCreate, kWrite, kSync, kRename, kLink, kDelete, kSyncDirectory, kList };
  struct Call {
    Operation operation{};
    std::string path;
    std::size_t bytes{};  ///< of a kWrite
  };
  struct Fault {
    rocksdb::IOStatus error{rocksdb::IOStatus::OK()};  ///< ok: the call is carried out
    std::size_t written{};                             ///< of a kWrite that fails: so many bytes get there all the same
  };
  /// Asked before each call; it may wait.
  using Hook = std::function<Fault(const Call&)>;

  SimulatedDisk();
  ~SimulatedDisk() override;
  static const char* kClassName() { return "SimulatedDisk"; }
  const char* Name() const override { return kClassName(); }

  /// Empty: nothing fails.
  void set_hook(Hook hook);
  /// What free space it reports; it is not less for what is written.
  void set_free_bytes(std::uint64_t bytes);

  /// The same disk as it is now, synced and not, without locks and hook.
  std::shared_ptr<SimulatedDisk> copy() const;
  /// What the disk may hold when the power comes back: `random` decides which of the legal images. All of it is
  /// durable.
  std::shared_ptr<SimulatedDisk> after_power_cut(std::mt19937_64& random) const;
  /// Everything below the directory `from`, into the new directory `to` of the machine's file system; not synced.
  absl::Status write_to(const std::string& from, const std::string& to) const;

  /// What can be read. Every file below `directory`, by its path from there.
  std::map<std::string, std::string> files_below(const std::string& directory) const;
  /// Of what can be read: every name, and every byte.
  Digest digest() const;
  /// Replaces or makes a file, durable at once. Its directory is there.
  void put_file(const std::string& path, std::string bytes);

  rocksdb::IOStatus NewSequentialFile(const std::string&, const rocksdb::FileOptions&,
                                      std::unique_ptr<rocksdb::FSSequentialFile>*, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewRandomAccessFile(const std::string&, const rocksdb::FileOptions&,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>*,
                                        rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewWritableFile(const std::string&, const rocksdb::FileOptions&,
                                    std::unique_ptr<rocksdb::FSWritableFile>*, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string&, const rocksdb::FileOptions&,
                                       std::unique_ptr<rocksdb::FSWritableFile>*, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string&, const rocksdb::FileOptions&,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>*, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewDirectory(const std::string&, const rocksdb::IOOptions&, std::unique_ptr<rocksdb::FSDirectory>*,
                                 rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewLogger(const std::string&, const rocksdb::IOOptions&, std::shared_ptr<rocksdb::Logger>*,
                              rocksdb::IODebugContext*) override;
  rocksdb::IOStatus FileExists(const std::string&, const rocksdb::IOOptions&, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetChildren(const std::string&, const rocksdb::IOOptions&, std::vector<std::string>*,
                                rocksdb::IODebugContext*) override;
  rocksdb::IOStatus DeleteFile(const std::string&, const rocksdb::IOOptions&, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus CreateDir(const std::string&, const rocksdb::IOOptions&, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus CreateDirIfMissing(const std::string&, const rocksdb::IOOptions&,
                                       rocksdb::IODebugContext*) override;
  rocksdb::IOStatus DeleteDir(const std::string&, const rocksdb::IOOptions&, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetFileSize(const std::string&, const rocksdb::IOOptions&, std::uint64_t*,
                                rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetFileModificationTime(const std::string&, const rocksdb::IOOptions&, std::uint64_t*,
                                            rocksdb::IODebugContext*) override;
  rocksdb::IOStatus RenameFile(const std::string&, const std::string&, const rocksdb::IOOptions&,
                               rocksdb::IODebugContext*) override;
  rocksdb::IOStatus LinkFile(const std::string&, const std::string&, const rocksdb::IOOptions&,
                             rocksdb::IODebugContext*) override;
  rocksdb::IOStatus LockFile(const std::string&, const rocksdb::IOOptions&, rocksdb::FileLock**,
                             rocksdb::IODebugContext*) override;
  rocksdb::IOStatus UnlockFile(rocksdb::FileLock*, const rocksdb::IOOptions&, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetTestDirectory(const rocksdb::IOOptions&, std::string*, rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetAbsolutePath(const std::string&, const rocksdb::IOOptions&, std::string*,
                                    rocksdb::IODebugContext*) override;
  rocksdb::IOStatus GetFreeSpace(const std::string&, const rocksdb::IOOptions&, std::uint64_t*,
                                 rocksdb::IODebugContext*) override;
  rocksdb::IOStatus IsDirectory(const std::string&, const rocksdb::IOOptions&, bool*,
                                rocksdb::IODebugContext*) override;

 private:
  struct Node;
  using NodePtr = std::shared_ptr<Node>;
  using Entries = std::map<std::string, NodePtr>;
  /// A change of names that is not durable yet: all its edits, or none.
  struct NameChange {
    struct Edit {
      NodePtr directory;
      std::string name;
      NodePtr node;  ///< nullptr: the name goes
    };
    std::vector<Edit> edits;
  };
  class Copier;
  class Image;
  class Lock;
  class Reader;
  class SequentialFile;
  class RandomAccessFile;
  class WritableFile;
  class RandomRWFile;
  class Directory;

  Fault ask(Operation, const std::string& path, std::size_t bytes = 0) const;
  rocksdb::IOStatus write(Node&, const std::string& path, std::uint64_t offset, std::string_view data);
  rocksdb::IOStatus sync(Node&, const std::string& path);
  rocksdb::IOStatus sync_directory(const NodePtr&, const std::string& path);
  rocksdb::IOStatus read(const Node&, const std::string& path, std::uint64_t offset, std::size_t bytes, char* to,
                         std::size_t* got) const;

  // Under mutex_.
  NodePtr find(std::string_view path) const;  ///< nullptr: nothing is there
  /// The directory that `path` is in, and its last part; the directory is nullptr where it is missing.
  std::pair<NodePtr, std::string> place(const std::string& path) const;
  void change_names(std::vector<NameChange::Edit> edits);
  /// Makes durable those of the pending changes that `concerned` picks.
  template <class Predicate>
  void settle_names(Predicate concerned);

  mutable std::mutex mutex_;
  std::shared_ptr<const Hook> hook_;
  NodePtr root_;
  std::vector<NameChange> pending_;  ///< in the order in which they were made
  std::set<std::string> locked_;
  std::optional<std::uint64_t> free_bytes_;
};

}  // namespace tensorforge::crashtest
