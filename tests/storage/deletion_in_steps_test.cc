#include "storage/deletion_in_steps.h"

#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/files.h"
#include "tests/storage/log_fixture.h"
#include "tests/support/files.h"

namespace tensorforge::storage {
namespace {

using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using testing::ElementsAre;
using testing::IsEmpty;

/// Tells to which sizes its files were cut.
class CutsFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  CutsFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "CutsFileSystem"; }

  IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                              std::unique_ptr<FSWritableFile>* result, IODebugContext* debug) override {
    const IOStatus status = FileSystemWrapper::ReopenWritableFile(path, options, result, debug);
    if (status.ok()) *result = std::make_unique<File>(std::move(*result), *this, path);
    return status;
  }
  std::vector<std::uint64_t> cuts() const {
    const std::lock_guard lock(mutex_);
    return cuts_;
  }
  IOStatus fails{IOStatus::OK()};  ///< what a cut returns

 private:
  class File final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    File(std::unique_ptr<FSWritableFile> file, CutsFileSystem& files, std::string path)
        : FSWritableFileOwnerWrapper(std::move(file)), files_(files), path_(std::move(path)) {}
    IOStatus Truncate(std::uint64_t size, const IOOptions& options, IODebugContext* debug) override {
      if (!files_.fails.ok()) return files_.fails;
      const IOStatus status = FSWritableFileOwnerWrapper::Truncate(size, options, debug);
      std::uint64_t now = 0;
      EXPECT_TRUE(files_.GetFileSize(path_, options, &now, debug).ok());
      EXPECT_EQ(now, size);
      const std::lock_guard lock(files_.mutex_);
      files_.cuts_.push_back(now);
      return status;
    }

   private:
    CutsFileSystem& files_;
    const std::string path_;
  };

  mutable std::mutex mutex_;
  std::vector<std::uint64_t> cuts_;
};

class DeletionInStepsTest : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return (directory_.path() / name).string(); }
  std::string make(const std::string& name, std::size_t size) {
    EXPECT_TRUE(write_file(*disk_, path(name), std::string(size, 'r')).ok());
    return path(name);
  }
  IOStatus remove(const std::string& at) { return files_->DeleteFile(at, {}, nullptr); }
  bool exists(const std::string& at) { return *file_exists(*disk_, at); }

  test::TemporaryDirectory directory_;
  const std::shared_ptr<CutsFileSystem> disk_ = std::make_shared<CutsFileSystem>();
  const std::shared_ptr<rocksdb::FileSystem> files_ = with_deletion_in_steps(disk_, 1'000);
};

TEST_F(DeletionInStepsTest, CutsALogFromItsEnd) {
  const std::string log = make("000001.log", 3'500);
  EXPECT_TRUE(remove(log).ok());
  EXPECT_FALSE(exists(log));
  EXPECT_THAT(disk_->cuts(), ElementsAre(2'500, 1'500, 500));
}

TEST_F(DeletionInStepsTest, LeavesWhatIsSmallOrNoLogAsItIs) {
  EXPECT_TRUE(remove(make("000001.log", 1'000)).ok());
  EXPECT_TRUE(remove(make("000002.sst", 3'500)).ok());
  EXPECT_TRUE(remove(path("000003.log")).IsPathNotFound());
  EXPECT_THAT(disk_->cuts(), IsEmpty());
}

TEST_F(DeletionInStepsTest, LeavesALogUnderItsOtherName) {
  const std::string log = make("000001.log", 3'500), kept = path("kept");
  ASSERT_TRUE(link_file(*disk_, log, kept).ok());
  EXPECT_TRUE(remove(log).ok());
  EXPECT_FALSE(exists(log));
  EXPECT_EQ(read_file(*disk_, kept, 10'000).value(), std::string(3'500, 'r'));
}

TEST_F(DeletionInStepsTest, DeletesWhatCannotBeCut) {
  const std::string log = make("000001.log", 3'500);
  disk_->fails = IOStatus::IOError("no space");
  EXPECT_TRUE(remove(log).ok());
  EXPECT_FALSE(exists(log));
}

TEST_F(DeletionInStepsTest, IsHowALogThatIsFullGoes) {
  const OpenOptions options{path("data"), Ack::kWal, false, disk_};
  constexpr std::size_t kGroups = 70, kInGroup = 20, kRecords = kGroups * kInGroup, kRecordBytes = 60'000;
  const auto append = [](Served& served, std::size_t groups) {
    for (std::size_t i = 0; i < groups; ++i) {
      ASSERT_TRUE(served.append(make_group(served.end(), kInGroup, kRecordBytes)).ok());
    }
  };
  const auto expect_all = [&](const Log& log) {
    const std::vector<std::string> all = all_records(log);
    ASSERT_EQ(all.size(), kRecords);
    for (Sequence i = 1; i <= kRecords; ++i) ASSERT_EQ(all[i - 1], record_text(i, kRecordBytes));
  };
  std::filesystem::path full;
  std::string begun;
  {
    Served served(options);
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    append(served, kGroups / 2);
    full = test::files_like(directory_.path() / "data/db", ".log").back();
    begun = test::read_bytes(full);
    append(served, kGroups / 2);
    for (int i = 0; i < 6'000 && std::filesystem::exists(full); ++i) {  // RocksDB's thread deletes it
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_FALSE(std::filesystem::exists(full));
    EXPECT_GE(disk_->cuts().size(), 10u);
    expect_all(served.journal());
    ASSERT_TRUE(served.journal().close().ok());
  }
  for (const std::size_t part : {1, 2}) {  // what a power cut may leave of it
    test::write_bytes(full, begun.substr(0, begun.size() * part / 3));
    Served served(options);
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    expect_all(served.journal());
    EXPECT_FALSE(std::filesystem::exists(full));
  }
}

}  // namespace
}  // namespace tensorforge::storage
