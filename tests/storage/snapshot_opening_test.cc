// A start from a snapshot: which one is taken, what of the log is read, and that a snapshot can never make a good log
// bad or a bad one good.
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/file_system.h>
#include <rocksdb/write_batch.h>

#include "storage/bytes.h"
#include "storage/chunk.h"
#include "storage/data_directory.h"
#include "storage/database.h"
#include "storage/head.h"
#include "storage/snapshot_file.h"
#include "tests/storage/log_fixture.h"

namespace tensorforge::storage {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr Sequence kInTable = 10, kEnd = 30;

/// Those in the table are so large that it has several blocks.
std::size_t size_of(Sequence sequence) { return sequence <= kInTable ? 3'000 : 20; }
std::string record_at(Sequence sequence) { return record_text(sequence, size_of(sequence)); }

class SnapshotOpening : public testing::Test {
 protected:
  /// A log of 30 records, a chunk each: the first 10 in a table, the others in the write-ahead log.
  SnapshotOpening() {
    for (const std::size_t records : {kInTable, kEnd - kInTable}) {
      Served served(plain());
      EXPECT_TRUE(served.append_each(records, size_of(served.end().sequence + 1)).ok());
      log_id_ = served.journal().log_id();
      EXPECT_TRUE(served.journal().close().ok());
    }
  }

  OpenOptions plain() const { return {data_.string(), Ack::kAnchor, false, nullptr}; }
  /// Notes which snapshots are offered, and takes those that read well, and the records behind.
  OpenOptions from_snapshot() {
    OpenOptions options = plain();
    options.take_verified = [this](Sequence first, std::span<const std::string_view> records) {
      if (!taken_.empty() && taken_.rbegin()->first + 1 != first) taken_.clear();
      EXPECT_TRUE(!taken_.empty() || first == 1 || first == loaded_ + 1);
      for (const std::string_view record : records) taken_.emplace(first++, record);
      return true;
    };
    options.load_snapshot = [this](SnapshotReader& reader) -> absl::Status {
      offered_.push_back(reader.head().at.sequence());
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the check is far ahead meanwhile
      loaded_ = offered_.back();
      for (;;) {
        const auto page = reader.next();
        if (!page.ok()) return page.status();
        if (!*page) return absl::OkStatus();
      }
    };
    return options;
  }
  static LogPoint point_at(Sequence sequence) {
    LogPoint point{sequence, {}};
    for (Sequence i = 1; i <= sequence; ++i) point.frontier.append(record_at(i));
    return point;
  }
  void make_snapshot(const LogPoint& at, const LogId& log_id) const {
    const auto writer = store_.create({log_id, 7, at});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->add("the state").ok());
    ASSERT_TRUE((*writer)->finish().ok());
  }
  void make_snapshot(Sequence sequence) const { make_snapshot(point_at(sequence), log_id_); }

  /// Opens and serves from the snapshot of that sequence; 0: from none.
  void expect_served_from(Sequence sequence) {
    offered_.clear();
    taken_.clear();
    Served served(from_snapshot());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    std::map<Sequence, std::string> behind;
    for (Sequence i = sequence + 1; i <= kEnd; ++i) behind.emplace(i, record_at(i));
    EXPECT_EQ(taken_, behind);
    EXPECT_EQ(served.opened().snapshot.sequence(), sequence);
    EXPECT_EQ(served.end().sequence, kEnd);
    ASSERT_TRUE(served.append_each(1).ok());
    EXPECT_TRUE(served.journal().verify().ok()) << "the tree goes on from the right place";
  }
  void expect_refused(const std::string& message, int code = 2) {
    const auto before = picture(data_);
    const absl::Status status = open_data_directory(from_snapshot()).status();
    EXPECT_EQ(exit_code(status), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_EQ(picture(data_), before);
  }
  /// Of the first chunk in the table.
  void damage_table() const {
    for (const fs::path& table : files_like(data_ / "db", ".sst")) {
      const std::size_t at = read_bytes(table).find("TFCK");
      if (at != std::string::npos) return flip_bit(table, at + 40);
    }
    FAIL() << "no table holds a chunk";
  }
  /// Of the last chunk, with all of the log in tables.
  void damage_last_chunk() const {
    { ASSERT_TRUE(open_data_directory(plain()).ok()); }  // moves what the write-ahead log holds into one
    const fs::path table = files_like(data_ / "db", ".sst").back();
    const std::size_t at = read_bytes(table).rfind("TFCK");
    ASSERT_NE(at, std::string::npos);
    flip_bit(table, at + 40);
  }
  /// One record more, in a chunk as a newer version might write it. Returns where the log ends then.
  LogPoint append_newer_chunk() const {
    rocksdb::FileSystem& files = *rocksdb::FileSystem::Default();
    const Anchor anchor = read_head(files, data_ / "HEAD").value().anchor;
    LogPoint end = point_at(kEnd);
    EncodedChunk chunk = encode_group(make_group(anchor.head, 1), end).at(0);
    put_little(&chunk.value[4], std::uint32_t{99});
    chunk.value = with_valid_checksum(chunk.value);

    const auto database = Database::open(rocksdb::FileSystem::Default(), data_ / "db", nullptr).value();
    rocksdb::WriteBatch batch;
    put_chunk(batch, *database, chunk);
    EXPECT_TRUE(database->db().Write(synced_write(), &batch).ok());
    EXPECT_TRUE(database->close().ok());
    const auto head = HeadWriter::open(files, data_ / "HEAD", anchor).value();
    EXPECT_TRUE(head->write({end.sequence(), end.frontier.root(), anchor.head.incarnation}).ok());
    return end;
  }
  void damage_wal(Sequence sequence) const {
    const fs::path wal = files_like(data_ / "db", ".log").back();
    const std::size_t at = read_bytes(wal).find(record_text(sequence));
    ASSERT_NE(at, std::string::npos);
    flip_bit(wal, at);
  }

  const TemporaryDirectory directory_;
  const fs::path data_ = directory_.path() / "data";
  const SnapshotStore store_{nullptr, data_.string()};
  LogId log_id_{};
  std::vector<Sequence> offered_;
  Sequence loaded_{};
  std::map<Sequence, std::string> taken_;
};

TEST_F(SnapshotOpening, TakesTheNewest) {
  make_snapshot(12);
  make_snapshot(25);
  expect_served_from(25);
  EXPECT_THAT(offered_, ElementsAre(25));
}

TEST_F(SnapshotOpening, TakesOneAtTheVeryEnd) {
  make_snapshot(kEnd);
  expect_served_from(kEnd);
}

TEST_F(SnapshotOpening, DoesNotReadWhatLiesBefore) {
  make_snapshot(25);
  damage_table();
  {
    Served served(from_snapshot());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    EXPECT_EQ(served.opened().snapshot.sequence(), 25U);
    LogPoint from_start;
    Sequence seen = 0;
    const absl::Status checked = served.journal().check(from_start, [&](std::span<const std::string_view> records) {
      seen += records.size();
      return true;
    });
    EXPECT_EQ(checked.code(), absl::StatusCode::kDataLoss) << "whoever serves finds it";
    EXPECT_EQ(seen, from_start.sequence());
    EXPECT_LT(seen, kInTable);
    ASSERT_TRUE(served.journal().close().ok());
  }
  EXPECT_EQ(exit_code(open_data_directory(plain()).status()), 2) << "without a snapshot it is read at once";
}

TEST_F(SnapshotOpening, FallsBackToAnOlderOneAndThenToTheLogAlone) {
  make_snapshot(12);
  make_snapshot(25);
  flip_bit(store_.path(25), kSnapshotHeadBytes + 20);
  expect_served_from(12);
  EXPECT_THAT(offered_, ElementsAre(25, 12));
}

TEST_F(SnapshotOpening, GoesWithoutOneWhereNoneIsWhole) {
  make_snapshot(12);
  make_snapshot(25);
  flip_bit(store_.path(25), kSnapshotHeadBytes + 20);
  flip_bit(store_.path(12), 8);
  expect_served_from(0);
  EXPECT_THAT(offered_, ElementsAre(25)) << "one without a head is not even offered";
}

TEST_F(SnapshotOpening, PassesByOneBeyondTheAnchor) {
  const std::string head = read_bytes(data_ / "HEAD");
  {
    Served served(plain());
    ASSERT_TRUE(served.append_each(5).ok());
    ASSERT_TRUE(served.journal().close().ok());
  }
  make_snapshot(12);
  make_snapshot(kEnd + 3);
  write_bytes(data_ / "HEAD", head);
  Served served(from_snapshot());
  ASSERT_TRUE(served.opening().ok()) << served.opening();
  EXPECT_EQ(served.opened().snapshot.sequence(), 12U);
  EXPECT_THAT(offered_, ElementsAre(12));
}

TEST_F(SnapshotOpening, PassesByOneOfAnotherLog) {
  make_snapshot(12);
  make_snapshot(point_at(25), LogId{9, 9});
  expect_served_from(12);
}

TEST_F(SnapshotOpening, BelievesTheLogAndNotTheTreeOfASnapshot) {
  LogPoint foreign{25, {}};
  for (Sequence i = 1; i <= 25; ++i) foreign.frontier.append("another history");
  make_snapshot(foreign, log_id_);
  expect_served_from(0);
}

TEST_F(SnapshotOpening, BelievesTheAnchorAndNotTheTreeOfASnapshotAtTheEnd) {
  LogPoint foreign{kEnd, {}};
  for (Sequence i = 1; i <= kEnd; ++i) foreign.frontier.append("another history");
  make_snapshot(foreign, log_id_);
  expect_served_from(0);
}

TEST_F(SnapshotOpening, BelievesTheLogAndNotTheChunkNumberOfASnapshot) {
  LogPoint wrong = point_at(25);
  wrong.chunk_number = 20;
  make_snapshot(wrong, log_id_);
  expect_served_from(0);
}

TEST_F(SnapshotOpening, IsRefusedForALossAtTheEndOfTheSnapshot) {
  make_snapshot(kEnd);
  damage_last_chunk();
  expect_refused("30 are missing");
}

TEST_F(SnapshotOpening, IsRefusedForANewerChunkAtTheEndOfTheSnapshot) {
  make_snapshot(append_newer_chunk(), log_id_);
  expect_refused("format 99, this program knows 1 and 2: written by a newer version", 1);
}

TEST_F(SnapshotOpening, IsRefusedForANewerChunkBehindTheSnapshot) {
  make_snapshot(25);
  append_newer_chunk();
  expect_refused("format 99, this program knows 1 and 2: written by a newer version", 1);
}

TEST_F(SnapshotOpening, IsRefusedForALossBehindTheSnapshot) {
  make_snapshot(12);
  damage_wal(20);
  expect_refused("acknowledged events 20..30 are missing");
}

TEST_F(SnapshotOpening, AfterAnAcceptedLossGoesOnFromASnapshotBeforeIt) {
  make_snapshot(12);
  make_snapshot(25);
  damage_wal(20);
  OpenOptions accepting = from_snapshot();
  accepting.accept_loss = true;
  {
    Served served(accepting);
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    EXPECT_EQ(served.opened().snapshot.sequence(), 0U) << "of this start all is read";
    ASSERT_TRUE(served.append_each(3).ok());
    ASSERT_TRUE(served.journal().close().ok());
  }
  EXPECT_THAT(store_.list().value(), ElementsAre(12));
  Served served(from_snapshot());
  ASSERT_TRUE(served.opening().ok()) << served.opening();
  EXPECT_EQ(served.opened().snapshot.sequence(), 12U);
}

TEST_F(SnapshotOpening, AcceptsALossAtTheEndOfTheSnapshot) {
  make_snapshot(kEnd);
  damage_last_chunk();
  OpenOptions accepting = from_snapshot();
  accepting.accept_loss = true;
  Served served(accepting);
  ASSERT_TRUE(served.opening().ok()) << served.opening();
  EXPECT_EQ(served.opened().snapshot.sequence(), 0U);
  EXPECT_EQ(served.end().sequence, kInTable) << "what lies in one block is lost together";
  EXPECT_TRUE(served.append_each(1).ok());
}

// ---- what reads the log behind a snapshot

TEST_F(SnapshotOpening, ScansAndChecksFromAnyPlace) {
  Served served(plain());
  for (const Sequence first : {1, 5, 11, 29, 30, 31}) {
    std::vector<std::string> seen;
    ASSERT_TRUE(served.journal()
                    .scan(first,
                          [&](std::span<const std::string_view> records) {
                            seen.insert(seen.end(), records.begin(), records.end());
                            return true;
                          })
                    .ok());
    ASSERT_EQ(seen.size(), kEnd + 1 - first);
    for (Sequence i = first; i <= kEnd; ++i) EXPECT_EQ(seen[i - first], record_at(i));

    LogPoint at = point_at(first - 1);
    Sequence checked = first - 1;
    ASSERT_TRUE(served.journal()
                    .check(at,
                           [&](std::span<const std::string_view> records) {
                             checked += records.size();
                             return checked < kEnd - 1;
                           })
                    .ok());
    EXPECT_EQ(at.sequence(), std::max<Sequence>(checked, first - 1));
    EXPECT_EQ(at.frontier.root(), point_at(at.sequence()).frontier.root());
  }
  LogPoint lie = point_at(12);
  lie.chunk_number = 11;
  EXPECT_FALSE(served.journal().check(lie, [](auto) { return true; }).ok());
}

TEST_F(SnapshotOpening, FindsTheNewestNotedDigest) {
  Served served(plain());
  EXPECT_EQ(served.journal().newest_noted_digest().value().has_value(), false);
  Group group = make_group(served.end(), 2);
  group.noted_digest = "a digest";
  ASSERT_TRUE(served.append(std::move(group)).ok());
  ASSERT_TRUE(served.append_each(3).ok());
  const auto noted = served.journal().newest_noted_digest().value();
  ASSERT_TRUE(noted.has_value());
  EXPECT_EQ(noted->sequence, kEnd + 2);
  EXPECT_EQ(noted->digest, "a digest");
}

}  // namespace
}  // namespace tensorforge::storage
