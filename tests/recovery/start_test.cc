// What a start makes of the directory that it finds, from outside.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <rocksdb/db.h>
#include <rocksdb/file_system.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/recover.h"
#include "storage/data_directory.h"
#include "storage/database.h"
#include "tests/recovery/recovery_test.h"

namespace tensorforge {
namespace {

namespace fs = std::filesystem;
using client::Answer;
using client::Client;
using test::Daemon;
using test::picture;
using test::registration;
using test::status_of;
using testing::HasSubstr;
using testing::Not;

class StartTest : public test::RecoveryTest {
 protected:
  /// Registers models `m<first>`, ..., each acknowledged before the next. What the service then says of itself.
  static result::Status fill(Client& client, int first, int count) {
    for (int i = first; i < first + count; ++i) {
      EXPECT_TRUE(client.call(registration("m" + std::to_string(i))).status.ok());
    }
    return status_of(client);
  }
  /// A log of a few events, after a clean stop.
  void make_log() {
    const auto daemon = start();
    fill(*connect(), 0, 5);
    ASSERT_EQ(daemon->stop(), 0) << daemon->errors();
  }
  void expect_refused(int code, const std::string& says, const std::vector<std::string>& more = {}) const {
    const auto before = picture(data_);
    Daemon daemon(arguments(more));
    EXPECT_EQ(daemon.wait(), code) << daemon.errors();
    EXPECT_THAT(daemon.errors(), HasSubstr(says));
    EXPECT_EQ(daemon.output(), "") << "it never served";
    EXPECT_EQ(picture(data_), before) << "it has to be left untouched";
  }
  void tear_wal(std::uintmax_t bytes) const {
    const fs::path wal = test::files_like(data_ / "db", ".log").back();
    const std::uintmax_t whole = test::bytes_without_zeros_behind(wal);
    ASSERT_GT(whole, bytes);
    fs::resize_file(wal, whole - bytes);
  }
  /// Opens the stopped log and folds it.
  service::State replayed() const {
    const auto log = storage::open_read_only(data_.string());
    EXPECT_TRUE(log.ok()) << log.status();
    Result<service::State> state = service::recover(**log);
    EXPECT_TRUE(state.ok()) << state.status();
    return *std::move(state);
  }
};

TEST_F(StartTest, EndsWithOneAtAHeadOfANewerFormat) {
  make_log();
  std::string head = test::read_bytes(data_ / "HEAD");
  head[4] = 2;
  test::write_bytes(data_ / "HEAD", head);
  expect_refused(1, "newer version");
  expect_refused(1, "newer version", {"--accept-loss"});
}

TEST_F(StartTest, EndsWithOneAtADatabaseOfANewerFormat) {
  make_log();
  {
    auto database = storage::Database::open(rocksdb::FileSystem::Default(), data_ / "db", nullptr);
    ASSERT_TRUE(database.ok()) << database.status();
    const std::string format("\x02\0\0\0", 4);
    ASSERT_TRUE((*database)->db().Put(storage::synced_write(), (*database)->meta(), "format", format).ok());
  }
  expect_refused(1, "newer version");
  expect_refused(1, "newer version", {"--accept-loss"});
}

TEST_F(StartTest, EndsWithOneAtADirectoryOfAnotherProgram) {
  fs::create_directory(data_);
  test::write_bytes(data_ / "thesis.txt", "three years of work");
  expect_refused(1, "thesis.txt");
  expect_refused(1, "thesis.txt", {"--accept-loss"});
}

TEST_F(StartTest, EndsWithFourAtADirectoryInUse) {
  const auto first = start();
  fill(*connect(), 0, 5);
  const std::vector<std::string> elsewhere{"--data-dir", data_.string(), "--listen", "127.0.0.1:0"};
  const auto before = picture(data_);
  Daemon second(elsewhere);
  EXPECT_EQ(second.wait(), 4) << second.errors();
  EXPECT_THAT(second.errors(), HasSubstr("another process holds it"));
  EXPECT_EQ(picture(data_), before);
  fill(*connect(), 5, 1);
  EXPECT_EQ(first->stop(), 0) << first->errors();
}

TEST_F(StartTest, EndsWithTwoAtALostEventAndSaysWhichAndWhatToDo) {
  result::Status told;
  {
    const auto daemon = start();
    told = fill(*connect(), 0, 20);
    daemon->kill();
  }
  tear_wal(5);
  const std::string last = std::to_string(told.sequence);
  expect_refused(2,
                 "acknowledged events " + last + ".." + last + " are missing: restore from a backup, or --accept-loss");
  fs::remove(data_ / "db" / "CURRENT");
  expect_refused(2, "acknowledged events 1.." + last + " are missing");
}

TEST_F(StartTest, GoesOnWithoutTheLostEventWhereTheLossIsAccepted) {
  auto daemon = start();
  const auto witness = connect();
  const result::Status told = fill(*witness, 0, 20);
  daemon->kill();
  tear_wal(5);
  const auto before = picture(data_);

  daemon = start({"--accept-loss"});
  ASSERT_TRUE(daemon->ready());
  EXPECT_EQ(daemon->ready()->events, told.sequence) << "one was lost, and one says that a new life began";
  const Answer answer = witness->call(registration("more"));
  EXPECT_TRUE(absl::IsDataLoss(answer.status)) << answer.status;
  EXPECT_THAT(std::string(answer.status.message()), HasSubstr("the log was rolled back"));

  // All that was there lies aside, byte for byte.
  const fs::path lost = data_ / ("lost-" + std::to_string(told.sequence - 1));
  const auto there = picture(lost);
  for (const auto& [path, seen] : before) {
    const fs::path name = fs::path(path).lexically_relative(data_);
    if (name == "LOCK" || name == "db") continue;
    ASSERT_TRUE(there.contains((lost / name).string())) << name;
    EXPECT_EQ(there.at((lost / name).string()), seen) << name;
  }

  const auto client = connect();
  EXPECT_TRUE(client->call(query::GetModel{"m18", test::kV1}).status.ok());
  EXPECT_TRUE(absl::IsNotFound(client->call(query::GetModel{"m19", test::kV1}).status)) << "it was lost";
  const result::Status after = fill(*client, 19, 3);
  EXPECT_EQ(after.log_id, told.log_id);
  EXPECT_NE(after.incarnation, told.incarnation);
  EXPECT_EQ(after.model_versions, 22U);
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();

  EXPECT_EQ(format_digest(replayed().digest()), after.state_digest);
  {
    const auto log = storage::open_read_only(data_.string());
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_EQ((*log)->verify()->end, (storage::TreeHead{after.sequence, after.root, after.incarnation}));
  }

  // What was accepted once is accepted: from now on it is a log like any other, with the flag or without.
  for (const std::vector<std::string>& flags : {std::vector<std::string>{}, {"--accept-loss"}}) {
    daemon = start(flags);
    EXPECT_EQ(status_of(*connect()).state_digest, after.state_digest);
    EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  }
  EXPECT_FALSE(fs::exists(data_ / ("lost-" + std::to_string(after.sequence))));
}

TEST_F(StartTest, RepairsADatabaseThatCannotBeOpenedWhereTheLossIsAccepted) {
  make_log();
  auto daemon = start();
  const result::Status told = fill(*connect(), 5, 20);
  daemon->kill();  // some events are in a table, the others in a write-ahead log that nobody closed
  fs::remove(data_ / "db" / "CURRENT");
  const std::string all = "acknowledged events 1.." + std::to_string(told.sequence) + " are missing";
  expect_refused(2, all);
  expect_refused(2, "how many of these events can be repaired is not known): restore from a backup, or --accept-loss");

  daemon = start({"--accept-loss"});
  ASSERT_TRUE(daemon->ready()) << daemon->errors();
  EXPECT_THAT(daemon->errors(),
              HasSubstr("with the database repaired, events 1.." + std::to_string(told.sequence) + " verify"));
  EXPECT_THAT(daemon->errors(), Not(HasSubstr(" error "))) << "nothing was lost";
  const result::Status after = status_of(*connect());
  EXPECT_EQ(after.model_versions, 25U);
  EXPECT_EQ(after.log_id, told.log_id);
  EXPECT_NE(after.incarnation, told.incarnation);
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  EXPECT_TRUE(fs::exists(data_ / ("lost-" + std::to_string(told.sequence)) / "db"));
  EXPECT_FALSE(fs::exists(data_ / "db.repaired"));
}

TEST_F(StartTest, NotesTheDigestAtEveryCleanStop) {
  make_log();
  const service::State state = replayed();
  const auto log = storage::open_read_only(data_.string());
  ASSERT_TRUE(log.ok()) << log.status();
  const auto noted = (*log)->noted_digest(state.sequence);
  ASSERT_TRUE(noted.ok() && *noted) << noted.status();
  EXPECT_EQ(*service::decode_noted_digest(**noted), service::noted_digest(state));
}

// ---- while the log is being checked

/// A start whose check of the log waits for as long as the test wants: a pipe stands where the database's CURRENT was.
class CheckingTest : public StartTest {
 protected:
  void SetUp() override {
    make_log();
    fs::rename(data_ / "db" / "CURRENT", directory_.path() / "CURRENT");
    ASSERT_EQ(mkfifo((data_ / "db" / "CURRENT").c_str(), 0600), 0);
    before_ = picture(data_);
  }
  void TearDown() override {
    if (pipe_ >= 0) close(pipe_);
  }
  /// Returns when the process that checks has begun to read.
  void begin(const std::vector<std::string>& more = {}) {
    daemon_.emplace(arguments(more), std::vector<std::string>{}, Daemon::Wait::kNot);
    if (pipe_ >= 0) close(pipe_);
    pipe_ = open((data_ / "db" / "CURRENT").c_str(), O_WRONLY | O_CLOEXEC);  // waits for who reads
    ASSERT_GE(pipe_, 0);
  }
  /// The only process that the service began.
  pid_t checking_process() const {
    for (const auto& entry : fs::directory_iterator("/proc")) {
      std::ifstream file(entry.path() / "stat");
      std::string pid, name, state;
      pid_t parent{};
      if (file >> pid >> name >> state >> parent && parent == daemon_->pid()) return std::stoi(pid);
    }
    return -1;
  }
  void expect_checker_gone() const {
    pollfd reader{pipe_, 0, 0};
    ASSERT_EQ(poll(&reader, 1, -1), 1);  // an error is all that it waits for
    EXPECT_TRUE(reader.revents & POLLERR);
  }
  void expect_untouched_and_whole() {
    EXPECT_EQ(picture(data_), before_);
    fs::rename(directory_.path() / "CURRENT", data_ / "db" / "CURRENT");
    const auto daemon = start();
    EXPECT_EQ(status_of(*connect()).model_versions, 5U);
    EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
  }

  std::optional<Daemon> daemon_;
  std::map<std::string, std::string> before_;
  int pipe_{-1};
};

TEST_F(CheckingTest, AStopSignalEndsItCleanly) {
  for (const int signal : {SIGTERM, SIGINT}) {
    for (const std::vector<std::string>& flags : {std::vector<std::string>{}, {"--accept-loss"}}) {
      begin(flags);
      daemon_->signal(signal);
      EXPECT_EQ(daemon_->wait(), 0) << daemon_->errors();
      EXPECT_EQ(daemon_->output(), "") << "it never served";
      expect_checker_gone();
    }
  }
  expect_untouched_and_whole();
}

TEST_F(CheckingTest, ASignalOfTheTerminalReachesBothAndEndsItCleanly) {
  begin();
  const pid_t checking = checking_process();
  ASSERT_GT(checking, 0);
  EXPECT_EQ(kill(checking, SIGINT), 0);
  daemon_->signal(SIGINT);
  EXPECT_EQ(daemon_->wait(), 0) << daemon_->errors();
  expect_untouched_and_whole();
}

TEST_F(CheckingTest, AKilledCheckIsNoVerdictAndLosesNothing) {
  for (const std::vector<std::string>& flags : {std::vector<std::string>{}, {"--accept-loss"}}) {
    begin(flags);
    const pid_t checking = checking_process();
    ASSERT_GT(checking, 0);
    EXPECT_EQ(kill(checking, SIGKILL), 0);
    EXPECT_EQ(daemon_->wait(), 3) << daemon_->errors();
    EXPECT_THAT(daemon_->errors(), HasSubstr("signal 9 (Killed) ended the check of the log"));
    EXPECT_THAT(daemon_->errors(), Not(HasSubstr("missing")));
  }
  expect_untouched_and_whole();
}

TEST_F(CheckingTest, ACrashedCheckThatHadVerifiedNothingLosesNothing) {
  begin();
  const pid_t checking = checking_process();
  ASSERT_GT(checking, 0);
  EXPECT_EQ(kill(checking, SIGILL), 0);
  EXPECT_EQ(daemon_->wait(), 2) << daemon_->errors();
  EXPECT_THAT(daemon_->errors(), HasSubstr("before it had verified any event"));
  expect_untouched_and_whole();
}

TEST_F(CheckingTest, ACrashedCheckIsFollowedByARepairWhereTheLossIsAccepted) {
  begin({"--accept-loss"});
  const pid_t checking = checking_process();
  ASSERT_GT(checking, 0);
  EXPECT_EQ(kill(checking, SIGILL), 0);
  const std::string says = "with the database repaired, events 1..6 verify";
  while (daemon_->errors().find(says) == std::string::npos) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  daemon_->signal(SIGTERM);  // what it has begun is finished first
  EXPECT_EQ(daemon_->wait(), 0) << daemon_->errors();
  const auto daemon = start();
  EXPECT_EQ(status_of(*connect()).model_versions, 5U) << "nothing was lost";
  EXPECT_EQ(daemon->stop(), 0) << daemon->errors();
}

TEST_F(CheckingTest, ACheckEndsWithTheServiceThatBeganIt) {
  begin();
  daemon_->kill();
  expect_checker_gone();
  expect_untouched_and_whole();
}

}  // namespace
}  // namespace tensorforge
