#include "storage/zeros_ahead.h"

#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <rocksdb/file_system.h>

#include "storage/files.h"
#include "tests/support/files.h"

namespace tensorforge::storage {
namespace {

class ZerosAheadTest : public testing::Test {
 protected:
  std::unique_ptr<rocksdb::FSWritableFile> create(const std::string& name) {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    EXPECT_TRUE(files_->NewWritableFile(path(name), {}, &file, nullptr).ok());
    return file;
  }
  std::string path(const std::string& name) const { return (directory_.path() / name).string(); }
  std::string content(const std::string& name) const { return read_file(*files_, path(name), 16 << 20U).value(); }

  test::TemporaryDirectory directory_;
  const std::shared_ptr<rocksdb::FileSystem> files_ = with_zeros_ahead(rocksdb::FileSystem::Default());
};

TEST_F(ZerosAheadTest, StandBehindAllThatWasAppendedUntilTheyAreUsedUp) {
  const auto file = create("000001.log");
  EXPECT_EQ(content("000001.log"), "") << "none before there is something";
  std::string appended;
  std::size_t growths = 0, size = 0;
  for (int i = 1; i <= 400; ++i) {
    const std::string piece(static_cast<std::size_t>(1 + i * 7919 % 15'000), static_cast<char>('a' + i % 26));
    ASSERT_TRUE(file->Append(piece, {}, nullptr).ok());
    appended += piece;
    const std::string all = content("000001.log");
    ASSERT_EQ(all.substr(0, appended.size()), appended);
    ASSERT_EQ(all.find_first_not_of('\0', appended.size()), std::string::npos);
    if (all.size() != size) ++growths;
    size = all.size();
    ASSERT_EQ(size % 32'768, 0U) << "a log that ends in fewer zeros than a header has would look damaged";
    ASSERT_GE(size, appended.size());
    ASSERT_LE(size - appended.size(), std::size_t{256 + 32} << 10U);
  }
  EXPECT_GT(growths, 5U) << "and not all at once";
  EXPECT_LT(growths, 20U) << "nor each time";
  EXPECT_EQ(file->GetFileSize({}, nullptr), appended.size());
  EXPECT_TRUE(file->Sync({}, nullptr).ok());
  EXPECT_TRUE(file->Close({}, nullptr).ok());
}

TEST_F(ZerosAheadTest, AreOfWriteAheadLogsAlone) {
  const auto file = create("000001.sst");
  ASSERT_TRUE(file->Append("table", {}, nullptr).ok());
  EXPECT_EQ(content("000001.sst"), "table");
}

}  // namespace
}  // namespace tensorforge::storage
