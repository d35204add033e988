#include "storage/memory_journal.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::storage {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Group group_after(const TreeHead& head, std::size_t commands) {
  Group group;
  group.first = head.sequence + 1;
  group.incarnation = 9;
  for (std::size_t i = 0; i < commands; ++i) group.add({"record " + std::to_string(group.first + i)});
  return group;
}

class MemoryJournalTest : public testing::Test {
 protected:
  void start(Journal& journal) {
    Journal::Callbacks callbacks;
    callbacks.synced = [this](Sequence last, std::size_t groups) {
      log_.push_back("synced " + std::to_string(last) + (groups > 1 ? " of " + std::to_string(groups) : ""));
    };
    callbacks.durable = [this](Sequence last) { log_.push_back("durable " + std::to_string(last)); };
    callbacks.failed = [this](const absl::Status& why) { log_.push_back("failed " + std::string(why.message())); };
    journal.start(std::move(callbacks));
  }
  std::vector<std::string> log_;
};

TEST_F(MemoryJournalTest, DoesNothingByItself) {
  MemoryJournal journal(LogId{1});
  start(journal);
  journal.submit(group_after({}, 2));
  EXPECT_TRUE(log_.empty());
  EXPECT_EQ(journal.durable_head().sequence, 0U);
  EXPECT_TRUE(journal.sync_waits());
  EXPECT_FALSE(journal.complete_anchor());
  EXPECT_TRUE(journal.complete_sync());
  EXPECT_FALSE(journal.complete_sync());
  EXPECT_EQ(journal.durable_head().sequence, 0U);
  EXPECT_TRUE(journal.read(1, 10, 1'000)->records.empty()) << "only what is durable is read";
  EXPECT_TRUE(journal.anchor_waits());
  EXPECT_TRUE(journal.complete_anchor());
  EXPECT_EQ(journal.durable_head().sequence, 2U);
  EXPECT_EQ(journal.durable_head().incarnation, 9U);
  EXPECT_THAT(journal.read(1, 10, 1'000)->records, ElementsAre("record 1", "record 2"));
  EXPECT_THAT(log_, ElementsAre("synced 2", "durable 2"));
}

TEST_F(MemoryJournalTest, AnchorsAllThatWasSynced) {
  MemoryJournal journal(LogId{1});
  start(journal);
  journal.submit(group_after({}, 2));
  journal.complete_sync();
  journal.submit(group_after({2, {}, 9}, 3));
  journal.complete_sync();
  journal.complete_anchor();
  EXPECT_FALSE(journal.anchor_waits());
  EXPECT_THAT(log_, ElementsAre("synced 2", "synced 5", "durable 5"));
}

TEST_F(MemoryJournalTest, WritesTogetherWhatWaits) {
  MemoryJournal journal(LogId{1});
  start(journal);
  for (Sequence end = 0; end < 5; ++end) {
    Group group = group_after({end, {}, 9}, 1);
    group.notes.push_back({group.first, Salt{3}, "why " + std::to_string(group.first)});
    if (end == 2) group.noted_digest = "abc";  // nothing follows it in one write
    journal.submit(std::move(group));
  }
  while (journal.complete_sync()) {
  }
  journal.complete_anchor();
  EXPECT_THAT(log_, ElementsAre("synced 1", "synced 3 of 2", "synced 5 of 2", "durable 5"));
  EXPECT_EQ(journal.verify()->chunks, 3U);
  EXPECT_THAT(journal.read(1, 10, 1'000)->records,
              ElementsAre("record 1", "record 2", "record 3", "record 4", "record 5"));
  EXPECT_EQ(*journal.noted_digest(3), "abc");
  for (Sequence sequence = 1; sequence <= 5; ++sequence) {
    EXPECT_EQ((*journal.note(sequence))->bytes, "why " + std::to_string(sequence));
  }
}

TEST_F(MemoryJournalTest, LosesWhatOnlyWaited) {
  MemoryJournal journal(LogId{1});
  start(journal);
  journal.submit(group_after({}, 2));
  journal.submit(group_after({2, {}, 9}, 1));
  journal.restart(true);
  EXPECT_EQ(journal.durable_head().sequence, 2U);
  EXPECT_FALSE(journal.sync_waits());
}

TEST_F(MemoryJournalTest, AcknowledgesAfterTheSyncWhereAsked) {
  MemoryJournal journal(LogId{1}, true);
  start(journal);
  journal.submit(group_after({}, 1));
  journal.complete_sync();
  EXPECT_THAT(log_, ElementsAre("synced 1", "durable 1"));
}

TEST_F(MemoryJournalTest, FailsOnceAndForGood) {
  MemoryJournal journal(LogId{1});
  start(journal);
  journal.submit(group_after({}, 1));
  journal.complete_sync();
  journal.submit(group_after({1, {}, 9}, 1));
  journal.fail(absl::UnavailableError("gone"));
  journal.fail(absl::UnavailableError("again"));
  EXPECT_FALSE(journal.complete_sync());
  EXPECT_FALSE(journal.complete_anchor());
  EXPECT_TRUE(absl::IsUnavailable(journal.close()));
  EXPECT_THAT(log_, ElementsAre("synced 1", "failed gone"));
}

TEST_F(MemoryJournalTest, KeepsWhatWasSyncedThroughARestart) {
  for (const bool keep_waiting : {false, true}) {
    SCOPED_TRACE(keep_waiting);
    MemoryJournal journal(LogId{1});
    start(journal);
    journal.submit(group_after({}, 2));
    journal.complete_sync();
    journal.submit(group_after({2, {}, 9}, 1));
    journal.fail(absl::UnavailableError("the power"));
    journal.restart(keep_waiting);
    EXPECT_EQ(journal.durable_head().sequence, keep_waiting ? 3U : 2U);
    start(journal);
    journal.submit(group_after(journal.durable_head(), 1));
    EXPECT_TRUE(journal.complete_sync() && journal.complete_anchor());
    EXPECT_TRUE(journal.verify().ok()) << journal.verify().status();
  }
}

TEST_F(MemoryJournalTest, NamesTheChunkThatIsDamaged) {
  MemoryJournal journal(LogId{1});
  start(journal);
  for (int i = 0; i < 3; ++i) {
    journal.submit(group_after(journal.durable_head(), 4));
    journal.complete_sync();
    journal.complete_anchor();
  }
  EXPECT_EQ(journal.verify()->chunks, 3U);
  journal.damage(6);
  EXPECT_TRUE(journal.read(1, 4, 1'000).ok());
  const absl::Status status = journal.read(1, 100, 1'000).status();
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("the chunk at sequence 5: its checksum is wrong"));
  EXPECT_THAT(std::string(journal.verify().status().message()), HasSubstr("acknowledged events 5..12 are missing"));
}

TEST_F(MemoryJournalTest, HandsOutNotesAndDigestsOnceDurable) {
  MemoryJournal journal(LogId{1});
  start(journal);
  Group group = group_after({}, 1);
  group.notes.push_back({1, Salt{3}, "why"});
  group.noted_digest = "abc";
  journal.submit(std::move(group));
  journal.complete_sync();
  EXPECT_EQ(*journal.note(1), std::nullopt);
  EXPECT_EQ(*journal.noted_digest(1), std::nullopt);
  journal.complete_anchor();
  EXPECT_EQ((*journal.note(1))->bytes, "why");
  EXPECT_EQ(*journal.noted_digest(1), "abc");
}

TEST(MemoryJournalThreads, ReadersSeeAWholePrefixBesideTheAppender) {
  constexpr Sequence kEnd = 2'000;
  MemoryJournal journal(LogId{1});
  journal.start({});
  std::atomic<bool> damaged{false};
  const auto read_along = [&] {
    for (Sequence end = 0; end < kEnd;) {
      end = journal.durable_head().sequence;
      const Result<Records> tail = journal.read(end > 5 ? end - 5 : 1, 10, 10'000);
      if (!tail.ok()) damaged = true;
      for (std::size_t i = 0; tail.ok() && i < tail->records.size(); ++i) {
        if (tail->records[i] != "record " + std::to_string(tail->first + i)) damaged = true;
      }
    }
  };
  std::thread first(read_along);
  std::thread second(read_along);
  while (journal.durable_head().sequence < kEnd) {
    journal.submit(group_after(journal.durable_head(), 5));
    journal.complete_sync();
    journal.complete_anchor();
  }
  first.join();
  second.join();
  EXPECT_FALSE(damaged);
  EXPECT_TRUE(journal.verify().ok());
}

}  // namespace
}  // namespace tensorforge::storage
