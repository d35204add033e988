#include "storage/files.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <fmt/format.h>

namespace tensorforge::storage {
namespace {

const rocksdb::IOOptions kIo;

}  // namespace

absl::Status to_status(const rocksdb::Status& status, std::string_view doing) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = fmt::format("{}: {}", doing, status.ToString());
  const auto says = [&](std::string_view words) { return message.find(words) != std::string::npos; };
  // What the library says where it cannot open CURRENT, whatever the cause; nobody asked for direct I/O.
  if (says("Direct I/O is not supported")) return absl::UnavailableError(message);
  // It calls a file that it cannot open or read corrupt. That a file is not there, though, is damage.
  if (status.IsCorruption() && says("IO error: ") && !says("No such file or directory")) {
    return absl::UnavailableError(message);
  }
  const bool is_damage = status.IsCorruption() || status.IsNotFound() || status.IsPathNotFound() ||
                         status.IsInvalidArgument() || status.IsNotSupported();
  return is_damage ? absl::DataLossError(message) : absl::UnavailableError(message);
}

Result<std::vector<std::string>> list_directory(rocksdb::FileSystem& files, const std::string& path) {
  std::vector<std::string> names;
  const rocksdb::IOStatus status = files.GetChildren(path, kIo, &names, nullptr);
  if (status.IsNotFound() || status.IsPathNotFound()) return absl::NotFoundError(path);
  if (!status.ok()) return to_status(status, fmt::format("list {}", path));
  std::erase_if(names, [](const std::string& name) { return name == "." || name == ".."; });
  std::sort(names.begin(), names.end());
  return names;
}

Result<bool> file_exists(rocksdb::FileSystem& files, const std::string& path) {
  const rocksdb::IOStatus status = files.FileExists(path, kIo, nullptr);
  if (status.ok()) return true;
  if (status.IsNotFound()) return false;
  return to_status(status, fmt::format("look for {}", path));
}

Result<std::string> read_file(rocksdb::FileSystem& files, const std::string& path, std::size_t max_bytes) {
  std::unique_ptr<rocksdb::FSSequentialFile> file;
  rocksdb::IOStatus status = files.NewSequentialFile(path, {}, &file, nullptr);
  if (status.IsNotFound() || status.IsPathNotFound()) return absl::NotFoundError(path);
  if (!status.ok()) return to_status(status, fmt::format("open {}", path));
  std::string bytes(max_bytes, '\0');
  rocksdb::Slice read;
  status = file->Read(bytes.size(), kIo, &read, bytes.data(), nullptr);
  if (!status.ok()) return to_status(status, fmt::format("read {}", path));
  return read.ToString();
}

absl::Status write_file(rocksdb::FileSystem& files, const std::string& path, std::string_view bytes) {
  std::unique_ptr<rocksdb::FSWritableFile> file;
  rocksdb::IOStatus status = files.NewWritableFile(path, {}, &file, nullptr);
  if (status.ok()) status = file->Append({bytes.data(), bytes.size()}, kIo, nullptr);
  if (status.ok()) status = file->Flush(kIo, nullptr);
  if (status.ok()) status = file->Fsync(kIo, nullptr);
  if (status.ok()) status = file->Close(kIo, nullptr);
  return to_status(status, fmt::format("write {}", path));
}

absl::Status rename_file(rocksdb::FileSystem& files, const std::string& from, const std::string& to) {
  return to_status(files.RenameFile(from, to, kIo, nullptr), fmt::format("rename {} to {}", from, to));
}

absl::Status link_file(rocksdb::FileSystem& files, const std::string& from, const std::string& to) {
  return to_status(files.LinkFile(from, to, kIo, nullptr), fmt::format("link {} to {}", from, to));
}

absl::Status create_directory(rocksdb::FileSystem& files, const std::string& path) {
  return to_status(files.CreateDir(path, kIo, nullptr), fmt::format("create {}", path));
}

absl::Status remove_directory(rocksdb::FileSystem& files, const std::string& path) {
  const Result<std::vector<std::string>> names = list_directory(files, path);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const std::string inside = fmt::format("{}/{}", path, name);
    bool is_directory = false;
    rocksdb::IOStatus looked = files.IsDirectory(inside, kIo, &is_directory, nullptr);
    if (!looked.ok()) return to_status(looked, fmt::format("look at {}", inside));
    absl::Status removed = is_directory ? remove_directory(files, inside)
                                        : to_status(files.DeleteFile(inside, kIo, nullptr), "remove " + inside);
    if (!removed.ok()) return removed;
  }
  return to_status(files.DeleteDir(path, kIo, nullptr), "remove " + path);
}

absl::Status sync_directory(rocksdb::FileSystem& files, const std::string& path) {
  std::unique_ptr<rocksdb::FSDirectory> directory;
  rocksdb::IOStatus status = files.NewDirectory(path, kIo, &directory, nullptr);
  if (status.ok()) status = directory->FsyncWithDirOptions(rocksdb::IOOptions(true), nullptr, {});
  if (status.ok()) status = directory->Close(kIo, nullptr);
  return to_status(status, fmt::format("sync {}", path));
}

Result<std::uint64_t> free_space(rocksdb::FileSystem& files, const std::string& path) {
  std::uint64_t bytes = 0;
  const rocksdb::IOStatus status = files.GetFreeSpace(path, kIo, &bytes, nullptr);
  if (!status.ok()) return to_status(status, fmt::format("look for free space of {}", path));
  return bytes;
}

Result<DirectoryLock> DirectoryLock::take(std::shared_ptr<rocksdb::FileSystem> files, const std::string& path) {
  rocksdb::FileLock* lock = nullptr;
  const rocksdb::IOStatus status = files->LockFile(path, kIo, &lock, nullptr);
  if (!status.ok()) {
    // The library has one code for "cannot open it" and "held"; opening the file to find out would, where this process
    // holds it, let go of the lock.
    const bool not_opened = status.ToString().find("while open a file for lock") != std::string::npos;
    if (not_opened) return to_status(status, fmt::format("lock {}", path));
    return absl::AbortedError(fmt::format("another process holds it ({})", status.ToString()));
  }
  return DirectoryLock(std::move(files), lock);
}

DirectoryLock::DirectoryLock(std::shared_ptr<rocksdb::FileSystem> files, rocksdb::FileLock* lock)
    : files_(std::move(files)), lock_(lock) {}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept
    : files_(std::move(other.files_)), lock_(std::exchange(other.lock_, nullptr)) {}

DirectoryLock::~DirectoryLock() {
  // Fails only for a lock that is not held: the process's end would let it go anyway.
  if (lock_ != nullptr) files_->UnlockFile(lock_, kIo, nullptr).PermitUncheckedError();
}

}  // namespace tensorforge::storage
