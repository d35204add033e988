#include "storage/journal.h"

#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/merkle.h"
#include "tests/storage/log_fixture.h"

namespace tensorforge::storage {
namespace {

using testing::ElementsAre;
using testing::Pair;

class RocksDbJournalTest : public testing::Test {
 protected:
  OpenOptions options() const { return {directory_.path().string(), Ack::kAnchor, false, nullptr}; }
  TemporaryDirectory directory_;
};

TEST_F(RocksDbJournalTest, ServesWhatItAcknowledged) {
  Served served(options());
  ASSERT_TRUE(served.opening().ok()) << served.opening();
  EXPECT_EQ(served.end().sequence, 0U);
  ASSERT_TRUE(served.append(make_group(served.end(), 5)).ok());
  ASSERT_TRUE(served.append(make_group(served.end(), 1'000, 1'000)).ok());
  ASSERT_TRUE(served.append_each(10).ok());
  const std::vector<std::string> records = all_records(served.journal());
  ASSERT_EQ(records.size(), 1'015U);
  EXPECT_EQ(records[0], record_text(1));
  EXPECT_EQ(records[4], record_text(5));
  EXPECT_EQ(records[5], record_text(6, 1'000));
  EXPECT_EQ(records[1'014], record_text(1'015));
}

TEST_F(RocksDbJournalTest, ReadsFromAnySequenceUpToEitherLimit) {
  Served served(options());
  ASSERT_TRUE(served.append(make_group(served.end(), 600, 1'000)).ok());
  ASSERT_TRUE(served.append_each(20).ok());
  for (const Sequence first : {1U, 2U, 255U, 262U, 263U, 599U, 600U, 601U, 620U}) {
    const Result<Records> records = served.journal().read(first, 3, 1U << 20U);
    ASSERT_TRUE(records.ok()) << records.status();
    EXPECT_EQ(records->first, first);
    ASSERT_EQ(records->records.size(), std::min<std::size_t>(3, 621 - first));
    EXPECT_EQ(records->records[0], record_text(first, first <= 600 ? 1'000 : 20));
  }
  EXPECT_EQ(served.journal().read(1, 100, 2'500)->records.size(), 2U);
  EXPECT_EQ(served.journal().read(1, 100, 1)->records.size(), 1U) << "at least one";
  EXPECT_TRUE(served.journal().read(621, 100, 100)->records.empty());
  EXPECT_TRUE(served.journal().read(0, 100, 100)->records.empty());
}

TEST_F(RocksDbJournalTest, KeepsNotesAndDigestsBesideTheRecords) {
  {
    Served served(options());
    Group group = make_group(served.end(), 3);
    group.notes.push_back({2, Salt{1, 2, 3}, "because"});
    group.noted_digest = "digest at 3";
    ASSERT_TRUE(served.append(std::move(group)).ok());
  }
  Served served(options());
  const Result<std::optional<Note>> note = served.journal().note(2);
  ASSERT_TRUE(note.ok() && *note);
  EXPECT_EQ((*note)->bytes, "because");
  EXPECT_EQ((*note)->salt, (Salt{1, 2, 3}));
  EXPECT_EQ((*note)->sequence, 2U);
  EXPECT_EQ(*served.journal().note(1), std::nullopt);
  EXPECT_EQ(*served.journal().noted_digest(3), "digest at 3");
  EXPECT_EQ(*served.journal().noted_digest(2), std::nullopt);
  EXPECT_EQ(served.journal().verify()->notes, 1U);
}

TEST_F(RocksDbJournalTest, NotesADigestWithoutARecord) {
  for (const Ack ack : {Ack::kAnchor, Ack::kWal}) {
    OpenOptions how = options();
    how.ack = ack;
    Served served(how);
    ASSERT_TRUE(served.append(make_group(served.end(), 3)).ok());
    const TreeHead end = served.end();
    Group group = make_group(end, 0);
    group.noted_digest = "digest at the end";
    ASSERT_TRUE(served.append(std::move(group)).ok());
    EXPECT_EQ(*served.journal().noted_digest(end.sequence), "digest at the end");
    EXPECT_EQ(served.end(), end);
    ASSERT_TRUE(served.append_each(1).ok()) << "and the log goes on";
    ASSERT_TRUE(served.journal().close().ok());
  }
  Served served(options());
  EXPECT_EQ(served.end().sequence, 8U);
  EXPECT_EQ(*served.journal().noted_digest(3), "digest at the end");
  EXPECT_EQ(*served.journal().noted_digest(7), "digest at the end");
}

TEST_F(RocksDbJournalTest, GoesOnAfterAnOpening) {
  TreeHead end;
  LogId log_id;
  {
    Served served(options());
    ASSERT_TRUE(served.append_each(7).ok());
    end = served.end();
    log_id = served.journal().log_id();
    EXPECT_TRUE(served.journal().close().ok());
  }
  Served served(options());
  ASSERT_TRUE(served.opening().ok()) << served.opening();
  EXPECT_EQ(served.end(), end);
  EXPECT_EQ(served.journal().log_id(), log_id);
  ASSERT_TRUE(served.append_each(3).ok());
  EXPECT_EQ(all_records(served.journal()).size(), 10U);
  const Result<LogVerified> verified = served.journal().verify();
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_EQ(verified->end, served.end());
  EXPECT_EQ(verified->chunks, 10U);
  EXPECT_EQ(verified->bytes, 200U);
}

TEST_F(RocksDbJournalTest, HasTheTreeOfItsRecords) {
  Served served(options());
  ASSERT_TRUE(served.append(make_group(served.end(), 100)).ok());
  MerkleFrontier tree;
  for (const std::string& record : all_records(served.journal())) tree.append(record);
  EXPECT_EQ(served.end().root, tree.root());
}

TEST_F(RocksDbJournalTest, AcknowledgesAfterTheSyncWhereAsked) {
  OpenOptions wal = options();
  wal.ack = Ack::kWal;
  {
    Served served(wal);
    ASSERT_TRUE(served.append_each(20).ok());
    EXPECT_TRUE(served.journal().close().ok());
  }
  Served served(wal);
  EXPECT_EQ(served.opened().anchored_before, 20U) << "a clean stop anchors";
  EXPECT_EQ(all_records(served.journal()).size(), 20U);
}

TEST_F(RocksDbJournalTest, TellsTheFirstIncarnationUntilItIsRecorded) {
  std::uint32_t incarnation = 0;
  for (int i = 0; i < 2; ++i) {
    Served served(options());
    ASSERT_TRUE(served.opened().to_start);
    EXPECT_EQ(served.opened().to_start->cause, IncarnationCause::FirstStart);
    EXPECT_NE(served.opened().to_start->incarnation, 0U);
    incarnation = served.opened().to_start->incarnation;
    EXPECT_EQ(served.end().incarnation, incarnation);
    if (i == 1) {
      ASSERT_TRUE(served.append_each(1).ok());
    }
  }
  Served served(options());
  EXPECT_FALSE(served.opened().to_start);
  EXPECT_EQ(served.end().incarnation, incarnation);
}

TEST_F(RocksDbJournalTest, WritesTogetherWhatWasSubmittedMeanwhile) {
  std::vector<std::pair<Sequence, std::size_t>> writes;
  {
    Result<OpenedDirectory> opened = open_data_directory(options());
    ASSERT_TRUE(opened.ok()) << opened.status();
    Journal& journal = *opened->journal;
    std::promise<void> submitted;
    Journal::Callbacks callbacks;
    callbacks.synced = [&](Sequence last, std::size_t groups) {
      if (writes.empty()) submitted.get_future().wait();
      writes.emplace_back(last, groups);
    };
    journal.start(std::move(callbacks));
    TreeHead head = journal.durable_head();
    for (std::size_t commands = 1; commands <= 5; ++commands) {
      Group group = make_group(head, commands);
      if (commands == 3) group.noted_digest = "abc";
      head.sequence = group.last();
      journal.submit(std::move(group));
      // The first is taken at once or together with the others, as its thread happens to run.
      while (commands == 1 && journal.durable_head().sequence == 0) std::this_thread::yield();
    }
    submitted.set_value();
    EXPECT_TRUE(journal.close().ok());
  }
  EXPECT_THAT(writes, ElementsAre(Pair(1, 1), Pair(6, 2), Pair(15, 2)));
  Served served(options());
  EXPECT_EQ(served.end().sequence, 15U);
  EXPECT_EQ(served.journal().verify()->chunks, 3U);
  EXPECT_EQ(*served.journal().noted_digest(6), "abc");
  const std::vector<std::string> records = all_records(served.journal());
  for (Sequence sequence = 1; sequence <= 15; ++sequence) EXPECT_EQ(records.at(sequence - 1), record_text(sequence));
}

TEST_F(RocksDbJournalTest, ClosesWithWhatWasSubmitted) {
  {
    Result<OpenedDirectory> opened = open_data_directory(options());
    ASSERT_TRUE(opened.ok()) << opened.status();
    opened->journal->start({});
    opened->journal->submit(make_group(opened->journal->durable_head(), 4));
    EXPECT_TRUE(opened->journal->close().ok());
    EXPECT_EQ(opened->journal->durable_head().sequence, 4U);
  }
  EXPECT_EQ(Served(options()).end().sequence, 4U);
}

}  // namespace
}  // namespace tensorforge::storage
