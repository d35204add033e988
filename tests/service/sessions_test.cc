#include "service/sessions.h"

#include <gtest/gtest.h>

namespace tensorforge::service {
namespace {

using absl::StatusCode;

Record record_of(std::uint8_t session, std::uint64_t number, Sequence sequence, std::uint64_t answered_below = 0) {
  Record record;
  record.sequence = sequence;
  record.session = SessionId{session};
  record.command_number = number;
  record.answered_below = answered_below;
  record.opened_at = sequence - 1;
  return record;
}

TEST(Sessions, MapNumbersToWhereTheAnswerStands) {
  Sessions sessions;
  Record record = record_of(1, 5, 10);
  record.parts = 3;
  for (; record.part < 3; ++record.part, ++record.sequence) ASSERT_TRUE(sessions.apply(record).ok());
  ASSERT_TRUE(sessions.apply(record_of(1, 4, 13)).ok()) << "numbers may come in any order";
  const auto* session = sessions.find(SessionId{1});
  ASSERT_NE(session, nullptr);
  EXPECT_EQ(session->opened_at, 9u);
  EXPECT_EQ(*session->find(5), (Sessions::Entry{5, 10, 3}));
  EXPECT_EQ(session->find(5)->last(), 12u);
  EXPECT_EQ(*session->find(4), (Sessions::Entry{4, 13, 1}));
  EXPECT_EQ(session->find(6), nullptr);
  EXPECT_EQ(sessions.find(SessionId{2}), nullptr);
}

TEST(Sessions, AreFreedByAnsweredBelowAlone) {
  Sessions sessions;
  for (std::uint64_t n = 1; n <= 4; ++n) ASSERT_TRUE(sessions.apply(record_of(1, n, 10 + n)).ok());
  EXPECT_EQ(sessions.entry_count(), 4u);
  ASSERT_TRUE(sessions.apply(record_of(1, 5, 20, 4)).ok());
  EXPECT_EQ(sessions.entry_count(), 2u);
  EXPECT_EQ(sessions.find(SessionId{1})->find(3), nullptr);
  ASSERT_TRUE(sessions.apply(record_of(1, 6, 21, 2)).ok());
  EXPECT_EQ(sessions.find(SessionId{1})->answered_below, 4u) << "it never goes back";
}

TEST(Sessions, TheOneIdleLongestGoesAtTheLimitOfSessions) {
  Sessions sessions({.max_sessions = 2});
  ASSERT_TRUE(sessions.apply(record_of(1, 1, 10)).ok());
  ASSERT_TRUE(sessions.apply(record_of(2, 1, 11)).ok());
  ASSERT_TRUE(sessions.apply(record_of(1, 2, 12)).ok()) << "1 is in use again";
  EXPECT_EQ(sessions.horizon(), 0u);
  ASSERT_TRUE(sessions.apply(record_of(3, 1, 13)).ok());
  EXPECT_EQ(sessions.size(), 2u);
  EXPECT_EQ(sessions.find(SessionId{2}), nullptr);
  EXPECT_EQ(sessions.horizon(), 10u) << "where 2 was opened";
  EXPECT_EQ(sessions.entry_count(), 3u);
}

TEST(Sessions, TheOneIdleLongestGoesAtTheLimitOfEntries) {
  Sessions sessions({.max_sessions = 100, .max_entries = 3});
  ASSERT_TRUE(sessions.apply(record_of(1, 1, 10)).ok());
  for (std::uint64_t n = 1; n <= 5; ++n) ASSERT_TRUE(sessions.apply(record_of(2, n, 10 + n)).ok());
  EXPECT_EQ(sessions.find(SessionId{1}), nullptr);
  EXPECT_EQ(sessions.find(SessionId{2})->entries.size(), 5u) << "the one in use is never the one to go";
  ASSERT_TRUE(sessions.apply(record_of(3, 1, 20)).ok());
  EXPECT_EQ(sessions.find(SessionId{2}), nullptr);
  EXPECT_EQ(sessions.horizon(), 10u);
}

TEST(Sessions, TellARecordThatTheServiceCannotHaveWritten) {
  Sessions sessions;
  Record nameless = record_of(1, 1, 10);
  nameless.opened_at.reset();
  EXPECT_EQ(sessions.apply(nameless).code(), StatusCode::kDataLoss);
  ASSERT_TRUE(sessions.apply(record_of(2, 1, 11)).ok());
  EXPECT_EQ(sessions.apply(record_of(2, 1, 12)).code(), StatusCode::kDataLoss) << "a number twice";
  Record second_part = record_of(2, 7, 13);
  second_part.part = 1;
  EXPECT_EQ(sessions.apply(second_part).code(), StatusCode::kDataLoss);
  Record own;
  own.sequence = 14;
  EXPECT_TRUE(sessions.apply(own).ok()) << "the service itself has no session";
}

}  // namespace
}  // namespace tensorforge::service
