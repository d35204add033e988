#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
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
#include "storage/log_check.h"
#include "tests/storage/log_fixture.h"

namespace tensorforge::storage {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr std::size_t kAcknowledged = 30;

class OpeningTest : public testing::Test {
 protected:
  OpenOptions options() const { return {data_.string(), Ack::kAnchor, false, nullptr}; }
  OpenOptions accepting_loss() const { return {data_.string(), Ack::kAnchor, true, nullptr}; }

  /// A log of kAcknowledged records that was stopped cleanly: the first 10 in a table, the others in the write-ahead
  /// log.
  void make_log() const {
    for (const std::size_t records : {10U, 20U}) {
      Served served(options());
      ASSERT_TRUE(served.opening().ok()) << served.opening();
      Group group = make_group(served.end(), 1);
      group.notes.push_back({group.first, Salt{5}, "a note"});
      ASSERT_TRUE(served.append(std::move(group)).ok());
      ASSERT_TRUE(served.append_each(records - 1).ok());
      ASSERT_TRUE(served.journal().close().ok());
    }
  }

  void expect_serves(std::size_t records) const {
    Served served(options());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    const std::vector<std::string> all = all_records(served.journal());
    ASSERT_EQ(all.size(), records);
    for (Sequence i = 1; i <= records; ++i) ASSERT_EQ(all[i - 1], record_text(i));
    ASSERT_TRUE(served.append_each(1).ok()) << "and goes on";
    EXPECT_EQ(all_records(served.journal()).size(), records + 1);
  }

  void expect_refused(int code, const std::string& message) const {
    const auto before = picture(data_);
    const absl::Status status = open_data_directory(options()).status();
    EXPECT_EQ(exit_code(status), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_EQ(picture(data_), before) << "it has to be left untouched";
  }

  /// With --accept-loss the log ends there, and has these notes.
  void expect_accepted(Sequence end, const std::vector<Sequence>& noted) const {
    Served served(accepting_loss());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    EXPECT_EQ(served.end().sequence, end);
    for (const Sequence i : noted) EXPECT_EQ((*served.journal().note(i))->bytes, "a note") << i;
  }

  /// In the first place where it stands in a table; it stands in one.
  void damage_table_with(const std::string& text) const {
    std::size_t damaged = 0;
    for (const fs::path& table : files_like(data_ / "db", ".sst")) {
      const std::size_t at = read_bytes(table).find(text);
      if (at == std::string::npos) continue;
      flip_bit(table, at);
      ++damaged;
    }
    ASSERT_EQ(damaged, 1U);
  }

  /// Cuts bytes from the end of the write-ahead log.
  void tear_wal(std::uintmax_t bytes) const {
    const fs::path wal = files_like(data_ / "db", ".log").back();
    ASSERT_GT(fs::file_size(wal), bytes);
    fs::resize_file(wal, fs::file_size(wal) - bytes);
  }

  /// Takes as many, of a log that has zeros behind its end.
  void blank_wal(std::size_t bytes) const {
    const fs::path wal = files_like(data_ / "db", ".log").back();
    std::string all = read_bytes(wal);
    ASSERT_GT(all.size(), bytes);
    all.resize(all.size() - bytes);
    all.append(bytes + 300'000, '\0');
    write_bytes(wal, all);
  }

  /// Runs `change` and puts HEAD back as it was before: what was appended is then beyond the anchor.
  void beyond_anchor(const std::function<void()>& change) const {
    const std::string head = read_bytes(data_ / "HEAD");
    change();
    write_bytes(data_ / "HEAD", head);
  }

  TemporaryDirectory directory_;
  const fs::path data_ = directory_.path() / "data";
};

TEST_F(OpeningTest, MakesAMissingDirectory) { expect_serves(0); }

TEST_F(OpeningTest, TakesADirectoryThatHoldsNothingOfOthers) {
  fs::create_directories(data_ / "lost+found");
  write_bytes(data_ / "LOCK", "");
  write_bytes(data_ / "HEAD.new", "half a HE");
  expect_serves(0);
}

TEST_F(OpeningTest, LeavesOtherPeoplesDirectoriesAlone) {
  const struct {
    const char* name;
    const char* bytes;
    const char* message;
  } cases[] = {
      {"thesis.txt", "words", "\"thesis.txt\""},
      {"HEAD", "ref: refs/heads/main\n", "not a file of this program"},
      {"db", "", "\"db\""},
      {"snapshots", "", "\"snapshots\""},
  };
  for (const auto& [name, bytes, message] : cases) {
    SCOPED_TRACE(name);
    fs::remove_all(data_);
    fs::create_directory(data_);
    write_bytes(data_ / name, bytes);
    expect_refused(1, message);
    EXPECT_FALSE(open_read_only(data_).ok());
    EXPECT_FALSE(fs::exists(data_ / "LOCK"));
  }
}

TEST_F(OpeningTest, RefusesAFileForADirectory) {
  write_bytes(data_, "a file");
  const absl::Status status = open_data_directory(options()).status();
  EXPECT_EQ(exit_code(status), 1) << status;
  EXPECT_EQ(read_bytes(data_), "a file");
}

// A power cut may leave a log that RocksDB had begun to delete, cut anywhere.
TEST_F(OpeningTest, DoesNotReadWhatIsLeftOfADeletedLog) {
  std::string deleted;
  fs::path name;
  {
    Served served(options());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    ASSERT_TRUE(served.append_each(10).ok());
    name = files_like(data_ / "db", ".log").back();
    deleted = read_bytes(name);
    deleted.resize(deleted.find_last_not_of('\0') + 1);  // without the zeros ahead of it
    ASSERT_TRUE(served.journal().close().ok());
  }
  expect_serves(10);
  constexpr std::size_t kPieces = 12;
  for (std::size_t piece = 1; piece <= kPieces; ++piece) {
    ASSERT_FALSE(fs::exists(name)) << "its records are in a table";
    write_bytes(name, deleted.substr(0, deleted.size() * piece / kPieces));
    expect_serves(10 + piece);
  }
}

TEST_F(OpeningTest, RefusesALogWhoseHeadIsGone) {
  make_log();
  fs::remove(data_ / "HEAD");
  expect_refused(1, "its HEAD was lost");
}

TEST_F(OpeningTest, RefusesADirectoryInUse) {
  Served served(options());
  const absl::Status second = open_data_directory(options()).status();
  EXPECT_EQ(exit_code(second), 4) << second;
  EXPECT_TRUE(absl::IsAborted(open_read_only(data_).status()));
  EXPECT_TRUE(absl::IsAborted(verify_data_directory(data_).status()));
  EXPECT_TRUE(served.append_each(1).ok()) << "the first goes on";
}

TEST_F(OpeningTest, RefusesANewerHead) {
  make_log();
  std::string head = read_bytes(data_ / "HEAD");
  put_little(&head[4], std::uint32_t{2});
  write_bytes(data_ / "HEAD", head);
  fs::remove(data_ / "LOCK");
  expect_refused(1, "newer version");
}

TEST_F(OpeningTest, RefusesANewerDatabase) {
  make_log();
  {
    auto database = Database::open(rocksdb::FileSystem::Default(), data_ / "db", nullptr);
    ASSERT_TRUE(database.ok()) << database.status();
    ASSERT_TRUE(
        (*database)->db().Put(synced_write(), (*database)->meta(), "format", std::string("\x02\0\0\0", 4)).ok());
  }
  expect_refused(1, "newer version");
}

// ---- a first start that was interrupted, at each of its steps

class InterruptedFirstStart : public OpeningTest {
 protected:
  void make_head() const {
    fs::create_directory(data_);
    const Anchor anchor{kLogId, {0, MerkleFrontier().root(), 77}, 0, 0};
    ASSERT_TRUE(create_head(*rocksdb::FileSystem::Default(), data_, anchor).ok());
  }
  void make_database() const {
    const auto made =
        Database::create(rocksdb::FileSystem::Default(), data_ / "db", {kLogId, IncarnationCause::FirstStart});
    ASSERT_TRUE(made.ok()) << made.status();
  }
  void expect_begun() const {
    {
      Served served(options());
      ASSERT_TRUE(served.opening().ok()) << served.opening();
      EXPECT_EQ(served.journal().log_id(), kLogId);
      ASSERT_TRUE(served.opened().to_start);
      EXPECT_EQ(served.opened().to_start->cause, IncarnationCause::FirstStart);
      EXPECT_EQ(served.opened().to_start->incarnation, 77U);
    }
  }
  static constexpr LogId kLogId{4, 4, 4};
};

TEST_F(InterruptedFirstStart, GoesOnAfterHead) {
  make_head();
  expect_begun();
  EXPECT_FALSE(fs::exists(data_ / "lost-0"));
  expect_serves(0);
}

TEST_F(InterruptedFirstStart, MovesAHalfMadeDatabaseAside) {
  make_head();
  fs::create_directory(data_ / "db");
  write_bytes(data_ / "db" / "MANIFEST-000001", "half");
  expect_begun();
  EXPECT_EQ(read_bytes(data_ / "lost-0" / "db" / "MANIFEST-000001"), "half");
  expect_serves(0);
}

TEST_F(InterruptedFirstStart, MovesADatabaseWithoutARecordAside) {
  make_head();
  make_database();
  const std::string identity = read_bytes(data_ / "db" / "IDENTITY");
  expect_begun();
  EXPECT_EQ(read_bytes(data_ / "lost-0" / "db" / "IDENTITY"), identity);
  expect_begun();
  EXPECT_TRUE(fs::exists(data_ / "lost-0.2" / "db")) << "nothing is overwritten";
}

TEST_F(InterruptedFirstStart, KeepsADatabaseWithARecord) {
  make_head();
  beyond_anchor([this] {
    Served served(options());
    ASSERT_TRUE(served.append_each(1).ok());
  });
  expect_serves(1);
  EXPECT_FALSE(fs::exists(data_ / "lost-0"));
}

TEST_F(InterruptedFirstStart, KeepsADatabaseWithARecordWhereTheFirstAnchorWasTorn) {
  make_head();
  {
    Served served(options());
    ASSERT_TRUE(served.append_each(1).ok());
  }
  flip_bit(data_ / "HEAD", 8'192 + 48);
  expect_serves(1);
}

TEST_F(InterruptedFirstStart, IsNotWhatALostLogLooksLike) {
  make_head();
  {
    Served served(options());
    ASSERT_TRUE(served.append_each(1).ok());
  }
  flip_bit(data_ / "HEAD", 8'192 + 48);
  fs::remove(data_ / "db" / "CURRENT");
  expect_refused(2, "--accept-loss");
}

// ---- a log that is damaged

TEST_F(OpeningTest, ServesAWholeLog) {
  make_log();
  const auto before = picture(data_);
  const Result<LogVerified> verified = verify_data_directory(data_);
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_EQ(verified->end.sequence, kAcknowledged);
  EXPECT_EQ(verified->chunks, kAcknowledged);
  EXPECT_EQ(verified->bytes, 20 * kAcknowledged);
  EXPECT_EQ(verified->notes, 2U);
  EXPECT_EQ(picture(data_), before) << "verifying writes nothing";
  expect_serves(kAcknowledged);
}

TEST_F(OpeningTest, ReadsAStoppedLogWithoutWriting) {
  make_log();
  const auto before = picture(data_);
  {
    const Result<std::unique_ptr<Log>> log = open_read_only(data_);
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_EQ(all_records(**log).size(), kAcknowledged);
    EXPECT_EQ((*(*log)->note(11))->bytes, "a note");
    EXPECT_EQ((*log)->verify()->end, (*log)->durable_head());
    EXPECT_EQ(exit_code(open_data_directory(options()).status()), 4) << "while it is read, nobody serves it";
  }
  EXPECT_EQ(picture(data_), before);
  fs::remove(data_ / "LOCK");
  EXPECT_TRUE(open_read_only(data_).ok());
  EXPECT_FALSE(fs::exists(data_ / "LOCK")) << "of a copy without LOCK, none is made";
}

TEST_F(OpeningTest, SaysWhereThereIsNoLog) {
  EXPECT_TRUE(absl::IsNotFound(open_read_only(data_).status()));
  EXPECT_TRUE(absl::IsNotFound(verify_data_directory(data_).status()));
  EXPECT_FALSE(fs::exists(data_));
}

TEST_F(OpeningTest, RefusesADatabaseWithoutCurrent) {
  make_log();
  fs::remove(data_ / "db" / "CURRENT");
  expect_refused(2, "acknowledged events 1..30 are missing");
  expect_refused(2, "restore from a backup, or --accept-loss");
}

TEST_F(OpeningTest, RefusesAMissingDatabase) {
  make_log();
  fs::remove_all(data_ / "db");
  expect_refused(2, "acknowledged events 1..30 are missing (db/ is missing)");
}

TEST_F(OpeningTest, RefusesAnEmptyDatabaseInItsPlace) {
  make_log();
  fs::remove_all(data_ / "db");
  const LogId log_id = read_head(*rocksdb::FileSystem::Default(), data_ / "HEAD")->anchor.log_id;
  ASSERT_TRUE(Database::create(rocksdb::FileSystem::Default(), data_ / "db", {log_id, {}}).ok());
  expect_refused(2, "acknowledged events 1..30 are missing");
}

TEST_F(OpeningTest, RefusesAMissingFileOfTheDatabase) {
  make_log();
  for (const char* part : {".sst", ".log", "MANIFEST"}) {
    SCOPED_TRACE(part);
    for (const fs::path& file : files_like(data_ / "db", part)) {
      const fs::path aside = directory_.path() / "aside";
      fs::rename(file, aside);
      const Result<LogVerified> verified = verify_data_directory(data_);
      // A table of a family that needs none of its entries to be whole would be missed by nobody; there is none.
      EXPECT_FALSE(verified.ok()) << file;
      expect_refused(2, "--accept-loss");
      fs::rename(aside, file);
    }
  }
  expect_serves(kAcknowledged);
}

TEST_F(OpeningTest, RefusesALogThatEndsBeforeTheAnchor) {
  make_log();
  tear_wal(5);
  expect_refused(2, "acknowledged events 30..30 are missing");
  expect_refused(2, "restore from a backup, or --accept-loss");
}

TEST_F(OpeningTest, RefusesALogWhoseEndBeforeTheAnchorIsZeros) {
  make_log();
  blank_wal(5);
  expect_refused(2, "acknowledged events 30..30 are missing");
}

TEST_F(OpeningTest, ServesALogWithZerosBehindItsEnd) {
  make_log();
  blank_wal(0);
  expect_serves(kAcknowledged);
}

TEST_F(OpeningTest, ServesTheLogOfAServiceThatDied) {
  make_log();
  const fs::path aside = directory_.path() / "aside";
  std::uintmax_t wal_bytes = 0;
  {
    Served served(options());
    ASSERT_TRUE(served.append_each(40, 1'000).ok());
    fs::copy(data_, aside, fs::copy_options::recursive);
    wal_bytes = fs::file_size(files_like(aside / "db", ".log").back());
  }
  EXPECT_GT(wal_bytes, fs::file_size(files_like(data_ / "db", ".log").back())) << "zeros were ahead of it";
  fs::remove_all(data_);
  fs::rename(aside, data_);
  ASSERT_TRUE(verify_data_directory(data_).ok());
  Served served(options());
  ASSERT_TRUE(served.opening().ok()) << served.opening();
  EXPECT_EQ(served.end().sequence, kAcknowledged + 40);
}

TEST_F(OpeningTest, RefusesAnOlderCopyOfTheDatabase) {
  make_log();
  const fs::path copy = directory_.path() / "copy";
  fs::copy(data_ / "db", copy, fs::copy_options::recursive);
  {
    Served served(options());
    ASSERT_TRUE(served.append_each(5).ok());
  }
  fs::remove_all(data_ / "db");
  fs::rename(copy, data_ / "db");
  expect_refused(2, "acknowledged events 31..35 are missing");
}

TEST_F(OpeningTest, RefusesTheDatabaseOfAnotherLog) {
  make_log();
  const fs::path other = directory_.path() / "other";
  {
    Served served({other.string(), Ack::kAnchor, false, nullptr});
    ASSERT_TRUE(served.append_each(40).ok());
  }
  fs::remove_all(data_ / "db");
  fs::rename(other / "db", data_ / "db");
  expect_refused(2, "different logs");
}

TEST_F(OpeningTest, RefusesALogThatWentAnotherWay) {
  make_log();
  const std::string head = read_bytes(data_ / "HEAD");
  const fs::path copy = directory_.path() / "copy";
  fs::copy(data_, copy, fs::copy_options::recursive);
  {
    Served served(options());
    ASSERT_TRUE(served.append_each(2).ok());
  }
  {
    Served served({copy.string(), Ack::kAnchor, false, nullptr});
    Group group = make_group(served.end(), 0);
    group.add({"something else"});
    ASSERT_TRUE(served.append(std::move(group)).ok());
    ASSERT_TRUE(served.append_each(1).ok());
  }
  fs::remove_all(data_ / "db");
  fs::rename(copy / "db", data_ / "db");
  expect_refused(2, "not the one that was anchored");
}

TEST_F(OpeningTest, KeepsAWholeTailBeyondTheAnchor) {
  make_log();
  beyond_anchor([this] {
    Served served(options());
    ASSERT_TRUE(served.append_each(3).ok());
  });
  EXPECT_EQ(verify_data_directory(data_)->end.sequence, kAcknowledged + 3);
  EXPECT_EQ((*open_read_only(data_))->durable_head().sequence, kAcknowledged + 3);
  EXPECT_EQ(open_data_directory(options())->anchored_before, kAcknowledged);
  expect_serves(kAcknowledged + 3);
}

TEST_F(OpeningTest, CutsATornTailBeyondTheAnchor) {
  make_log();
  beyond_anchor([this] {
    Served served(options());
    ASSERT_TRUE(served.append_each(3).ok());
  });
  tear_wal(7);
  expect_serves(kAcknowledged + 2);
}

TEST_F(OpeningTest, CutsATailBeyondTheAnchorThatEndsInZeros) {
  const auto make_tail = [this](std::size_t groups) {
    fs::remove_all(data_);
    make_log();
    beyond_anchor([&] {
      Served served(options());
      ASSERT_TRUE(served.append_each(groups).ok());
    });
    return fs::file_size(files_like(data_ / "db", ".log").back());
  };
  const std::size_t two = make_tail(2);
  const std::size_t write = make_tail(3) - two;
  const struct {
    std::size_t blank, lost;
  } cases[] = {{7, 1}, {write - 2, 1}, {write, 1}, {write + 7, 2}, {2 * write, 2}};
  for (const auto& [blank, lost] : cases) {
    SCOPED_TRACE(blank);
    make_tail(3);
    blank_wal(blank);
    expect_serves(kAcknowledged + 3 - lost);
  }
}

TEST_F(OpeningTest, StandsOneTornSlotOfHeadAndNotTwo) {
  make_log();
  const Anchor anchor = read_head(*rocksdb::FileSystem::Default(), data_ / "HEAD")->anchor;
  const std::size_t newest = 4'096 * (1 + anchor.counter % 2);
  const std::size_t older = 4'096 * (1 + (anchor.counter + 1) % 2);
  const std::string good = read_bytes(data_ / "HEAD");
  flip_bit(data_ / "HEAD", newest + 100);
  flip_bit(data_ / "HEAD", older + 100);
  expect_refused(2, "HEAD is damaged");
  flip_bit(data_ / "HEAD", newest + 100);
  EXPECT_EQ(open_data_directory(options())->anchored_before, kAcknowledged);
  write_bytes(data_ / "HEAD", good);
  flip_bit(data_ / "HEAD", newest + 100);
  expect_serves(kAcknowledged);
}

TEST_F(OpeningTest, ServesAllOrRefusesWithOneFlippedBitInAnyFile) {
  make_log();
  const fs::path golden = directory_.path() / "golden";
  fs::rename(data_, golden);
  constexpr std::size_t kFlipsPerFile = 7;
  std::size_t served = 0;
  std::size_t refused = 0;
  for (const auto& entry : fs::recursive_directory_iterator(golden)) {
    if (!entry.is_regular_file() || entry.file_size() == 0) continue;
    const fs::path name = fs::relative(entry.path(), golden);
    for (std::size_t i = 0; i < kFlipsPerFile; ++i) {
      const std::uintmax_t offset = entry.file_size() * i / kFlipsPerFile + i % 7 % entry.file_size();
      if (offset >= entry.file_size()) continue;
      SCOPED_TRACE(testing::Message() << name << " bit " << i % 8 << " of byte " << offset);
      fs::remove_all(data_);
      fs::copy(golden, data_, fs::copy_options::recursive);
      flip_bit(data_ / name, offset, static_cast<int>(i % 8));
      const auto before = picture(data_);
      const Result<LogVerified> verified = verify_data_directory(data_);
      ASSERT_EQ(picture(data_), before);
      if (verified.ok()) {
        ++served;
        ASSERT_EQ(verified->end.sequence, kAcknowledged);
        expect_serves(kAcknowledged);
      } else {
        ++refused;
        ASSERT_EQ(exit_code(verified.status()), 2) << verified.status();
        expect_refused(2, "");
      }
    }
  }
  EXPECT_GT(served, 0U);
  EXPECT_GT(refused, 0U);
}

TEST_F(OpeningTest, NamesTheChunkThatCannotBeRead) {
  {
    Served served(options());
    ASSERT_TRUE(served.append_each(kAcknowledged, 1'000).ok());
  }
  // An opening moves what the write-ahead log holds into tables, in blocks of a few chunks.
  { ASSERT_TRUE(open_data_directory(options()).ok()); }
  for (const fs::path& table : files_like(data_ / "db", ".sst")) {
    const std::size_t at = read_bytes(table).find("TFCK");
    if (at == std::string::npos) continue;
    flip_bit(table, at + 20);
    const Result<std::unique_ptr<Log>> log = open_read_only(data_);
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_TRUE((*log)->read(20, 100, 10'000).ok());
    const Result<Records> records = (*log)->read(2, 100, 10'000);
    EXPECT_TRUE(absl::IsDataLoss(records.status())) << records.status();
    EXPECT_THAT(std::string(records.status().message()), HasSubstr("the chunk that holds sequence 2"));
    EXPECT_TRUE(absl::IsDataLoss((*log)->verify().status()));
    return;
  }
  FAIL() << "no table holds a chunk";
}

TEST_F(OpeningTest, FindsAHoleByCount) {
  make_log();
  const auto files = rocksdb::FileSystem::Default();
  const Anchor anchor = read_head(*files, data_ / "HEAD")->anchor;
  LogPoint middle;
  {
    auto database = Database::open(files, data_ / "db", nullptr);
    ASSERT_TRUE(database.ok()) << database.status();
    for (Sequence i = 1; i <= 20; ++i) middle.frontier.append(record_text(i));
    middle.chunk_number = 20;
    const LogCheck check{data_ / "db", anchor.log_id, anchor.head, middle};
    EXPECT_TRUE(check_log(files, check).problem.ok()) << check_log(files, check).problem;
    ASSERT_TRUE((*database)->db().Delete(synced_write(), (*database)->events(), big_endian(7)).ok());
    ASSERT_TRUE((*database)->db().Flush({}, (*database)->events()).ok());
  }
  const LogVerdict from_middle = check_log(files, {data_ / "db", anchor.log_id, anchor.head, middle});
  EXPECT_TRUE(absl::IsDataLoss(from_middle.problem)) << from_middle.problem;
  EXPECT_THAT(std::string(from_middle.problem.message()), HasSubstr("30 chunks"));
  expect_refused(2, "acknowledged events 7..30 are missing");
}

// ---- --accept-loss

TEST_F(OpeningTest, GoesOnWithTheVerifiedPrefixWhereTheLossIsAccepted) {
  make_log();
  fs::create_directory(data_ / "snapshots");
  write_bytes(data_ / "snapshots" / "20", "kept");
  write_bytes(data_ / "snapshots" / "30", "beyond");
  tear_wal(5);
  const std::string old_head = read_bytes(data_ / "HEAD");
  const auto old_database = bytes_in(data_ / "db");
  std::uint32_t before = read_head(*rocksdb::FileSystem::Default(), data_ / "HEAD")->anchor.head.incarnation;
  {
    Served served(accepting_loss());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    EXPECT_EQ(all_records(served.journal()).size(), kAcknowledged - 1);
    EXPECT_EQ((*served.journal().note(11))->bytes, "a note");
    ASSERT_TRUE(served.opened().to_start);
    EXPECT_EQ(served.opened().to_start->cause, IncarnationCause::AcceptLoss);
    EXPECT_NE(served.opened().to_start->incarnation, before);
  }
  const fs::path lost = data_ / "lost-29";
  EXPECT_EQ(bytes_in(lost / "db"), old_database);
  EXPECT_EQ(read_bytes(lost / "HEAD"), old_head);
  EXPECT_EQ(read_bytes(lost / "snapshots" / "30"), "beyond");
  EXPECT_EQ(read_bytes(data_ / "snapshots" / "20"), "kept");
  EXPECT_FALSE(fs::exists(data_ / "snapshots" / "30"));
  {
    Served served(options());
    EXPECT_EQ(served.opened().to_start->cause, IncarnationCause::AcceptLoss) << "until it is recorded";
  }
  expect_serves(kAcknowledged - 1);
}

// RocksDB goes through tables side by side, and begins at none of them where one cannot be read at its beginning.
TEST_F(OpeningTest, LosesNothingBeforeATableThatIsDamagedAtItsBeginning) {
  make_log();
  { ASSERT_TRUE(open_data_directory(options()).ok()); }  // moves what the write-ahead log holds into a table
  damage_table_with(record_text(11));
  expect_refused(2, "acknowledged events 11..30 are missing");
  EXPECT_THAT(std::string(verify_data_directory(data_).status().message()), HasSubstr("events 11..30 are missing"));
  expect_accepted(10, {1});
  expect_serves(10);
}

// Between the tables before and the write-ahead log behind it lie others that are whole.
TEST_F(OpeningTest, NamesWhatIsMissingBehindTheLastTableThatCanBeRead) {
  make_log();
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(Served(options()).append_each(10).ok());
  damage_table_with(record_text(31));
  expect_refused(2, "acknowledged events 31..50 are missing");
}

TEST_F(OpeningTest, AcceptsNoLossWhereNothingIsLost) {
  make_log();
  {
    Served served(accepting_loss());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    EXPECT_FALSE(served.opened().to_start);
  }
  EXPECT_FALSE(fs::exists(data_ / "lost-30"));
  expect_serves(kAcknowledged);
}

TEST_F(OpeningTest, AcceptsTheLossOfAllAndOfHead) {
  make_log();
  const LogId log_id = read_head(*rocksdb::FileSystem::Default(), data_ / "HEAD")->anchor.log_id;
  flip_bit(data_ / "HEAD", 4'096 + 100);
  flip_bit(data_ / "HEAD", 8'192 + 100);
  {
    Served served(accepting_loss());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    EXPECT_EQ(all_records(served.journal()).size(), kAcknowledged) << "only HEAD was damaged";
    EXPECT_EQ(served.journal().log_id(), log_id);
    ASSERT_TRUE(served.append_each(1).ok());
  }
  for (const fs::path& table : files_like(data_ / "db", ".sst")) fs::resize_file(table, 10);
  {
    Served served(accepting_loss());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    EXPECT_EQ(served.end().sequence, 0U);
    EXPECT_EQ(served.journal().log_id(), log_id);
  }
  EXPECT_TRUE(fs::exists(data_ / "lost-0" / "db" / "IDENTITY"));
  EXPECT_FALSE(fs::exists(data_ / "db.repaired"));
}

/// A damage that keeps RocksDB from opening the database, and how many events the rest of it holds.
struct Unopenable {
  const char* name;
  std::size_t left;
  void (*damage)(const fs::path& db);
};
void PrintTo(const Unopenable& damage, std::ostream* out) { *out << damage.name; }

fs::path table_with(const fs::path& db, const std::string& text) {
  for (const fs::path& table : files_like(db, ".sst")) {
    if (read_bytes(table).find(text) != std::string::npos) return table;
  }
  ADD_FAILURE() << "no table holds it";
  return {};
}

class UnopenableDatabase : public OpeningTest, public testing::WithParamInterface<Unopenable> {};

// 40 events: 10 in a table, 20 in another, 10 in the write-ahead log.
TEST_P(UnopenableDatabase, IsRepairedWhereTheLossIsAccepted) {
  make_log();
  {
    Served served(options());
    ASSERT_TRUE(served.append_each(10).ok());
    ASSERT_TRUE(served.journal().close().ok());
  }
  GetParam().damage(data_ / "db");
  expect_refused(2, "acknowledged events 1..40 are missing");
  expect_refused(2, "how many of these events can be repaired is not known");
  const auto before = bytes_in(data_ / "db");
  fs::create_directories(data_ / "db.repaired" / "lost");
  write_bytes(data_ / "db.repaired" / "lost" / "000004.log", "left by a crash");
  {
    Served served(accepting_loss());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    EXPECT_EQ(served.end().sequence, GetParam().left);
    ASSERT_TRUE(served.opened().to_start);
    EXPECT_EQ(served.opened().to_start->cause, IncarnationCause::AcceptLoss);
    EXPECT_EQ((*served.journal().note(1))->bytes, "a note");
  }
  const fs::path lost = data_ / ("lost-" + std::to_string(GetParam().left));
  EXPECT_EQ(bytes_in(lost / "db"), before) << "what was there is kept as it was";
  EXPECT_FALSE(fs::exists(data_ / "db.repaired"));
  expect_serves(GetParam().left);
}

// In the first life of a directory all of them are in the write-ahead log.
TEST_F(OpeningTest, RepairsADatabaseWithoutATableOfEvents) {
  {
    Served served(options());
    Group group = make_group(served.end(), 1);
    group.notes.push_back({group.first, Salt{5}, "a note"});
    ASSERT_TRUE(served.append(std::move(group)).ok());
    ASSERT_TRUE(served.append_each(9).ok());
    for (const fs::path& table : files_like(data_ / "db", ".sst")) {
      EXPECT_EQ(read_bytes(table).find("TFCK"), std::string::npos);
    }
  }
  fs::remove(data_ / "db" / "CURRENT");
  expect_refused(2, "acknowledged events 1..10 are missing");
  expect_accepted(10, {1});
  expect_serves(10);
}

// One family is flushed, and its log stays for the others: RocksDB's repair refuses both of them together.
TEST_F(OpeningTest, RepairsADatabaseOfWhichATableIsInTheWriteAheadLogToo) {
  make_log();
  const auto files = rocksdb::FileSystem::Default();
  const Anchor anchor = read_head(*files, data_ / "HEAD")->anchor;
  LogPoint end{kAcknowledged, {}};
  for (Sequence i = 1; i <= kAcknowledged; ++i) end.frontier.append(record_text(i));
  {
    const auto database = Database::open(files, data_ / "db", nullptr).value();
    for (int i = 0; i < 2; ++i) {
      const Group group = make_group({end.sequence(), {}, anchor.head.incarnation}, 1);
      rocksdb::WriteBatch batch;
      put_chunk(batch, *database, encode_group(group, end).at(0));
      put_note(batch, *database, {end.sequence(), Salt{5}, "a note"});
      ASSERT_TRUE(database->db().Write(synced_write(), &batch).ok());
      ASSERT_TRUE(i == 1 || database->db().Flush({}, database->events()).ok());
    }
  }
  const auto head = HeadWriter::open(*files, data_ / "HEAD", anchor).value();
  ASSERT_TRUE(head->write({end.sequence(), end.frontier.root(), anchor.head.incarnation}).ok());
  fs::remove(data_ / "db" / "CURRENT");
  expect_refused(2, "acknowledged events 1..32 are missing");
  expect_accepted(kAcknowledged + 2, {1, 11, 31, 32});
  expect_serves(kAcknowledged + 2);
}

TEST_F(OpeningTest, RepairsByTablesBeforeALogThatWasLeftOver) {
  make_log();
  const fs::path elsewhere = directory_.path() / "elsewhere";
  fs::copy(data_, elsewhere, fs::copy_options::recursive);
  OpenOptions there = options();
  there.data_dir = elsewhere;
  ASSERT_TRUE(Served(there).append_each(3, 25).ok());
  ASSERT_TRUE(Served(options()).append_each(3).ok());
  { ASSERT_TRUE(open_data_directory(options()).ok()); }  // moves what the write-ahead log holds into a table
  const fs::path left_over = files_like(elsewhere / "db", ".log").back();
  ASSERT_NE(read_bytes(left_over).find(record_text(33, 25)), std::string::npos);
  fs::copy(left_over, data_ / "db" / "000003.log");
  fs::remove(data_ / "db" / "CURRENT");
  { ASSERT_TRUE(Served(accepting_loss()).opening().ok()); }
  expect_serves(33);
}

// Such a database can be opened, and ends where that MANIFEST says.
TEST_F(OpeningTest, FindsTablesThatAnOlderManifestDoesNotName) {
  make_log();
  const fs::path older = directory_.path() / "older";
  fs::create_directory(older);
  for (const fs::path& manifest : files_like(data_ / "db", "MANIFEST")) fs::copy(manifest, older);
  fs::copy(data_ / "db" / "CURRENT", older);
  { ASSERT_TRUE(open_data_directory(options()).ok()); }  // moves what the write-ahead log holds into a table
  fs::copy(older, data_ / "db", fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  expect_refused(2, "acknowledged events 11..30 are missing");
  expect_accepted(kAcknowledged, {11});
  expect_serves(kAcknowledged);
}

INSTANTIATE_TEST_SUITE_P(
    , UnopenableDatabase,
    testing::Values(
        Unopenable{"WithoutCurrent", 40, [](const fs::path& db) { fs::remove(db / "CURRENT"); }},
        Unopenable{"WithoutManifest", 40, [](const fs::path& db) { fs::remove(files_like(db, "MANIFEST").at(0)); }},
        Unopenable{"WithADamagedManifest", 40,
                   [](const fs::path& db) { flip_bit(files_like(db, "MANIFEST").at(0), 200); }},
        Unopenable{"WithoutItsLastTable", 10, [](const fs::path& db) { fs::remove(table_with(db, record_text(11))); }},
        Unopenable{"WithAShortTable", 10,
                   [](const fs::path& db) { fs::resize_file(table_with(db, record_text(11)), 300); }},
        Unopenable{"WithATableWithoutItsFooter", 10,
                   [](const fs::path& db) {
                     const fs::path table = table_with(db, record_text(11));
                     flip_bit(table, fs::file_size(table) - 10);
                   }}),
    [](const auto& one) { return std::string(one.param.name); });

TEST_F(OpeningTest, DoesNotAcceptANewerVersionForALoss) {
  make_log();
  std::string head = read_bytes(data_ / "HEAD");
  put_little(&head[4], std::uint32_t{2});
  write_bytes(data_ / "HEAD", head);
  EXPECT_EQ(exit_code(open_data_directory(accepting_loss()).status()), 1);
  EXPECT_EQ(read_bytes(data_ / "HEAD"), head);
}

TEST_F(OpeningTest, TakesUpAnInterruptedAcceptance) {
  make_log();
  tear_wal(5);
  { ASSERT_TRUE(open_data_directory(accepting_loss()).ok()); }
  // As a crash between the two renames leaves it: the old database is away, the new one not yet in its place.
  fs::rename(data_ / "db", data_ / "db.new");
  fs::rename(data_ / "lost-29" / "HEAD", data_ / "HEAD");
  expect_refused(2, "acknowledged events 1..30 are missing");
  {
    Served served(accepting_loss());
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    EXPECT_EQ(all_records(served.journal()).size(), kAcknowledged - 1);
    EXPECT_EQ(served.opened().to_start->cause, IncarnationCause::AcceptLoss);
  }
  expect_serves(kAcknowledged - 1);
}

TEST_F(OpeningTest, MovesTheRemainsOfAnInterruptedAcceptanceAside) {
  make_log();
  tear_wal(5);
  fs::create_directory(data_ / "db.making");
  write_bytes(data_ / "db.making" / "half", "made");
  { ASSERT_TRUE(open_data_directory(accepting_loss()).ok()); }
  EXPECT_EQ(read_bytes(data_ / "lost-29" / "db.making" / "half"), "made");
  expect_serves(kAcknowledged - 1);
}

}  // namespace
}  // namespace tensorforge::storage
