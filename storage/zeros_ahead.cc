#include "storage/zeros_ahead.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace tensorforge::storage {
namespace {

using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

constexpr std::uint64_t kLeastAhead = std::uint64_t{16} << 10U, kMostAhead = std::uint64_t{256} << 10U;
/// Of RocksDB's log format: where less of one is left than a header takes, a file must not end.
constexpr std::uint64_t kBlockBytes = std::uint64_t{32} << 10U;
constexpr std::array<char, kMostAhead + kBlockBytes> kZeros{};

class WriteAheadLog final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  /// `same` is the same file.
  WriteAheadLog(std::unique_ptr<rocksdb::FSWritableFile> file, std::unique_ptr<rocksdb::FSRandomRWFile> same)
      : FSWritableFileOwnerWrapper(std::move(file)), same_(std::move(same)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    const IOStatus status = FSWritableFileOwnerWrapper::Append(data, options, debug);
    return status.ok() ? appended(data.size(), options, debug) : status;
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo& info,
                  IODebugContext* debug) override {
    const IOStatus status = FSWritableFileOwnerWrapper::Append(data, options, info, debug);
    return status.ok() ? appended(data.size(), options, debug) : status;
  }

 private:
  IOStatus appended(std::uint64_t bytes, const IOOptions& options, IODebugContext* debug) {
    end_ += bytes;
    if (end_ <= zeros_end_) return IOStatus::OK();
    const std::uint64_t wanted = end_ + std::clamp(end_, kLeastAhead, kMostAhead);
    zeros_end_ = (wanted + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    return same_->Write(end_, {kZeros.data(), zeros_end_ - end_}, options, debug);
  }

  const std::unique_ptr<rocksdb::FSRandomRWFile> same_;
  std::uint64_t end_{}, zeros_end_{};
};

class ZerosAhead final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  static const char* kClassName() { return "ZerosAhead"; }
  const char* Name() const override { return kClassName(); }

  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* result, IODebugContext* debug) override {
    IOStatus status = FileSystemWrapper::NewWritableFile(path, options, result, debug);
    if (!status.ok() || !path.ends_with(".log")) return status;
    std::unique_ptr<rocksdb::FSRandomRWFile> same;
    status = FileSystemWrapper::NewRandomRWFile(path, options, &same, debug);
    if (status.ok()) *result = std::make_unique<WriteAheadLog>(std::move(*result), std::move(same));
    return status;
  }
};

}  // namespace

std::shared_ptr<rocksdb::FileSystem> with_zeros_ahead(const std::shared_ptr<rocksdb::FileSystem>& files) {
  return std::make_shared<ZerosAhead>(files);
}

}  // namespace tensorforge::storage
