#include "crashtest/simulated_disk.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>
#include <rocksdb/env.h>

#include "crashtest/simulated_disk_node.h"

namespace tensorforge::crashtest {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

namespace {

constexpr std::uint64_t kPlenty = std::uint64_t{1} << 40U;

IOStatus missing(const std::string& path) { return IOStatus::PathNotFound(path, "No such file or directory"); }

/// Without the slash at its end.
std::string_view trimmed(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  return path;
}

class QuietLogger final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

}  // namespace

// ---- open files

class SimulatedDisk::Reader {
 public:
  Reader(SimulatedDisk& disk, NodePtr node, std::string path)
      : disk_(disk), node_(std::move(node)), path_(std::move(path)) {}
  IOStatus read(std::uint64_t offset, std::size_t bytes, char* to, Slice* result) const {
    std::size_t got = 0;
    IOStatus status = disk_.read(*node_, path_, offset, bytes, to, &got);
    *result = Slice(to, got);
    return status;
  }

 private:
  SimulatedDisk& disk_;
  const NodePtr node_;
  const std::string path_;
};

class SimulatedDisk::SequentialFile final : public rocksdb::FSSequentialFile {
 public:
  explicit SequentialFile(Reader reader) : reader_(std::move(reader)) {}
  IOStatus Read(std::size_t bytes, const IOOptions&, Slice* result, char* scratch, IODebugContext*) override {
    IOStatus status = reader_.read(offset_, bytes, scratch, result);
    offset_ += result->size();
    return status;
  }
  IOStatus Skip(std::uint64_t bytes) override {
    offset_ += bytes;
    return IOStatus::OK();
  }

 private:
  const Reader reader_;
  std::uint64_t offset_{};
};

class SimulatedDisk::RandomAccessFile final : public rocksdb::FSRandomAccessFile {
 public:
  explicit RandomAccessFile(Reader reader) : reader_(std::move(reader)) {}
  IOStatus Read(std::uint64_t offset, std::size_t bytes, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) const override {
    return reader_.read(offset, bytes, scratch, result);
  }

 private:
  const Reader reader_;
};

class SimulatedDisk::WritableFile final : public rocksdb::FSWritableFile {
 public:
  WritableFile(SimulatedDisk& disk, NodePtr node, std::string path, std::uint64_t size)
      : disk_(disk), node_(std::move(node)), path_(std::move(path)), size_(size) {}
  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    IOStatus status = disk_.write(*node_, path_, size_, data.ToStringView());
    if (status.ok()) size_ += data.size();
    return status;
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo&,
                  IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return disk_.sync(*node_, path_); }
  bool IsSyncThreadSafe() const override { return true; }
  std::uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return size_; }

 private:
  SimulatedDisk& disk_;
  const NodePtr node_;
  const std::string path_;
  std::uint64_t size_;
};

class SimulatedDisk::RandomRWFile final : public rocksdb::FSRandomRWFile {
 public:
  RandomRWFile(SimulatedDisk& disk, NodePtr node, std::string path)
      : disk_(disk), node_(std::move(node)), path_(std::move(path)) {}
  IOStatus Write(std::uint64_t offset, const Slice& data, const IOOptions&, IODebugContext*) override {
    return disk_.write(*node_, path_, offset, data.ToStringView());
  }
  IOStatus Read(std::uint64_t offset, std::size_t bytes, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) const override {
    return Reader(disk_, node_, path_).read(offset, bytes, scratch, result);
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return disk_.sync(*node_, path_); }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

 private:
  SimulatedDisk& disk_;
  const NodePtr node_;
  const std::string path_;
};

class SimulatedDisk::Directory final : public rocksdb::FSDirectory {
 public:
  Directory(SimulatedDisk& disk, NodePtr node, std::string path)
      : disk_(disk), node_(std::move(node)), path_(std::move(path)) {}
  IOStatus Fsync(const IOOptions&, IODebugContext*) override { return disk_.sync_directory(node_, path_); }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

 private:
  SimulatedDisk& disk_;
  const NodePtr node_;
  const std::string path_;
};

class SimulatedDisk::Lock final : public rocksdb::FileLock {
 public:
  explicit Lock(std::string path) : path_(std::move(path)) {}
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

// ---- the disk

SimulatedDisk::SimulatedDisk() : root_(std::make_shared<Node>()) { root_->is_directory = true; }
SimulatedDisk::~SimulatedDisk() = default;

void SimulatedDisk::set_hook(Hook hook) {
  const std::lock_guard lock(mutex_);
  hook_ = hook ? std::make_shared<const Hook>(std::move(hook)) : nullptr;
}

void SimulatedDisk::set_free_bytes(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  free_bytes_ = bytes;
}

SimulatedDisk::Fault SimulatedDisk::ask(Operation operation, const std::string& path, std::size_t bytes) const {
  std::shared_ptr<const Hook> hook;
  {
    const std::lock_guard lock(mutex_);
    hook = hook_;
  }
  return hook ? (*hook)({operation, path, bytes}) : Fault{};
}

/// Copies nodes, each once, whatever leads to it.
class SimulatedDisk::Copier {
 public:
  NodePtr copy(const NodePtr& from) {
    if (!from) return nullptr;
    const auto [known, added] = copies_.try_emplace(from.get());
    if (!added) return known->second;
    NodePtr to = std::make_shared<Node>(*from);
    known->second = to;
    for (Entries* entries : {&to->entries, &to->durable_entries}) {
      for (auto& [name, node] : *entries) node = copy(node);
    }
    return to;
  }

 private:
  std::unordered_map<const Node*, NodePtr> copies_;
};

std::shared_ptr<SimulatedDisk> SimulatedDisk::copy() const {
  auto other = std::make_shared<SimulatedDisk>();
  const std::lock_guard lock(mutex_);
  Copier copier;
  other->root_ = copier.copy(root_);
  for (const NameChange& change : pending_) {
    NameChange& same = other->pending_.emplace_back();
    for (const NameChange::Edit& edit : change.edits) {
      same.edits.push_back({copier.copy(edit.directory), edit.name, copier.copy(edit.node)});
    }
  }
  other->free_bytes_ = free_bytes_;
  return other;
}

std::map<std::string, std::string> SimulatedDisk::files_below(const std::string& directory) const {
  std::map<std::string, std::string> files;
  const std::function<void(const Node&, const std::string&)> walk = [&](const Node& node, const std::string& prefix) {
    for (const auto& [name, entry] : node.entries) {
      if (entry->is_directory) {
        walk(*entry, prefix + name + '/');
      } else {
        files[prefix + name] = entry->bytes;
      }
    }
  };
  const std::lock_guard lock(mutex_);
  if (const NodePtr node = find(directory)) walk(*node, "");
  return files;
}

absl::Status SimulatedDisk::write_to(const std::string& from, const std::string& to) const {
  namespace fs = std::filesystem;
  const auto failed = [](const std::string& path) {
    return absl::UnavailableError(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
  };
  std::error_code error;
  const std::function<absl::Status(const Node&, const fs::path&)> walk = [&](const Node& node, const fs::path& path) {
    if (!fs::create_directories(path, error) && error) return failed(path);
    for (const auto& [name, entry] : node.entries) {
      if (entry->is_directory) {
        if (absl::Status status = walk(*entry, path / name); !status.ok()) return status;
        continue;
      }
      std::ofstream file(path / name, std::ios::binary);
      file << entry->bytes;
      file.close();
      if (!file) return failed(path / name);
    }
    return absl::OkStatus();
  };
  const std::lock_guard lock(mutex_);
  const NodePtr node = find(from);
  return node ? walk(*node, to) : absl::OkStatus();
}

Digest SimulatedDisk::digest() const {
  CanonicalBytes bytes("disk");
  const std::function<void(const Node&)> walk = [&](const Node& node) {
    bytes.number(node.is_directory).text(node.bytes).number(node.entries.size());
    for (const auto& [name, entry] : node.entries) {
      bytes.text(name);
      walk(*entry);
    }
  };
  const std::lock_guard lock(mutex_);
  walk(*root_);
  return bytes.digest();
}

void SimulatedDisk::put_file(const std::string& path, std::string bytes) {
  const std::lock_guard lock(mutex_);
  const auto [directory, name] = place(path);
  const NodePtr node = std::make_shared<Node>();
  node->durable = bytes;
  node->bytes = std::move(bytes);
  directory->entries[name] = directory->durable_entries[name] = node;
}

SimulatedDisk::NodePtr SimulatedDisk::find(std::string_view path) const {
  NodePtr node = root_;
  path = trimmed(path);
  while (node && !path.empty()) {
    const std::size_t slash = std::min(path.find('/'), path.size());
    const std::string_view part = path.substr(0, slash);
    path.remove_prefix(std::min(slash + 1, path.size()));
    if (part.empty()) continue;
    const auto found = node->entries.find(std::string(part));
    node = found == node->entries.end() ? nullptr : found->second;
  }
  return node;
}

std::pair<SimulatedDisk::NodePtr, std::string> SimulatedDisk::place(const std::string& path) const {
  const std::string_view whole = trimmed(path);
  const std::size_t slash = whole.rfind('/');
  NodePtr directory = find(whole.substr(0, slash == 0 ? 1 : slash));
  if (directory && !directory->is_directory) directory = nullptr;
  return {directory, std::string(whole.substr(slash + 1))};
}

void SimulatedDisk::change_names(std::vector<NameChange::Edit> edits) {
  for (const auto& [directory, name, node] : edits) {
    if (node) {
      directory->entries[name] = node;
    } else {
      directory->entries.erase(name);
    }
  }
  pending_.push_back({std::move(edits)});
}

template <class Predicate>
void SimulatedDisk::settle_names(Predicate concerned) {
  std::vector<NameChange> others;
  for (NameChange& change : pending_) {
    if (!concerned(change)) {
      others.push_back(std::move(change));
      continue;
    }
    for (const NameChange::Edit& settled : change.edits) {
      const auto& [where, name, node] = settled;
      // What became of the name before is past, durable or not.
      for (NameChange& before : others) {
        std::erase_if(before.edits, [&settled](const NameChange::Edit& edit) {
          return edit.directory == settled.directory && edit.name == settled.name;
        });
      }
      if (node) {
        where->durable_entries[name] = node;
      } else {
        where->durable_entries.erase(name);
      }
    }
  }
  std::erase_if(others, [](const NameChange& change) { return change.edits.empty(); });
  pending_ = std::move(others);
}

IOStatus SimulatedDisk::write(Node& node, const std::string& path, std::uint64_t offset, std::string_view data) {
  const Fault fault = ask(Operation::kWrite, path, data.size());
  if (!fault.error.ok()) data = data.substr(0, fault.written);
  const std::lock_guard lock(mutex_);
  if (!data.empty()) {
    if (node.bytes.size() < offset + data.size()) node.bytes.resize(offset + data.size());
    node.bytes.replace(offset, data.size(), data);
    node.unsynced.push_back({offset, data.size()});
  }
  return fault.error;
}

IOStatus SimulatedDisk::sync(Node& node, const std::string& path) {
  const Fault fault = ask(Operation::kSync, path);
  const std::lock_guard lock(mutex_);
  std::vector<Node::Extent> extents = std::exchange(node.unsynced, {});
  if (!fault.error.ok()) {
    node.given_up.insert(node.given_up.end(), extents.begin(), extents.end());
    return fault.error;
  }
  node.durable.resize(node.bytes.size());
  for (const auto& [offset, size] : extents) node.durable.replace(offset, size, node.bytes, offset, size);
  settle_names([&](const NameChange& change) {
    return change.edits.size() == 1 && change.edits.front().node.get() == &node;  // its creation, or a link
  });
  return IOStatus::OK();
}

IOStatus SimulatedDisk::sync_directory(const NodePtr& directory, const std::string& path) {
  const Fault fault = ask(Operation::kSyncDirectory, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  settle_names([&](const NameChange& change) {
    return std::any_of(change.edits.begin(), change.edits.end(),
                       [&](const NameChange::Edit& edit) { return edit.directory == directory; });
  });
  return IOStatus::OK();
}

IOStatus SimulatedDisk::read(const Node& node, const std::string& path, std::uint64_t offset, std::size_t bytes,
                             char* to, std::size_t* got) const {
  *got = 0;
  const Fault fault = ask(Operation::kRead, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  if (offset < node.bytes.size()) *got = node.bytes.copy(to, bytes, offset);
  return IOStatus::OK();
}

// ---- the interface of RocksDB

IOStatus SimulatedDisk::NewSequentialFile(const std::string& path, const FileOptions&,
                                          std::unique_ptr<rocksdb::FSSequentialFile>* result, IODebugContext*) {
  const Fault fault = ask(Operation::kOpen, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  NodePtr node = find(path);
  if (!node || node->is_directory) return missing(path);
  *result = std::make_unique<SequentialFile>(Reader(*this, std::move(node), path));
  return IOStatus::OK();
}

IOStatus SimulatedDisk::NewRandomAccessFile(const std::string& path, const FileOptions&,
                                            std::unique_ptr<rocksdb::FSRandomAccessFile>* result, IODebugContext*) {
  const Fault fault = ask(Operation::kOpen, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  NodePtr node = find(path);
  if (!node || node->is_directory) return missing(path);
  *result = std::make_unique<RandomAccessFile>(Reader(*this, std::move(node), path));
  return IOStatus::OK();
}

IOStatus SimulatedDisk::NewWritableFile(const std::string& path, const FileOptions&,
                                        std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext*) {
  const Fault fault = ask(Operation::kCreate, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  const auto [directory, name] = place(path);
  if (!directory) return missing(path);
  NodePtr node = std::make_shared<Node>();
  change_names({{directory, name, node}});
  *result = std::make_unique<WritableFile>(*this, std::move(node), path, 0);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::ReopenWritableFile(const std::string& path, const FileOptions& options,
                                           std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext* debug) {
  {
    const std::lock_guard lock(mutex_);
    if (const NodePtr node = find(path)) {
      *result = std::make_unique<WritableFile>(*this, node, path, node->bytes.size());
      return IOStatus::OK();
    }
  }
  return NewWritableFile(path, options, result, debug);
}

IOStatus SimulatedDisk::NewRandomRWFile(const std::string& path, const FileOptions&,
                                        std::unique_ptr<rocksdb::FSRandomRWFile>* result, IODebugContext*) {
  const Fault fault = ask(Operation::kOpen, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  NodePtr node = find(path);
  if (!node || node->is_directory) return missing(path);
  *result = std::make_unique<RandomRWFile>(*this, std::move(node), path);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::NewDirectory(const std::string& path, const IOOptions&,
                                     std::unique_ptr<rocksdb::FSDirectory>* result, IODebugContext*) {
  const std::lock_guard lock(mutex_);
  NodePtr node = find(path);
  if (!node || !node->is_directory) return missing(path);
  *result = std::make_unique<Directory>(*this, std::move(node), path);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::NewLogger(const std::string&, const IOOptions&, std::shared_ptr<rocksdb::Logger>* result,
                                  IODebugContext*) {
  *result = std::make_shared<QuietLogger>();
  return IOStatus::OK();
}

IOStatus SimulatedDisk::FileExists(const std::string& path, const IOOptions&, IODebugContext*) {
  const Fault fault = ask(Operation::kList, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  return find(path) ? IOStatus::OK() : IOStatus::NotFound(path);
}

IOStatus SimulatedDisk::GetChildren(const std::string& path, const IOOptions&, std::vector<std::string>* result,
                                    IODebugContext*) {
  const Fault fault = ask(Operation::kList, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  const NodePtr node = find(path);
  if (!node) return missing(path);
  if (!node->is_directory) return IOStatus::IOError(path, "Not a directory");
  result->clear();
  for (const auto& [name, entry] : node->entries) result->push_back(name);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::DeleteFile(const std::string& path, const IOOptions&, IODebugContext*) {
  const Fault fault = ask(Operation::kDelete, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  const auto [directory, name] = place(path);
  if (!directory || directory->entries.count(name) == 0) return missing(path);
  change_names({{directory, name, nullptr}});
  return IOStatus::OK();
}

IOStatus SimulatedDisk::CreateDir(const std::string& path, const IOOptions&, IODebugContext*) {
  const Fault fault = ask(Operation::kCreate, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  const auto [directory, name] = place(path);
  if (!directory) return missing(path);
  if (directory->entries.count(name) != 0) return IOStatus::IOError(path, "File exists");
  const NodePtr node = std::make_shared<Node>();
  node->is_directory = true;
  change_names({{directory, name, node}});
  return IOStatus::OK();
}

IOStatus SimulatedDisk::CreateDirIfMissing(const std::string& path, const IOOptions& options, IODebugContext* debug) {
  {
    const std::lock_guard lock(mutex_);
    const NodePtr node = find(path);
    if (node) return node->is_directory ? IOStatus::OK() : IOStatus::IOError(path, "exists but is not a directory");
  }
  return CreateDir(path, options, debug);
}

IOStatus SimulatedDisk::DeleteDir(const std::string& path, const IOOptions& options, IODebugContext* debug) {
  {
    const std::lock_guard lock(mutex_);
    const NodePtr node = find(path);
    if (node && !node->entries.empty()) return IOStatus::IOError(path, "Directory not empty");
  }
  return DeleteFile(path, options, debug);
}

IOStatus SimulatedDisk::GetFileSize(const std::string& path, const IOOptions&, std::uint64_t* size, IODebugContext*) {
  const Fault fault = ask(Operation::kList, path);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  const NodePtr node = find(path);
  if (!node) return missing(path);
  *size = node->bytes.size();
  return IOStatus::OK();
}

IOStatus SimulatedDisk::GetFileModificationTime(const std::string& path, const IOOptions&, std::uint64_t* time,
                                                IODebugContext*) {
  const std::lock_guard lock(mutex_);
  *time = 0;
  return find(path) ? IOStatus::OK() : missing(path);
}

IOStatus SimulatedDisk::RenameFile(const std::string& from, const std::string& to, const IOOptions&, IODebugContext*) {
  const Fault fault = ask(Operation::kRename, to);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  const auto [old_directory, old_name] = place(from);
  const auto [new_directory, new_name] = place(to);
  const NodePtr node = find(from);
  if (!node || !new_directory) return missing(from);
  change_names({{old_directory, old_name, nullptr}, {new_directory, new_name, node}});
  return IOStatus::OK();
}

IOStatus SimulatedDisk::LinkFile(const std::string& from, const std::string& to, const IOOptions&, IODebugContext*) {
  const Fault fault = ask(Operation::kLink, to);
  if (!fault.error.ok()) return fault.error;
  const std::lock_guard lock(mutex_);
  const auto [directory, name] = place(to);
  const NodePtr node = find(from);
  if (!node || !directory) return missing(from);
  if (directory->entries.count(name) != 0) return IOStatus::IOError(to, "File exists");
  change_names({{directory, name, node}});
  return IOStatus::OK();
}

IOStatus SimulatedDisk::LockFile(const std::string& path, const IOOptions&, rocksdb::FileLock** result,
                                 IODebugContext*) {
  const Fault fault = ask(Operation::kOpen, path);
  // In the words of the machine's file system, which tells the two causes apart by words alone.
  if (!fault.error.ok()) return IOStatus::IOError("while open a file for lock: " + path, fault.error.ToString());
  const std::lock_guard lock(mutex_);
  const auto [directory, name] = place(path);
  if (!directory) return IOStatus::IOError("while open a file for lock: " + path, "No such file or directory");
  if (!locked_.insert(path).second) return IOStatus::IOError("lock hold by current process", path);
  if (directory->entries.count(name) == 0) change_names({{directory, name, std::make_shared<Node>()}});
  *result = new Lock(path);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::UnlockFile(rocksdb::FileLock* lock, const IOOptions&, IODebugContext*) {
  const std::unique_ptr<Lock> held(static_cast<Lock*>(lock));
  const std::lock_guard guard(mutex_);
  locked_.erase(held->path());
  return IOStatus::OK();
}

IOStatus SimulatedDisk::GetTestDirectory(const IOOptions&, std::string* path, IODebugContext*) {
  *path = "/";
  return IOStatus::OK();
}

IOStatus SimulatedDisk::GetAbsolutePath(const std::string& path, const IOOptions&, std::string* result,
                                        IODebugContext*) {
  *result = path;
  return IOStatus::OK();
}

IOStatus SimulatedDisk::GetFreeSpace(const std::string&, const IOOptions&, std::uint64_t* bytes, IODebugContext*) {
  const std::lock_guard lock(mutex_);
  *bytes = free_bytes_.value_or(kPlenty);
  return IOStatus::OK();
}

IOStatus SimulatedDisk::IsDirectory(const std::string& path, const IOOptions&, bool* result, IODebugContext*) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = find(path);
  if (!node) return missing(path);
  *result = node->is_directory;
  return IOStatus::OK();
}

}  // namespace tensorforge::crashtest
