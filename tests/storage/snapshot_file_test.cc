// The container of snapshots: what was written is read, whatever else is there is refused, and a crash leaves the whole
// file or none.
#include "storage/snapshot_file.h"

#include <algorithm>
#include <bit>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "crashtest/simulated_disk.h"
#include "storage/bytes.h"
#include "storage/crc32c.h"
#include "storage/files.h"
#include "tests/storage/log_fixture.h"

namespace tensorforge::storage {
namespace {

using rocksdb::IOStatus;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr LogId kLog{7, 8, 9};

LogPoint point_at(Sequence sequence) {
  LogPoint point{sequence, {}};
  for (Sequence i = 1; i <= sequence; ++i) point.frontier.append(record_text(i));
  return point;
}

class SnapshotFile : public testing::Test {
 protected:
  absl::Status write(Sequence sequence, const std::vector<std::string>& pages) {
    return write(store_, sequence, pages);
  }
  static absl::Status write(const SnapshotStore& store, Sequence sequence, const std::vector<std::string>& pages) {
    const Result<std::unique_ptr<SnapshotWriter>> writer = store.create({kLog, 0xabcd, point_at(sequence)});
    if (!writer.ok()) return writer.status();
    for (const std::string& page : pages) {
      if (absl::Status status = (*writer)->add(page); !status.ok()) return status;
    }
    return (*writer)->finish().status();
  }
  static Result<std::vector<std::string>> read(SnapshotReader& reader) {
    std::vector<std::string> pages;
    for (;;) {
      const Result<std::optional<std::string_view>> page = reader.next();
      if (!page.ok()) return page.status();
      if (!*page) return pages;
      pages.emplace_back(**page);
    }
  }
  Result<std::vector<std::string>> read(Sequence sequence) { return read(store_, sequence); }
  static Result<std::vector<std::string>> read(const SnapshotStore& store, Sequence sequence) {
    const Result<std::unique_ptr<SnapshotReader>> reader = store.open(sequence);
    if (!reader.ok()) return reader.status();
    return read(**reader);
  }
  std::filesystem::path file(Sequence sequence) const { return store_.path(sequence); }
  /// Written with these bytes in place of its own.
  absl::Status read_as(const std::string& bytes) {
    write_bytes(file(5), bytes);
    return read(5).status();
  }

  const TemporaryDirectory directory_;
  const SnapshotStore store_{nullptr, directory_.path().string()};
  const std::vector<std::string> pages_{"first", std::string(3'000, 'x'), "3"};
};

TEST_F(SnapshotFile, GivesBackWhatWasWritten) {
  for (const Sequence sequence : {1, 2, 3, 255, 256, 1000}) {
    ASSERT_TRUE(write(sequence, pages_).ok());
    const auto reader = store_.open(sequence);
    ASSERT_TRUE(reader.ok()) << reader.status();
    const SnapshotHead& head = (*reader)->head();
    const LogPoint point = point_at(sequence);
    EXPECT_EQ(head.log_id, kLog);
    EXPECT_EQ(head.incarnation, 0xabcdU);
    EXPECT_EQ(head.at.sequence(), sequence);
    EXPECT_EQ(head.at.chunk_number, point.chunk_number);
    EXPECT_EQ(head.at.frontier.root(), point.frontier.root());
    EXPECT_EQ(read(**reader).value(), pages_);
  }
  EXPECT_THAT(store_.list().value(), ElementsAre(1, 2, 3, 255, 256, 1000));
}

TEST_F(SnapshotFile, MayBeEmptyOrOfTheLargestPages) {
  ASSERT_TRUE(write(5, {}).ok());
  EXPECT_EQ(read(5).value().size(), 0U);
  const std::vector<std::string> large(3, std::string(kMaxSnapshotPageBytes, 'y'));
  ASSERT_TRUE(write(6, large).ok());
  EXPECT_EQ(read(6).value(), large);
}

TEST_F(SnapshotFile, IsRefusedWhenItIsTruncatedAnywhere) {
  ASSERT_TRUE(write(5, pages_).ok());
  const std::string whole = read_bytes(file(5));
  for (std::size_t size = 0; size < whole.size(); size += size < kSnapshotHeadBytes - 1 ? 97 : 1) {
    EXPECT_EQ(read_as(whole.substr(0, size)).code(), absl::StatusCode::kDataLoss) << size << " bytes";
  }
  EXPECT_EQ(read_as(whole + "x").code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(read_as(whole).ok());
}

TEST_F(SnapshotFile, IsRefusedWithAnyBitFlipped) {
  ASSERT_TRUE(write(5, {"one page"}).ok());
  std::string bytes = read_bytes(file(5));
  for (std::size_t i = 0; i < bytes.size(); i += i < kSnapshotHeadBytes ? 3 : 1) {
    bytes[i] = static_cast<char>(bytes[i] ^ (1 << (i % 8)));
    EXPECT_EQ(read_as(bytes).code(), absl::StatusCode::kDataLoss) << "byte " << i;
    bytes[i] = static_cast<char>(bytes[i] ^ (1 << (i % 8)));
  }
}

TEST_F(SnapshotFile, IsRefusedWithPagesMissingDoubledSwappedOrOfAnother) {
  ASSERT_TRUE(write(5, {"page a", "page b", "page c"}).ok());
  const std::string whole = read_bytes(file(5));
  const std::string head = whole.substr(0, kSnapshotHeadBytes);
  constexpr std::size_t kPage = kSnapshotPageHeaderBytes + 6;
  const auto page = [&](std::size_t i) { return whole.substr(kSnapshotHeadBytes + i * kPage, kPage); };
  const std::string end = whole.substr(kSnapshotHeadBytes + 3 * kPage);
  ASSERT_TRUE(write(5, {"page a", "page B", "page c"}).ok());
  const std::string other = read_bytes(file(5)).substr(kSnapshotHeadBytes + kPage, kPage);

  ASSERT_TRUE(read_as(head + page(0) + page(1) + page(2) + end).ok());
  for (const std::string& bytes :
       {head + page(0) + page(2) + end, head + page(0) + page(1) + end, head + end, page(0) + page(1) + page(2) + end,
        head + page(0) + page(0) + page(1) + page(2) + end, head + page(0) + page(2) + page(1) + end,
        head + page(0) + other + page(2) + end, head + page(0) + page(1) + page(2) + end + end}) {
    EXPECT_EQ(read_as(bytes).code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(SnapshotFile, TakesNoMoreMemoryThanAPageForALengthThatLies) {
  ASSERT_TRUE(write(5, {"page"}).ok());
  std::string bytes = read_bytes(file(5));
  char* const length = &bytes[kSnapshotHeadBytes + 8];
  for (const std::uint32_t lie : {0U, 3U, 5U, 1U << 20U, (1U << 20U) + 1, 0xffffffffU}) {
    put_little(length, lie);
    // With a checksum that fits, as only malice makes it.
    const std::string_view page = std::string_view(bytes).substr(kSnapshotHeadBytes, kSnapshotPageHeaderBytes - 4);
    put_little(&bytes[kSnapshotHeadBytes + 12], crc32c(page));
    EXPECT_EQ(read_as(bytes).code(), absl::StatusCode::kDataLoss) << lie;
  }
}

TEST_F(SnapshotFile, OfANewerFormatIsNotDamaged) {
  ASSERT_TRUE(write(5, pages_).ok());
  std::string bytes = read_bytes(file(5));
  put_little(&bytes[4], std::uint32_t{2});
  put_little(&bytes[kSnapshotHeadBytes - 4], crc32c(std::string_view(bytes).substr(0, kSnapshotHeadBytes - 4)));
  const absl::Status status = read_as(bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("newer version"));
}

TEST_F(SnapshotFile, UnderAnotherNameIsRefused) {
  ASSERT_TRUE(write(5, pages_).ok());
  std::filesystem::rename(file(5), file(6));
  EXPECT_EQ(read(6).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(read(5).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SnapshotFile, IsWholeOrNotThereAfterAFailureOfEachCall) {
  using crashtest::SimulatedDisk;
  const auto before = std::make_shared<SimulatedDisk>();
  ASSERT_TRUE(before->CreateDir("/data", {}, nullptr).ok());
  ASSERT_TRUE(sync_directory(*before, "/").ok());
  ASSERT_TRUE(write({before, "/data"}, 4, {"the one before"}).ok());
  std::size_t calls = 0;
  for (std::size_t failing = 1;; ++failing) {
    SCOPED_TRACE(testing::Message() << "call " << failing);
    const std::shared_ptr<SimulatedDisk> disk = before->copy();
    calls = 0;
    disk->set_hook([&](const SimulatedDisk::Call&) {
      return ++calls < failing ? SimulatedDisk::Fault{}
                               : SimulatedDisk::Fault{IOStatus::IOError("the disk is gone"), 0};
    });
    const absl::Status written = write({disk, "/data"}, 5, pages_);
    disk->set_hook({});
    const bool failed = calls >= failing;
    EXPECT_EQ(written.code(), failed ? absl::StatusCode::kUnavailable : absl::StatusCode::kOk);
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
      std::mt19937_64 random(seed);
      const SnapshotStore found{disk->after_power_cut(random), "/data"};
      const Result<std::vector<std::string>> pages = read(found, 5);
      if (pages.ok()) {
        EXPECT_EQ(*pages, pages_);
      } else {
        EXPECT_TRUE(failed) << "it was written";
        EXPECT_EQ(pages.status().code(), absl::StatusCode::kNotFound);
      }
      EXPECT_EQ(read(found, 4).value(), std::vector<std::string>{"the one before"});
    }
    if (!failed) break;
  }
  EXPECT_GE(calls, 10U);  // head, 3 pages of two writes each, end, sync, rename, directory sync
}

TEST_F(SnapshotFile, LeftUnderWayGoesWithTheNextOne) {
  ASSERT_TRUE(write(5, pages_).ok());
  write_bytes(directory_.path() / "snapshots/9.new", "half");
  ASSERT_TRUE(store_.prune().ok());
  EXPECT_FALSE(std::filesystem::exists(directory_.path() / "snapshots/9.new"));
  EXPECT_THAT(store_.list().value(), ElementsAre(5));
}

TEST_F(SnapshotFile, OtherFilesInTheDirectoryAreNobodysBusiness) {
  ASSERT_TRUE(write(5, pages_).ok());
  for (const char* name : {"05", "5x", "readme", "-5", "x.new"}) {
    write_bytes(directory_.path() / "snapshots" / name, "mine");
  }
  EXPECT_THAT(store_.list().value(), ElementsAre(5));
  ASSERT_TRUE(store_.prune().ok());
  EXPECT_TRUE(std::filesystem::exists(directory_.path() / "snapshots/x.new"));
}

TEST(Superseded, KeepsTheLastThreeAndOnePerPowerOfTwo) {
  EXPECT_THAT(superseded({}), ElementsAre());
  EXPECT_THAT(superseded({10, 20, 30}), ElementsAre());
  // 1 to 8 behind 9, of which 6, 5 and 4 are no power's oldest.
  EXPECT_THAT(superseded({1, 2, 3, 4, 5, 6, 7, 8, 9}), ElementsAre(3, 4, 5));
}

TEST(Superseded, NeverLosesThePastHoweverManySnapshotsThereWere) {
  for (const Sequence interval : {1ULL, 7ULL, 65'536ULL, 1'000'003ULL}) {
    SCOPED_TRACE(testing::Message() << "every " << interval);
    std::vector<Sequence> kept;
    for (Sequence i = 1; i <= 3'000; ++i) {
      kept.push_back(i * interval);
      for (const Sequence gone : superseded(kept)) std::erase(kept, gone);
      ASSERT_TRUE(superseded(kept).empty());
      ASSERT_EQ(kept.back(), i * interval);
      ASSERT_EQ(kept[kept.size() - std::min<std::size_t>(i, 3)], (i - std::min<Sequence>(i, 3) + 1) * interval);
      ASSERT_LE(kept.size(), 3U + static_cast<std::size_t>(std::bit_width(i)));
      // For every distance there is one at most twice as far back, and at least half as far where so many were taken.
      for (Sequence distance = 4; distance < i; distance *= 2) {
        const bool found = std::any_of(kept.begin(), kept.end(), [&](Sequence each) {
          const Sequence behind = i - each / interval;
          return behind >= distance / 2 && behind <= 2 * distance;
        });
        ASSERT_TRUE(found) << i << " snapshots, " << distance << " back";
      }
    }
  }
}

}  // namespace
}  // namespace tensorforge::storage
