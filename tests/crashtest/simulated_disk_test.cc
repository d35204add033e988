#include "crashtest/simulated_disk.h"

#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "storage/files.h"

namespace tensorforge::crashtest {
namespace {

using rocksdb::IOStatus;
using Operation = SimulatedDisk::Operation;

class SimulatedDiskTest : public testing::Test {
 protected:
  SimulatedDiskTest() {
    EXPECT_TRUE(storage::create_directory(*disk_, "/d").ok());
    EXPECT_TRUE(storage::sync_directory(*disk_, "/").ok());
  }

  std::unique_ptr<rocksdb::FSWritableFile> create(const std::string& path) const {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    EXPECT_TRUE(disk_->NewWritableFile(path, {}, &file, nullptr).ok());
    return file;
  }
  static IOStatus append(rocksdb::FSWritableFile& file, const std::string& bytes) {
    return file.Append(bytes, {}, nullptr);
  }
  static IOStatus sync(rocksdb::FSWritableFile& file) { return file.Sync({}, nullptr); }

  /// What `see` finds after power cuts, with many seeds.
  std::set<std::string> after_cuts(const std::function<std::string(SimulatedDisk&)>& see) const {
    std::set<std::string> seen;
    for (std::uint64_t seed = 1; seed <= 400; ++seed) {
      std::mt19937_64 random(seed);
      seen.insert(see(*disk_->after_power_cut(random)));
    }
    return seen;
  }
  std::set<std::string> names_after_cuts() const {
    return after_cuts([](SimulatedDisk& disk) {
      std::string names;
      for (const auto& [name, bytes] : disk.files_below("/d")) names += name + '=' + bytes + ' ';
      return names;
    });
  }

  const std::shared_ptr<SimulatedDisk> disk_ = std::make_shared<SimulatedDisk>();
};

TEST_F(SimulatedDiskTest, ReadsWhatWasWritten) {
  ASSERT_TRUE(storage::write_file(*disk_, "/d/a", "one").ok());
  ASSERT_TRUE(storage::rename_file(*disk_, "/d/a", "/d/b").ok());
  ASSERT_TRUE(storage::link_file(*disk_, "/d/b", "/d/c").ok());
  EXPECT_EQ(*storage::read_file(*disk_, "/d/c", 100), "one");
  EXPECT_EQ(*storage::list_directory(*disk_, "/d"), (std::vector<std::string>{"b", "c"}));
  EXPECT_TRUE(absl::IsNotFound(storage::read_file(*disk_, "/d/a", 100).status()));
  EXPECT_TRUE(absl::IsNotFound(storage::list_directory(*disk_, "/e").status()));
}

TEST_F(SimulatedDiskTest, KeepsWhatWasSyncedAndTheNameUnderWhichItWasMade) {
  ASSERT_TRUE(storage::write_file(*disk_, "/d/a", "synced").ok());
  EXPECT_EQ(names_after_cuts(), std::set<std::string>{"a=synced "});
}

TEST_F(SimulatedDiskTest, MayLoseANewFileOrKeepItEmpty) {
  ASSERT_TRUE(append(*create("/d/a"), "x").ok());
  const std::set<std::string> seen = names_after_cuts();
  for (const char* possible : {"", "a= ", "a=x "}) EXPECT_EQ(seen.count(possible), 1U) << possible;
}

TEST_F(SimulatedDiskTest, MayLoseANewDirectoryWithAllThatWasSyncedInIt) {
  ASSERT_TRUE(storage::create_directory(*disk_, "/d/new").ok());
  ASSERT_TRUE(storage::write_file(*disk_, "/d/new/a", "synced").ok());
  ASSERT_TRUE(storage::sync_directory(*disk_, "/d/new").ok());
  EXPECT_EQ(names_after_cuts(), (std::set<std::string>{"", "new/a=synced "}));
  ASSERT_TRUE(storage::sync_directory(*disk_, "/d").ok());
  EXPECT_EQ(names_after_cuts(), (std::set<std::string>{"new/a=synced "}));
}

TEST_F(SimulatedDiskTest, LosesEachChangeOfNamesByItself) {
  for (const char* path : {"/d/a", "/d/b"}) {
    ASSERT_TRUE(storage::write_file(*disk_, path, path).ok());
  }
  ASSERT_TRUE(storage::sync_directory(*disk_, "/d").ok());
  ASSERT_TRUE(storage::rename_file(*disk_, "/d/a", "/d/x").ok());
  ASSERT_TRUE(disk_->DeleteFile("/d/b", {}, nullptr).ok());
  EXPECT_EQ(names_after_cuts(), (std::set<std::string>{"a=/d/a b=/d/b ", "b=/d/b x=/d/a ", "a=/d/a ", "x=/d/a "}));
}

TEST_F(SimulatedDiskTest, KeepsTheLastOfWhatBecameOfASyncedName) {
  ASSERT_TRUE(append(*create("/d/a"), "1").ok());
  ASSERT_TRUE(disk_->DeleteFile("/d/a", {}, nullptr).ok());
  ASSERT_TRUE(storage::write_file(*disk_, "/d/b", "2").ok());
  ASSERT_TRUE(storage::rename_file(*disk_, "/d/b", "/d/a").ok());
  ASSERT_TRUE(storage::write_file(*disk_, "/d/a", "synced").ok());
  EXPECT_EQ(names_after_cuts(), (std::set<std::string>{"a=synced ", "a=synced b=2 "}));
}

TEST_F(SimulatedDiskTest, LeavesAnyPartOfWhatWasNotSynced) {
  const auto file = create("/d/a");
  const std::string synced(700, 's');
  ASSERT_TRUE(append(*file, synced).ok());
  ASSERT_TRUE(sync(*file).ok());
  ASSERT_TRUE(storage::sync_directory(*disk_, "/d").ok());
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(append(*file, std::string(3'000, static_cast<char>('1' + i))).ok());
  std::set<std::string> kinds;
  after_cuts([&](SimulatedDisk& disk) {
    const std::string bytes = disk.files_below("/d").at("a");
    EXPECT_EQ(bytes.substr(0, synced.size()), synced);
    EXPECT_LE(bytes.size(), synced.size() + 12'000);
    const std::string tail = bytes.substr(synced.size());
    const std::string all = disk_->files_below("/d").at("a").substr(synced.size());
    if (tail.empty()) {
      kinds.insert("nothing");
    } else if (tail == all) {
      kinds.insert("all");
    } else if (all.starts_with(tail)) {
      kinds.insert("prefix");
    } else if (tail.find_first_not_of('\0') == std::string::npos) {
      kinds.insert("zeros");
    } else if (tail.find_first_not_of(std::string("\0001234", 5)) == std::string::npos) {
      kinds.insert("holes");
    } else {
      kinds.insert("garbage");
    }
    return "";
  });
  EXPECT_EQ(kinds, (std::set<std::string>{"nothing", "all", "prefix", "zeros", "holes", "garbage"}));
}

TEST_F(SimulatedDiskTest, TearsAnOverwriteOnlyWhereItWrote) {
  disk_->put_file("/d/HEAD", std::string(12'288, 'o'));
  std::unique_ptr<rocksdb::FSRandomRWFile> file;
  ASSERT_TRUE(disk_->NewRandomRWFile("/d/HEAD", {}, &file, nullptr).ok());
  ASSERT_TRUE(file->Write(4'096, std::string(1'024, 'n'), {}, nullptr).ok());
  const std::set<std::string> seen = after_cuts([](SimulatedDisk& disk) {
    const std::string bytes = disk.files_below("/d").at("HEAD");
    EXPECT_EQ(bytes.size(), 12'288U);
    EXPECT_EQ(bytes.substr(0, 4'096) + bytes.substr(5'120), std::string(11'264, 'o'));
    return bytes.substr(4'096, 1'024);
  });
  EXPECT_EQ(seen.count(std::string(1'024, 'o')), 1U);
  EXPECT_EQ(seen.count(std::string(1'024, 'n')), 1U);
  EXPECT_EQ(seen.count(std::string(512, 'o') + std::string(512, 'n')), 1U) << "the sectors come in any order";
}

TEST_F(SimulatedDiskTest, NeverBringsBackWhatAFailedSyncGaveUp) {
  const auto file = create("/d/a");
  ASSERT_TRUE(storage::sync_directory(*disk_, "/d").ok());
  ASSERT_TRUE(append(*file, "1").ok());
  disk_->set_hook([](const SimulatedDisk::Call& call) {
    return SimulatedDisk::Fault{call.operation == Operation::kSync ? IOStatus::IOError("injected") : IOStatus::OK(), 0};
  });
  ASSERT_FALSE(sync(*file).ok());
  disk_->set_hook({});
  ASSERT_TRUE(append(*file, "2").ok());
  ASSERT_TRUE(sync(*file).ok());
  EXPECT_EQ(*storage::read_file(*disk_, "/d/a", 100), "12") << "it can be read until the power goes";
  EXPECT_EQ(names_after_cuts().count("a=" + std::string("\0002", 2) + ' '), 1U);
}

TEST_F(SimulatedDiskTest, WritesAPartOfAWriteThatFailsSo) {
  const auto file = create("/d/a");
  disk_->set_hook([](const SimulatedDisk::Call&) { return SimulatedDisk::Fault{IOStatus::NoSpace(), 3}; });
  EXPECT_TRUE(append(*file, "abcdef").IsNoSpace());
  disk_->set_hook({});
  EXPECT_EQ(*storage::read_file(*disk_, "/d/a", 100), "abc");
}

TEST_F(SimulatedDiskTest, HoldsALockUntilItIsLetGo) {
  auto lock = storage::DirectoryLock::take(disk_, "/d/LOCK");
  ASSERT_TRUE(lock.ok());
  EXPECT_TRUE(absl::IsAborted(storage::DirectoryLock::take(disk_, "/d/LOCK").status()));
  { const storage::DirectoryLock let_go = *std::move(lock); }
  EXPECT_TRUE(storage::DirectoryLock::take(disk_, "/d/LOCK").ok());
}

TEST_F(SimulatedDiskTest, IsTheSameAfterACutWithTheSameSeed) {
  const auto file = create("/d/a");
  ASSERT_TRUE(append(*file, std::string(5'000, 'x')).ok());
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    std::mt19937_64 one(seed), two(seed);
    EXPECT_EQ(disk_->after_power_cut(one)->files_below("/d"), disk_->copy()->after_power_cut(two)->files_below("/d"));
  }
}

TEST_F(SimulatedDiskTest, HasADigestOfEveryNameAndByte) {
  std::set<Digest> seen{disk_->digest()};
  const auto is_new = [&] { return seen.insert(disk_->digest()).second; };
  ASSERT_TRUE(storage::create_directory(*disk_, "/d/e").ok());
  EXPECT_TRUE(is_new());
  const auto file = create("/d/a");
  EXPECT_TRUE(is_new());
  ASSERT_TRUE(append(*file, "x").ok());
  EXPECT_TRUE(is_new());
  ASSERT_TRUE(storage::rename_file(*disk_, "/d/a", "/d/e/a").ok());
  EXPECT_TRUE(is_new());
  ASSERT_TRUE(sync(*file).ok());
  EXPECT_FALSE(is_new()) << "what is read is the same";
  EXPECT_EQ(disk_->copy()->digest(), disk_->digest());
}

}  // namespace
}  // namespace tensorforge::crashtest
