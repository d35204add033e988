#include "storage/deletion_in_steps.h"

#include <string>

namespace tensorforge::storage {
namespace {

using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

class DeletionInSteps final : public rocksdb::FileSystemWrapper {
 public:
  DeletionInSteps(const std::shared_ptr<rocksdb::FileSystem>& files, std::uint64_t step_bytes)
      : FileSystemWrapper(files), step_bytes_(step_bytes) {}
  static const char* kClassName() { return "DeletionInSteps"; }
  const char* Name() const override { return kClassName(); }

  IOStatus DeleteFile(const std::string& path, const IOOptions& options, IODebugContext* debug) override {
    if (path.ends_with(".log")) cut(path, options, debug).PermitUncheckedError();  // or all of it goes at once
    return FileSystemWrapper::DeleteFile(path, options, debug);
  }

 private:
  IOStatus cut(const std::string& path, const IOOptions& options, IODebugContext* debug) {
    std::uint64_t names = 0, size = 0;
    IOStatus status = NumFileLinks(path, options, &names, debug);
    if (!status.ok() || names != 1) return status;
    status = GetFileSize(path, options, &size, debug);
    if (!status.ok() || size <= step_bytes_) return status;
    std::unique_ptr<rocksdb::FSWritableFile> file;
    status = ReopenWritableFile(path, {}, &file, debug);
    while (status.ok() && size > step_bytes_) {
      size -= step_bytes_;
      status = file->Truncate(size, options, debug);
    }
    return status;
  }

  const std::uint64_t step_bytes_;
};

}  // namespace

std::shared_ptr<rocksdb::FileSystem> with_deletion_in_steps(const std::shared_ptr<rocksdb::FileSystem>& files,
                                                            std::uint64_t step_bytes) {
  return std::make_shared<DeletionInSteps>(files, step_bytes);
}

}  // namespace tensorforge::storage
