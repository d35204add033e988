#include "tests/storage/read_trap.h"

#include <csignal>
#include <cstdlib>
#include <new>
#include <sstream>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

namespace tensorforge::storage {
namespace {

constexpr const char* kVariable = "TENSORFORGE_TEST_READ_TRAP";

struct Trap {
  int kind{}, signal{};
  std::uint64_t offset{};
  std::string table;
};

rocksdb::IOStatus spring(const Trap& trap) {
  switch (static_cast<ReadTrap::Kind>(trap.kind)) {
    case ReadTrap::Kind::kSignal:
      std::signal(trap.signal, SIG_DFL);  // a sanitizer would make an exit of it
      std::raise(trap.signal);
      break;
    case ReadTrap::Kind::kNoMemory:
      throw std::bad_alloc();
    case ReadTrap::Kind::kHang:
      for (;;) ::pause();
    case ReadTrap::Kind::kIoError:
      break;
  }
  return rocksdb::IOStatus::IOError("a sector that cannot be read");
}

class TrappedFile final : public rocksdb::FSRandomAccessFileWrapper {
 public:
  TrappedFile(std::unique_ptr<rocksdb::FSRandomAccessFile> file, Trap trap)
      : FSRandomAccessFileWrapper(file.get()), file_(std::move(file)), trap_(std::move(trap)) {}
  rocksdb::IOStatus Read(std::uint64_t offset, std::size_t size, const rocksdb::IOOptions& options,
                         rocksdb::Slice* result, char* scratch, rocksdb::IODebugContext* debug) const override {
    if (offset <= trap_.offset && trap_.offset < offset + size) return spring(trap_);
    return file_->Read(offset, size, options, result, scratch, debug);
  }

 private:
  std::unique_ptr<rocksdb::FSRandomAccessFile> file_;
  Trap trap_;
};

class TrappedFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  explicit TrappedFileSystem(Trap trap) : FileSystemWrapper(rocksdb::FileSystem::Default()), trap_(std::move(trap)) {}
  static const char* kClassName() { return "TrappedFileSystem"; }
  const char* Name() const override { return kClassName(); }
  rocksdb::IOStatus NewRandomAccessFile(const std::string& path, const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = target()->NewRandomAccessFile(path, options, file, debug);
    const bool is_it = path.substr(path.rfind('/') + 1) == trap_.table;
    if (status.ok() && is_it) *file = std::make_unique<TrappedFile>(std::move(*file), trap_);
    return status;
  }

 private:
  const Trap trap_;
};

}  // namespace

ReadTrap::ReadTrap(Kind kind, int signal, const std::filesystem::path& table, std::uint64_t offset) {
  const std::string name = table.filename();
  ::setenv(kVariable, fmt::format("{} {} {} {}", static_cast<int>(kind), signal, offset, name).c_str(), 1);
}

ReadTrap::~ReadTrap() { ::unsetenv(kVariable); }

std::shared_ptr<rocksdb::FileSystem> ReadTrap::of_environment() {
  const char* const text = std::getenv(kVariable);
  if (text == nullptr) return nullptr;
  Trap trap;
  std::istringstream(text) >> trap.kind >> trap.signal >> trap.offset >> trap.table;
  return std::make_shared<TrappedFileSystem>(std::move(trap));
}

}  // namespace tensorforge::storage
