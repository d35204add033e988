// A snapshot is folded from the log alone, and kept only where it is what was served.
#include "service/fold.h"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "service/snapshot.h"
#include "tests/storage/log_fixture.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/random_commands.h"
#include "tests/support/service_fixture.h"

namespace tensorforge {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;
using service::Folded;
using service::FoldOptions;
using service::NotedDigest;
using test::FaultFileSystem;
using test::pages_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string text(const absl::Status& status) { return std::string(status.message()); }

class FoldTest : public test::ServiceTest {
 protected:
  /// Runs commands, makes what they did durable and says what is served then.
  NotedDigest go_on(std::size_t commands) {
    for (std::size_t i = 0; i < commands; ++i) {
      tick(random_.below(50'000));
      run(random_.next(state()));
    }
    service_->note_digest_at_end();
    flush();
    return service::noted_digest(state());
  }
  Result<Folded> fold(const NotedDigest& noted, const FoldOptions& options = {}) {
    FoldOptions heard = options;
    heard.warn = [this](std::string_view warning) { warnings_.emplace_back(warning); };
    return service::fold(*journal_, store_, noted, heard);
  }
  /// A snapshot of where the log is.
  Sequence take_snapshot(std::size_t commands) {
    const Result<Folded> folded = fold(go_on(commands));
    EXPECT_TRUE(folded.ok()) << folded.status();
    return folded.ok() ? folded->sequence : 0;
  }
  void expect_folded(const NotedDigest& noted) {
    const Result<Folded> folded = fold(noted);
    ASSERT_TRUE(folded.ok()) << folded.status();
    EXPECT_EQ(*folded, (Folded{noted.sequence, fs::file_size(store_.path(noted.sequence)), true}));
    const auto reader = store_.open(noted.sequence);
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ((*reader)->head().log_id, journal_->log_id());
    EXPECT_EQ((*reader)->head().at.frontier.root(), journal_->durable_head().root);
    const Result<service::State> loaded = service::load_snapshot(**reader);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(pages_of(*loaded), pages_of(state()));
  }
  void expect_nothing_left() {
    if (!fs::exists(directory_.path() / "snapshots")) return;
    EXPECT_TRUE(fs::is_empty(directory_.path() / "snapshots"))
        << *fs::directory_iterator(directory_.path() / "snapshots");
  }
  /// As the log gives it, and something that never happened.
  service::State another_state() {
    service::State state = replayed();
    registry::ModelMetadata never;
    never.model_id = "never";
    service::apply_event(state, registry::Event(registry::ModelRegistered{never}), state.sequence);
    return state;
  }
  /// Writes a snapshot that holds together and is not the truth.
  void write_lie(const storage::SnapshotHead& head, const service::State& lie) {
    const auto writer = store_.create(head);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE(service::save_state(lie, [&](std::string_view page) { return (*writer)->add(page); }).ok());
    ASSERT_TRUE((*writer)->finish().ok());
  }
  /// What `sequence` stands for in the log.
  storage::SnapshotHead head_of(Sequence sequence) {
    storage::SnapshotHead head{journal_->log_id(), test::kIncarnation, {}};
    const absl::Status checked = journal_->check(head.at, [&, seen = Sequence{0}](const auto& records) mutable {
      seen += records.size();
      return seen < sequence;
    });
    EXPECT_TRUE(checked.ok()) << checked;
    EXPECT_EQ(head.at.sequence(), sequence);
    return head;
  }

  test::RandomCommands random_{2026};
  const storage::TemporaryDirectory directory_;
  const std::shared_ptr<FaultFileSystem> files_ = std::make_shared<FaultFileSystem>();
  const storage::SnapshotStore store_{files_, directory_.path().string()};
  std::vector<std::string> warnings_;
};

TEST_F(FoldTest, OfTheWholeLogIsTheLiveState) { expect_folded(go_on(300)); }

TEST_F(FoldTest, OfALogThatHasOnlyBegunIsOne) { expect_folded(go_on(0)); }

TEST_F(FoldTest, EndsWhereTheDigestWasNotedAndNotWhereTheLogEnds) {
  const NotedDigest noted = go_on(100);
  const std::vector<std::string> then = pages_of(state());
  go_on(100);
  ASSERT_TRUE(fold(noted).ok());
  const auto reader = store_.open(noted.sequence).value();
  EXPECT_EQ(pages_of(service::load_snapshot(*reader).value()), then);
}

TEST_F(FoldTest, GoesOnFromTheNewestSnapshotAndReadsNothingBeforeIt) {
  take_snapshot(50);
  const Sequence second = take_snapshot(100);
  const NotedDigest noted = go_on(100);
  journal_->damage(second);
  expect_folded(noted);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(FoldTest, KeepsThoseThatTheRuleKeeps) {
  std::vector<Sequence> expected;
  for (int i = 0; i < 8; ++i) {
    expected.push_back(take_snapshot(20));
    for (const Sequence gone : storage::superseded(expected)) std::erase(expected, gone);
    EXPECT_EQ(store_.list().value(), expected);
  }
  EXPECT_LT(expected.size(), 8U);
}

TEST_F(FoldTest, IsNotKeptWhereWhatWasServedIsNotWhatTheLogGives) {
  const NotedDigest noted = go_on(300);
  const std::pair<const char*, Digest NotedDigest::*> domains[] = {{"registry", &NotedDigest::registry},
                                                                   {"gpu_memory", &NotedDigest::gpu_memory},
                                                                   {"checkpoint", &NotedDigest::checkpoint}};
  for (const auto& [name, domain] : domains) {
    NotedDigest wrong = noted;
    (wrong.*domain).low ^= 1;
    const absl::Status status = fold(wrong).status();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
    EXPECT_THAT(text(status), HasSubstr(std::to_string(noted.sequence)));
    EXPECT_THAT(text(status), HasSubstr(std::string(name) + " (" + format_digest(wrong.*domain) + " served, " +
                                        format_digest(noted.*domain) + " in the log)"));
    expect_nothing_left();
  }
}

TEST_F(FoldTest, ThatContradictsLeavesOlderSnapshotsAlone) {
  const Sequence first = take_snapshot(100);
  NotedDigest wrong = go_on(100);
  wrong.checkpoint.high ^= 1;
  EXPECT_EQ(fold(wrong).status().code(), StatusCode::kDataLoss);
  EXPECT_THAT(store_.list().value(), ElementsAre(first));
}

TEST_F(FoldTest, EndsWhereverItIsToldToAndLeavesNothing) {
  const NotedDigest noted = go_on(600);
  ASSERT_TRUE(fold(noted).ok());
  fs::remove_all(directory_.path() / "snapshots");
  int asked = 0;
  FoldOptions options;
  options.may_go_on = [&] {
    ++asked;
    return absl::OkStatus();
  };
  ASSERT_TRUE(fold(noted, options).ok());
  ASSERT_GT(asked, 10);
  fs::remove_all(directory_.path() / "snapshots");
  for (int last = 1; last <= asked; ++last) {
    SCOPED_TRACE(last);
    int left = last;
    // Once said it counts, whatever is said later.
    options.may_go_on = [&] { return --left == 0 ? absl::ResourceExhaustedError("no more room") : absl::OkStatus(); };
    EXPECT_EQ(fold(noted, options).status(), absl::ResourceExhaustedError("no more room"));
    expect_nothing_left();
  }
}

TEST_F(FoldTest, EndsWhileItLoadsAnEarlierSnapshotToo) {
  const Sequence first = take_snapshot(100);
  FoldOptions options;
  options.may_go_on = [] { return absl::CancelledError("enough"); };
  EXPECT_EQ(fold(go_on(100), options).status(), absl::CancelledError("enough"));
  EXPECT_THAT(warnings_, IsEmpty()) << "the snapshot is as good as before";
  EXPECT_THAT(store_.list().value(), ElementsAre(first));
}

TEST_F(FoldTest, FindsTheSnapshotThatIsThere) {
  const NotedDigest noted = go_on(100);
  expect_folded(noted);
  const auto before = test::picture(directory_.path());
  EXPECT_EQ(fold(noted).value(), (Folded{noted.sequence, fs::file_size(store_.path(noted.sequence)), false}));
  EXPECT_EQ(test::picture(directory_.path()), before);
}

TEST_F(FoldTest, MakesAgainTheSnapshotThatIsThereAndDamaged) {
  const NotedDigest noted = go_on(100);
  expect_folded(noted);
  storage::flip_bit(store_.path(noted.sequence), storage::kSnapshotHeadBytes + 40);
  expect_folded(noted);
}

TEST_F(FoldTest, MakesAgainTheSnapshotThatIsThereAndHoldsAnotherState) {
  const NotedDigest noted = go_on(100);
  const service::State lie = another_state();
  write_lie(head_of(noted.sequence), lie);
  expect_folded(noted);
}

TEST_F(FoldTest, PassesOverSnapshotsThatAreNotWholeAndSaysSo) {
  const Sequence first = take_snapshot(50), second = take_snapshot(50), third = take_snapshot(50);
  storage::flip_bit(store_.path(third), storage::kSnapshotHeadBytes + 40);
  fs::resize_file(store_.path(second), fs::file_size(store_.path(second)) - 1);
  const NotedDigest noted = go_on(50);
  journal_->damage(first);
  expect_folded(noted);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("snapshot " + std::to_string(third) + " is passed over"),
                                     HasSubstr("snapshot " + std::to_string(second) + " is passed over")));
}

TEST_F(FoldTest, BeginsWithTheLogWhereNoSnapshotIsWhole) {
  const Sequence first = take_snapshot(50);
  storage::flip_bit(store_.path(first), 30);
  expect_folded(go_on(50));
}

TEST_F(FoldTest, PassesOverASnapshotOfAnotherLog) {
  const Sequence first = take_snapshot(50);
  storage::SnapshotHead head = head_of(first);
  head.log_id[0] ^= 1;
  write_lie(head, replayed());
  expect_folded(go_on(50));
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("another log")));
}

TEST_F(FoldTest, BelievesTheLogAndNotTheStateOfASnapshot) {
  const Sequence first = go_on(100).sequence;
  const service::State lie = another_state();
  write_lie(head_of(first), lie);
  const NotedDigest noted = go_on(100);
  expect_folded(noted);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("registry (" + format_digest(noted.registry) + " served")));
}

TEST_F(FoldTest, BelievesTheLogAndNotTheTreeOfASnapshot) {
  const Sequence first = go_on(100).sequence;
  storage::SnapshotHead head = head_of(first);
  storage::MerkleFrontier foreign;
  for (Sequence i = 0; i < first; ++i) foreign.append("another history");
  head.at.frontier = foreign;
  write_lie(head, replayed());
  expect_folded(go_on(100));
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("Merkle root")));
}

TEST_F(FoldTest, OfALogThatDoesNotVerifyNamesWhatIsDamagedAndWhatToDo) {
  const Sequence first = take_snapshot(100);
  const NotedDigest noted = go_on(100);
  journal_->damage(first + 1);
  const absl::Status status = fold(noted).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
  EXPECT_THAT(text(status), HasSubstr("the log does not verify: the chunk at sequence " + std::to_string(first + 1)));
  EXPECT_THAT(text(status), HasSubstr("restore from a backup"));
  EXPECT_THAT(store_.list().value(), ElementsAre(first));
}

TEST_F(FoldTest, WhereNoChunkEndsIsRefused) {
  service_->note_digest_at_end();
  flush();
  for (const char* model : {"a", "b"}) ASSERT_EQ(code(test::register_model(model)), StatusCode::kOk);
  flush();  // one chunk
  NotedDigest noted = service::noted_digest(state());
  ASSERT_EQ(head_of(noted.sequence).at.chunk_number, 2U);
  --noted.sequence;
  EXPECT_EQ(fold(noted).status().code(), StatusCode::kInternal);
  expect_nothing_left();
}

TEST_F(FoldTest, OnADiskThatFailsSaysSoAndDamagesNothing) {
  const Sequence first = take_snapshot(100);
  const NotedDigest noted = go_on(100);
  using enum FaultFileSystem::Operation;
  const std::pair<FaultFileSystem::Operation, const char*> faults[] = {
      {kWrite, ".new"}, {kSync, ".new"}, {kRename, ""}, {kDirectorySync, "snapshots"}};
  for (const auto& [operation, path_end] : faults) {
    for (const rocksdb::IOStatus& error : {rocksdb::IOStatus::IOError("broken"), rocksdb::IOStatus::NotFound("gone")}) {
      files_->set_fault(test::fail_from(operation, path_end, 1, error));
      EXPECT_EQ(fold(noted).status().code(), StatusCode::kUnavailable) << path_end << ": " << error.ToString();
      files_->set_fault({});
      // What stands under the name of the snapshot, if anything, is the snapshot.
      const std::vector<Sequence> there = store_.list().value();
      for (const Sequence sequence : there) {
        EXPECT_TRUE(service::load_snapshot(*store_.open(sequence).value()).ok());
      }
      fs::remove(store_.path(noted.sequence));
    }
  }
  EXPECT_THAT(store_.list().value(), ElementsAre(first));
  expect_folded(noted);
}

// ---- the part of the log that a start from a snapshot did not read

class CheckOlder : public FoldTest {
 protected:
  CheckOlder() {
    until_ = head_of(go_on(100).sequence).at;
    go_on(50);
  }
  absl::Status check(const storage::LogPoint& until) {
    return service::check_older(*journal_, until, [this](Sequence verified) {
      progress_.push_back(verified);
      return progress_.size() < give_up_after_;
    });
  }

  storage::LogPoint until_;
  std::vector<Sequence> progress_;
  std::size_t give_up_after_{~std::size_t{0}};
};

TEST_F(CheckOlder, VerifiesUpToTheSnapshotAndTellsHowFarItIs) {
  EXPECT_TRUE(check(until_).ok());
  ASSERT_FALSE(progress_.empty());
  EXPECT_TRUE(std::is_sorted(progress_.begin(), progress_.end()));
  EXPECT_EQ(progress_.back(), until_.sequence());
}

TEST_F(CheckOlder, EndsWhereItIsToldTo) {
  give_up_after_ = 1;
  EXPECT_EQ(check(until_).code(), StatusCode::kCancelled);
  EXPECT_EQ(progress_.size(), 1U);
}

TEST_F(CheckOlder, FindsDamageAndNamesIt) {
  journal_->damage(until_.sequence());
  const absl::Status status = check(until_);
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
  EXPECT_THAT(text(status), HasSubstr("the chunk at sequence"));
}

TEST_F(CheckOlder, IsNotAboutWhatLiesBehindTheSnapshot) {
  journal_->damage(journal_->durable_head().sequence);
  EXPECT_TRUE(check(until_).ok());
}

TEST_F(CheckOlder, FindsALogThatIsNotTheOneOfTheSnapshot) {
  storage::LogPoint other_tree = until_, other_number = until_, other_place = until_;
  storage::MerkleFrontier foreign;
  for (Sequence i = 0; i < until_.sequence(); ++i) foreign.append("another history");
  other_tree.frontier = foreign;
  ++other_number.chunk_number;
  other_place.frontier.append("one more");
  for (const storage::LogPoint& until : {other_tree, other_number, other_place}) {
    const absl::Status status = check(until);
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
    EXPECT_THAT(text(status), HasSubstr("is not the one of the snapshot"));
  }
}

}  // namespace
}  // namespace tensorforge
