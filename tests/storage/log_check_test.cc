// The child process that checks a log: what its end says, and what it does not.
#include "storage/log_check.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "storage/chunk.h"
#include "storage/data_directory.h"
#include "tests/storage/log_fixture.h"
#include "tests/storage/read_trap.h"

namespace tensorforge::storage {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr std::size_t kRecords = 30;
constexpr std::size_t kRecordBytes = 1'000;

class LogCheckTest : public testing::Test {
 protected:
  /// A log of kRecords records, in a table of a few blocks with a few chunks each; the first has a note.
  void SetUp() override {
    {
      Served served(options());
      ASSERT_TRUE(served.opening().ok()) << served.opening();
      Group group = make_group(served.end(), 1, kRecordBytes);
      group.notes.push_back({group.first, Salt{5}, "a note"});
      ASSERT_TRUE(served.append(std::move(group)).ok());
      ASSERT_TRUE(served.append_each(kRecords - 1, kRecordBytes).ok());
    }
    // An opening moves what the write-ahead log holds into a table.
    { ASSERT_TRUE(open_data_directory(options()).ok()); }
    for (const fs::path& table : files_like(data_ / "db", ".sst")) {
      const std::string bytes = read_bytes(table);
      std::vector<std::uint64_t> blocks;
      std::size_t end = 0;
      for (std::size_t at = bytes.find("TFCK"); at != std::string::npos; at = bytes.find("TFCK", at + 1)) {
        // Between two chunks of a block there are a key of 16 bytes at most and three short numbers.
        constexpr std::size_t kLargestGapInABlock = 24;
        if (blocks.empty() || at - end > kLargestGapInABlock) blocks.push_back(at);
        end = at + kChunkHeaderBytes + 4 + kRecordBytes;
      }
      if (blocks.empty()) continue;
      table_ = table;
      blocks_ = blocks;
    }
    ASSERT_GE(blocks_.size(), 4U);
  }

  OpenOptions options(bool accept_loss = false) const {
    OpenOptions options;
    options.data_dir = data_;
    options.accept_loss = accept_loss;
    return options;
  }
  /// All that verifies goes into `passed`.
  OpenOptions passing_on_to(std::vector<std::string>& passed) const {
    OpenOptions how = options();
    how.take_verified = [&passed](Sequence first, std::span<const std::string_view> records) {
      EXPECT_EQ(first, passed.size() + 1);
      passed.insert(passed.end(), records.begin(), records.end());
      return true;
    };
    return how;
  }
  absl::Status expect_untouched(const OpenOptions& how) const {
    const auto before = picture(data_);
    absl::Status status = open_data_directory(how).status();
    EXPECT_EQ(picture(data_), before) << status;
    return status;
  }

  TemporaryDirectory directory_;
  const fs::path data_ = directory_.path() / "data";
  fs::path table_;
  std::vector<std::uint64_t> blocks_;  ///< where the first chunk of each block of table_ begins, about
};

TEST_F(LogCheckTest, LosesToACrashOnlyWhatItHadNotVerified) {
  const auto database = bytes_in(data_ / "db");
  Sequence kept = 0;
  {
    const ReadTrap trap(ReadTrap::Kind::kSignal, SIGABRT, table_, blocks_[3]);
    const absl::Status refused = expect_untouched(options());
    EXPECT_EQ(exit_code(refused), 2) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("..30 are missing (signal 6 (Aborted) ended the check"));
    EXPECT_THAT(std::string(refused.message()), HasSubstr("restore from a backup, or --accept-loss"));

    Served served(options(true));
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    kept = served.end().sequence;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("acknowledged events " + std::to_string(kept + 1) + ".."));
    EXPECT_EQ(served.opened().to_start->cause, IncarnationCause::AcceptLoss);
    const std::vector<std::string> records = all_records(served.journal());
    ASSERT_EQ(records.size(), kept);
    for (Sequence i = 1; i <= kept; ++i) EXPECT_EQ(records[i - 1], record_text(i, kRecordBytes));
    EXPECT_EQ(*served.journal().note(1), std::nullopt) << "reading notes might crash too: they stay in lost-N";
    ASSERT_TRUE(served.append_each(1).ok()) << "the log goes on";
  }
  // Three blocks lie before the one that nobody can read.
  EXPECT_GE(kept, 9U);
  EXPECT_LT(kept, kRecords);
  const fs::path lost = data_ / ("lost-" + std::to_string(kept));
  EXPECT_EQ(bytes_in(lost / "db"), database);
  EXPECT_EQ(verify_data_directory(data_)->end.sequence, kept + 1);
}

TEST_F(LogCheckTest, AcceptsNoLossByACrashThatCameBeforeAnyChunk) {
  for (const int signal : {SIGSEGV, SIGBUS, SIGABRT}) {
    const ReadTrap trap(ReadTrap::Kind::kSignal, signal, table_, blocks_[0]);
    for (const bool accept_loss : {false, true}) {
      const absl::Status status = expect_untouched(options(accept_loss));
      EXPECT_EQ(exit_code(status), 2) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("before it had verified any event"));
    }
  }
  EXPECT_EQ(verify_data_directory(data_)->end.sequence, kRecords);
}

TEST_F(LogCheckTest, AcceptsNoLossWhereTheRepairCrashes) {
  fs::remove(data_ / "db" / "CURRENT");
  {
    const ReadTrap trap(ReadTrap::Kind::kSignal, SIGABRT, table_, blocks_[3]);
    const absl::Status status = expect_untouched(options(true));
    EXPECT_EQ(exit_code(status), 2) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("before it had verified any event"));
  }
  EXPECT_EQ(Served(options(true)).end().sequence, kRecords);
}

TEST_F(LogCheckTest, AcceptsNoLossWhereTheRepairFindsThatTheDiskFails) {
  fs::remove(data_ / "db" / "CURRENT");
  {
    const ReadTrap trap(ReadTrap::Kind::kIoError, 0, table_, blocks_[3]);
    const absl::Status status = expect_untouched(options(true));
    EXPECT_EQ(exit_code(status), 3) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("a sector that cannot be read"));
  }
  EXPECT_EQ(Served(options(true)).end().sequence, kRecords);
}

TEST_F(LogCheckTest, TellsHowFarItIs) {
  OpenOptions opening = options();
  std::vector<std::pair<Sequence, Sequence>> told;
  opening.checking = [&](Sequence verified, Sequence end) { told.emplace_back(verified, end); };
  ASSERT_TRUE(open_data_directory(opening).ok());
  ASSERT_FALSE(told.empty()) << "it is told before it waits";
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
  for (const auto& [verified, end] : told) {
    EXPECT_LE(verified, end);
    EXPECT_EQ(end, kRecords);
  }
}

TEST_F(LogCheckTest, TakesItsBeingKilledForNoVerdict) {
  for (const int signal : {SIGKILL, SIGTERM, SIGINT, SIGHUP, SIGXCPU}) {
    const ReadTrap trap(ReadTrap::Kind::kSignal, signal, table_, blocks_[3]);
    for (const bool accept_loss : {false, true}) {
      const absl::Status status = expect_untouched(options(accept_loss));
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("ended the check of the log"));
    }
  }
}

TEST_F(LogCheckTest, TakesAWantOfMemoryForNoVerdict) {
  const ReadTrap trap(ReadTrap::Kind::kNoMemory, 0, table_, blocks_[3]);
  for (const bool accept_loss : {false, true}) {
    const absl::Status status = expect_untouched(options(accept_loss));
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("not enough memory"));
  }
}

TEST_F(LogCheckTest, PassesOnWhatVerifiesWhileItGoesOn) {
  std::vector<std::string> passed;
  const OpenOptions how = passing_on_to(passed);
  {
    const ReadTrap trap(ReadTrap::Kind::kSignal, SIGABRT, table_, blocks_[3]);
    EXPECT_EQ(exit_code(expect_untouched(how)), 2);
  }
  EXPECT_GE(passed.size(), 9U) << "three blocks lie before the one that nobody can read";
  EXPECT_LT(passed.size(), kRecords);
  for (std::size_t i = 0; i < passed.size(); ++i) EXPECT_EQ(passed[i], record_text(i + 1, kRecordBytes));
  passed.clear();
  EXPECT_TRUE(Served(how).opening().ok());
  ASSERT_EQ(passed.size(), kRecords);
  for (std::size_t i = 0; i < kRecords; ++i) EXPECT_EQ(passed[i], record_text(i + 1, kRecordBytes));
}

TEST_F(LogCheckTest, PassesOnAndKeepsWhatIsCompressed) {
  constexpr std::size_t kAlike = 10'000;  // 20 chunks, in blocks of a few
  const std::string alike(500, 'x');
  {
    Served served(options());
    Group group = make_group(served.end(), 0);
    for (std::size_t i = 0; i < kAlike; ++i) group.add({alike});
    ASSERT_TRUE(served.append(std::move(group)).ok());
  }
  std::vector<std::string> passed;
  const OpenOptions how = passing_on_to(passed);
  {
    Served served(how);
    ASSERT_TRUE(served.opening().ok()) << served.opening();
    EXPECT_EQ(all_records(served.journal()), passed);
  }
  ASSERT_EQ(passed.size(), kRecords + kAlike);
  EXPECT_EQ(std::count(passed.begin(), passed.end(), alike), kAlike);
  for (const fs::path& table : files_like(data_ / "db", ".sst")) {
    const std::size_t last = read_bytes(table).rfind("TFCK");
    if (table != table_ && last != std::string::npos) flip_bit(table, last + 40);
  }
  EXPECT_EQ(exit_code(expect_untouched(options())), 2);
  Served served(options(true));
  ASSERT_TRUE(served.opening().ok()) << served.opening();
  const std::vector<std::string> kept = all_records(served.journal());
  ASSERT_GT(kept.size(), kRecords + kAlike / 2);
  ASSERT_LT(kept.size(), kRecords + kAlike);
  passed.resize(kept.size());
  EXPECT_EQ(kept, passed);
}

TEST_F(LogCheckTest, ChecksAllOfItWhereNobodyWantsMore) {
  { EXPECT_TRUE(Served(options()).append(make_group({kRecords, {}, 0}, 100, 60'000)).ok()); }  // more than a pipe holds
  std::size_t asked = 0;
  OpenOptions how = options();
  how.take_verified = [&](Sequence, std::span<const std::string_view>) { return ++asked < 3; };
  Served served(how);
  ASSERT_TRUE(served.opening().ok()) << served.opening();
  EXPECT_EQ(served.end().sequence, kRecords + 100);
  EXPECT_EQ(asked, 3U);
}

TEST_F(LogCheckTest, PassesOnNothingWhereALossIsAccepted) {
  OpenOptions how = options(true);
  how.take_verified = [](Sequence, std::span<const std::string_view>) {
    ADD_FAILURE();
    return false;
  };
  EXPECT_TRUE(Served(how).opening().ok());
}

TEST_F(LogCheckTest, IsCancelledWhileItRuns) {
  const ReadTrap trap(ReadTrap::Kind::kHang, 0, table_, blocks_[3]);
  OpenOptions how = options(true);
  int asked = 0;
  how.cancelled = [&] { return ++asked == 3; };
  const absl::Status status = expect_untouched(how);
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "the child is gone";
  EXPECT_EQ(errno, ECHILD);
}

TEST_F(LogCheckTest, LooksAtNothingBehindTheLastChunkThatItIsAskedFor) {
  const Result<LogVerified> whole = verify_data_directory(data_);
  ASSERT_TRUE(whole.ok()) << whole.status();
  LogCheck check;
  check.database = data_ / "db";
  check.anchor = whole->end;
  check.last_chunk = 7;
  const LogVerdict verdict = check_log(rocksdb::FileSystem::Default(), check);
  EXPECT_EQ(verdict.end.chunk_number, 7U);
  EXPECT_EQ(verdict.end.sequence(), 7U);
  EXPECT_EQ(verdict.notes, 0U);
  EXPECT_THAT(std::string(verdict.problem.message()), HasSubstr("acknowledged events 8..30 are missing"));
}

}  // namespace
}  // namespace tensorforge::storage
