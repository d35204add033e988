#include "tests/support/fault_file_system.h"

#include <utility>

namespace tensorforge::test {
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

class FaultFileSystem::WritableFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  WritableFile(FaultFileSystem& system, std::string path, std::unique_ptr<rocksdb::FSWritableFile> file)
      : FSWritableFileOwnerWrapper(std::move(file)), system_(system), path_(std::move(path)) {}
  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    const IOStatus fault = system_.ask(Operation::kWrite, path_);
    return fault.ok() ? FSWritableFileOwnerWrapper::Append(data, options, debug) : fault;
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo& info,
                  IODebugContext* debug) override {
    const IOStatus fault = system_.ask(Operation::kWrite, path_);
    return fault.ok() ? FSWritableFileOwnerWrapper::Append(data, options, info, debug) : fault;
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    const IOStatus fault = system_.ask(Operation::kSync, path_);
    return fault.ok() ? FSWritableFileOwnerWrapper::Sync(options, debug) : fault;
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    const IOStatus fault = system_.ask(Operation::kSync, path_);
    return fault.ok() ? FSWritableFileOwnerWrapper::Fsync(options, debug) : fault;
  }
  IOStatus Truncate(std::uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    const IOStatus fault = system_.ask(Operation::kTruncate, path_, size);
    return fault.ok() ? FSWritableFileOwnerWrapper::Truncate(size, options, debug) : fault;
  }

 private:
  FaultFileSystem& system_;
  const std::string path_;
};

class FaultFileSystem::RandomRWFile final : public rocksdb::FSRandomRWFileOwnerWrapper {
 public:
  RandomRWFile(FaultFileSystem& system, std::string path, std::unique_ptr<rocksdb::FSRandomRWFile> file)
      : FSRandomRWFileOwnerWrapper(std::move(file)), system_(system), path_(std::move(path)) {}
  IOStatus Write(std::uint64_t offset, const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    const IOStatus fault = system_.ask(Operation::kWrite, path_);
    return fault.ok() ? FSRandomRWFileOwnerWrapper::Write(offset, data, options, debug) : fault;
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    const IOStatus fault = system_.ask(Operation::kSync, path_);
    return fault.ok() ? FSRandomRWFileOwnerWrapper::Sync(options, debug) : fault;
  }

 private:
  FaultFileSystem& system_;
  const std::string path_;
};

class FaultFileSystem::Directory final : public rocksdb::FSDirectoryWrapper {
 public:
  Directory(FaultFileSystem& system, std::string path, std::unique_ptr<rocksdb::FSDirectory> directory)
      : FSDirectoryWrapper(std::move(directory)), system_(system), path_(std::move(path)) {}
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* debug,
                               const rocksdb::DirFsyncOptions& reason) override {
    const IOStatus fault = system_.ask(Operation::kDirectorySync, path_);
    return fault.ok() ? FSDirectoryWrapper::FsyncWithDirOptions(options, debug, reason) : fault;
  }

 private:
  FaultFileSystem& system_;
  const std::string path_;
};

FaultFileSystem::FaultFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}

void FaultFileSystem::set_fault(Fault fault) {
  const std::lock_guard lock(mutex_);
  fault_ = std::move(fault);
  calls_.clear();
}

std::vector<FaultFileSystem::Call> FaultFileSystem::calls() const {
  const std::lock_guard lock(mutex_);
  return calls_;
}

void FaultFileSystem::set_free_bytes(std::optional<std::uint64_t> bytes) {
  const std::lock_guard lock(mutex_);
  free_bytes_ = bytes;
}

IOStatus FaultFileSystem::ask(Operation operation, const std::string& path, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  calls_.push_back({operation, path, size});
  return fault_ ? fault_(calls_.back()) : IOStatus::OK();
}

IOStatus FaultFileSystem::NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                          std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext* debug) {
  std::unique_ptr<rocksdb::FSWritableFile> file;
  IOStatus status = FileSystemWrapper::NewWritableFile(path, options, &file, debug);
  if (status.ok()) *result = std::make_unique<WritableFile>(*this, path, std::move(file));
  return status;
}

IOStatus FaultFileSystem::ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                             std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext* debug) {
  std::unique_ptr<rocksdb::FSWritableFile> file;
  IOStatus status = FileSystemWrapper::ReopenWritableFile(path, options, &file, debug);
  if (status.ok()) *result = std::make_unique<WritableFile>(*this, path, std::move(file));
  return status;
}

IOStatus FaultFileSystem::NewRandomRWFile(const std::string& path, const rocksdb::FileOptions& options,
                                          std::unique_ptr<rocksdb::FSRandomRWFile>* result, IODebugContext* debug) {
  std::unique_ptr<rocksdb::FSRandomRWFile> file;
  IOStatus status = FileSystemWrapper::NewRandomRWFile(path, options, &file, debug);
  if (status.ok()) *result = std::make_unique<RandomRWFile>(*this, path, std::move(file));
  return status;
}

IOStatus FaultFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                       std::unique_ptr<rocksdb::FSDirectory>* result, IODebugContext* debug) {
  std::unique_ptr<rocksdb::FSDirectory> directory;
  IOStatus status = FileSystemWrapper::NewDirectory(path, options, &directory, debug);
  if (status.ok()) *result = std::make_unique<Directory>(*this, path, std::move(directory));
  return status;
}

IOStatus FaultFileSystem::RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                                     IODebugContext* debug) {
  const IOStatus fault = ask(Operation::kRename, to);
  return fault.ok() ? FileSystemWrapper::RenameFile(from, to, options, debug) : fault;
}

IOStatus FaultFileSystem::GetFreeSpace(const std::string& path, const IOOptions& options, std::uint64_t* bytes,
                                       IODebugContext* debug) {
  {
    const std::lock_guard lock(mutex_);
    if (free_bytes_) {
      *bytes = *free_bytes_;
      return IOStatus::OK();
    }
  }
  return FileSystemWrapper::GetFreeSpace(path, options, bytes, debug);
}

FaultFileSystem::Fault fail_from(FaultFileSystem::Operation operation, const std::string& path_end, int n,
                                 const rocksdb::IOStatus& error) {
  return [=, seen = 0](const FaultFileSystem::Call& call) mutable {
    const bool counts = call.operation == operation && call.path.ends_with(path_end);
    if (!counts || ++seen < n) return IOStatus::OK();
    return error;
  };
}

}  // namespace tensorforge::test
