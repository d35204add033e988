#include "storage/deletion_in_steps.h"

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/files.h"
#include "tests/storage/log_fixture.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/files.h"

namespace tensorforge::storage {
namespace {

using rocksdb::IOStatus;
using test::FaultFileSystem;
using testing::ElementsAre;
using testing::IsEmpty;

class DeletionInStepsTest : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return (directory_.path() / name).string(); }
  std::string make(const std::string& name, std::size_t size) {
    EXPECT_TRUE(write_file(*disk_, path(name), std::string(size, 'r')).ok());
    return path(name);
  }
  IOStatus remove(const std::string& at) { return files_->DeleteFile(at, {}, nullptr); }
  bool exists(const std::string& at) { return *file_exists(*disk_, at); }
  std::uint64_t size_of(const std::string& at) {
    std::uint64_t size = 0;
    EXPECT_TRUE(disk_->GetFileSize(at, {}, &size, nullptr).ok());
    return size;
  }
  /// To which sizes files were cut.
  std::vector<std::uint64_t> cuts() const {
    std::vector<std::uint64_t> cuts;
    for (const FaultFileSystem::Call& call : disk_->calls()) {
      if (call.operation == FaultFileSystem::Operation::kTruncate) cuts.push_back(call.size);
    }
    return cuts;
  }

  test::TemporaryDirectory directory_;
  const std::shared_ptr<FaultFileSystem> disk_ = std::make_shared<FaultFileSystem>();
  const std::shared_ptr<rocksdb::FileSystem> files_ = with_deletion_in_steps(disk_, 1'000);
};

TEST_F(DeletionInStepsTest, CutsALogFromItsEnd) {
  const std::string log = make("000001.log", 3'500);
  std::vector<std::uint64_t> sizes;
  disk_->set_fault([&](const FaultFileSystem::Call&) {
    sizes.push_back(size_of(log));
    return IOStatus::OK();
  });
  EXPECT_TRUE(remove(log).ok());
  EXPECT_FALSE(exists(log));
  EXPECT_THAT(cuts(), ElementsAre(2'500, 1'500, 500));
  EXPECT_THAT(sizes, ElementsAre(3'500, 2'500, 1'500)) << "before each";
}

TEST_F(DeletionInStepsTest, LeavesWhatIsSmallOrNoLogAsItIs) {
  EXPECT_TRUE(remove(make("000001.log", 1'000)).ok());
  EXPECT_TRUE(remove(make("000002.sst", 3'500)).ok());
  EXPECT_TRUE(remove(path("000003.log")).IsPathNotFound());
  EXPECT_THAT(cuts(), IsEmpty());
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
  disk_->set_fault(
      test::fail_from(FaultFileSystem::Operation::kTruncate, ".log", 1, IOStatus::IOError("it cannot be cut")));
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
    EXPECT_GE(cuts().size(), 10u);
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
