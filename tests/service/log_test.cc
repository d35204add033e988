// Reading the log back: recovery, replay up to a sequence, and the reads that clients ask for.
#include <algorithm>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "service/log_reader.h"
#include "service/recover.h"
#include "tests/support/service_fixture.h"

namespace tensorforge::test {
namespace {

using absl::StatusCode;
using registry::DeploymentState;
using service::Replay;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class LogTest : public ServiceTest {
 protected:
  std::string bytes_of(const Record& record) { return codec::encode_record(record).value(); }
  absl::Status add(Replay& replay, const Record& record) {
    const std::string bytes = bytes_of(record);
    return replay.add(std::as_bytes(std::span(bytes)));
  }
  Reply read(const service::LogRead& what, std::size_t max_bytes = 1 << 19, std::size_t scan = 1000) {
    flush();
    return service::run_read(*journal_, what, max_bytes, scan);
  }
  static std::vector<Sequence> sequences(const Reply& reply) {
    std::vector<Sequence> all;
    for (const auto& entry : result_of<result::LogRecords>(reply).records) {
      all.push_back(codec::decode_record(std::as_bytes(std::span(entry.record))).value().sequence);
    }
    return all;
  }
};

TEST_F(LogTest, ReplayEndsAtTheEndOfTheCommandBefore) {
  run(register_model("a"));                                         // 2
  run(Command(batch({register_model("b"), register_model("c")})));  // 3, 4
  const Digest at_two = [&] {
    Replay replay(2);
    for (Sequence s = 1; s <= 4; ++s) EXPECT_TRUE(add(replay, record(s)).ok());
    EXPECT_TRUE(replay.done());
    EXPECT_EQ(replay.state().sequence, 2u);
    return replay.state().digest();
  }();
  Replay inside(3);
  for (Sequence s = 1; s <= 4; ++s) ASSERT_TRUE(add(inside, record(s)).ok());
  EXPECT_EQ(inside.state().sequence, 2u) << "3 is inside a command";
  EXPECT_EQ(inside.state().digest(), at_two);
  EXPECT_TRUE(inside.finish().ok());
  Replay whole;
  for (Sequence s = 1; s <= 4; ++s) ASSERT_TRUE(add(whole, record(s)).ok());
  EXPECT_EQ(whole.state().digest(), state().digest());
  Replay none(0);
  ASSERT_TRUE(add(none, record(1)).ok());
  EXPECT_EQ(none.state().sequence, 0u);
}

TEST_F(LogTest, ReplayTellsALogThatIsNotOne) {
  run(register_model("a"));
  run(Command(batch({register_model("b"), register_model("c")})));
  const std::vector<Record> log = {record(1), record(2), record(3), record(4)};
  const auto replayed_with = [&](std::vector<Record> records) {
    Replay replay;
    for (const Record& record : records) {
      absl::Status status = add(replay, record);
      if (!status.ok()) return status;
    }
    return replay.finish();
  };
  EXPECT_TRUE(replayed_with(log).ok());
  const struct {
    const char* name;
    std::vector<Record> records;
  } cases[] = {
      {"a gap", {log[0], log[2], log[3]}},          {"a record twice", {log[0], log[0]}},
      {"half a command", {log[0], log[1], log[2]}}, {"the second half of a command", {log[0], log[1], log[3]}},
      {"a beginning in the middle", {log[1]}},
  };
  for (const auto& [name, records] : cases) {
    SCOPED_TRACE(name);
    EXPECT_EQ(replayed_with(records).code(), StatusCode::kDataLoss);
  }
  Record early = log[1];
  early.time = kStart - 1;
  EXPECT_EQ(replayed_with({log[0], early}).code(), StatusCode::kDataLoss);
  Record foreign = log[1];
  foreign.incarnation = 99;
  EXPECT_EQ(replayed_with({log[0], foreign}).code(), StatusCode::kDataLoss);
  Replay replay;
  const std::string garbage(100, 'x');
  const absl::Status status = replay.add(std::as_bytes(std::span(garbage)));
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("record 1"));
}

TEST_F(LogTest, RecoveryTellsHowFarItIs) {
  for (int i = 0; i < 50; ++i) run(register_model("m" + std::to_string(i)));
  flush();
  std::vector<Sequence> told;
  const auto recovered = service::recover(*journal_, [&](Sequence done, Sequence end) {
    told.push_back(done);
    EXPECT_EQ(end, 51u);
    return true;
  });
  ASSERT_TRUE(recovered.ok());
  EXPECT_EQ(recovered->digest(), state().digest());
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back(), 51u);
}

TEST_F(LogTest, RecoveryGivesUpWhenItIsTold) {
  run(register_model("a"));
  flush();
  int told = 0;
  const auto recovered = service::recover(*journal_, [&](Sequence, Sequence) { return ++told == 0; });
  EXPECT_EQ(recovered.status().code(), StatusCode::kCancelled);
  EXPECT_EQ(told, 1);
}

TEST_F(LogTest, RecoveryStopsAtDamage) {
  run(register_model("a"));
  flush();
  journal_->damage(2);
  EXPECT_EQ(service::recover(*journal_).status().code(), StatusCode::kDataLoss);
}

TEST_F(LogTest, ReplaysBesideWhoHasTheRecords) {
  for (int i = 0; i < 2'000; ++i) run(register_model("m" + std::to_string(i)));
  flush();
  const auto all = journal_->read(1, 10'000, std::size_t{64} << 20U);
  ASSERT_EQ(all->records.size(), 2'001u);
  const std::vector<std::string_view> views(all->records.begin(), all->records.end());
  for (const std::size_t some : {1U, 7U, 3'000U}) {
    service::ReplayBeside replay({});
    for (std::size_t at = 0; at < views.size(); at += some) {
      EXPECT_EQ(replay.next(), at + 1);
      EXPECT_TRUE(replay.take(std::span(views).subspan(at, std::min(some, views.size() - at))));
    }
    const auto replayed = replay.finish();
    ASSERT_TRUE(replayed.ok()) << replayed.status();
    EXPECT_EQ(replayed->state.sequence, 2'001u);
    EXPECT_EQ(replayed->state.digest(), state().digest());
  }
  service::ReplayBeside unfinished({});
  EXPECT_TRUE(unfinished.take(views));
}

TEST_F(LogTest, AReplayBesideTellsWhatItCannotTake) {
  run(register_model("a"));
  flush();
  const auto all = journal_->read(1, 10, 10'000);
  const std::vector<std::string_view> wrong_order{all->records[1], all->records[0]};
  const std::vector<std::string_view> garbage{all->records[0], "garbage"};
  for (const auto& [records, says] :
       {std::pair(wrong_order, "record 2 stands where record 1 belongs"), std::pair(garbage, "record 2: ")}) {
    service::ReplayBeside replay({});
    for (int i = 0; i < 100'000 && replay.take(records); ++i) {
    }
    EXPECT_FALSE(replay.take(records)) << "no more are wanted, once it is known";
    const absl::Status status = replay.finish().status();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
  }
}

TEST_F(LogTest, TellsWhereAnotherDigestIsNoted) {
  run(register_model("a"));
  service_->note_digest_at_end();
  flush();
  const service::NotedDigest right = service::noted_digest(state());
  service::NotedDigest wrong = right;
  wrong.registry.low ^= 1;
  service::NotedDigest elsewhere = wrong;
  --elsewhere.sequence;
  std::vector<service::NotedDigest> told;
  service::ReplayOptions options;
  options.on_contradiction = [&](const service::Contradiction& found) {
    EXPECT_EQ(found.noted, right);
    told.push_back(found.replayed);
  };
  EXPECT_TRUE(service::compare_digests(*journal_, {elsewhere, right, wrong}, options).ok());
  EXPECT_THAT(told, testing::ElementsAre(wrong));
}

TEST_F(LogTest, AReplayIsNeverSilentlyShorterThanTheLog) {
  for (int i = 0; i < 10; ++i) run(register_model("m" + std::to_string(i)));
  flush();
  const auto replay = [&](std::size_t records, Sequence until) {
    service::ReplayOptions options;
    options.until = until;
    const service::Scan scan = [&](const storage::VisitRecords& visit) {
      const auto page = journal_->read(1, 100, std::size_t{1} << 20U);
      const std::vector<std::string_view> views(page->records.begin(), page->records.end());
      visit(std::span(views).first(records));
      return absl::OkStatus();
    };
    return service::replay_log({}, *journal_, scan, options);
  };
  constexpr Sequence kNoEnd = std::numeric_limits<Sequence>::max();
  EXPECT_TRUE(replay(11, kNoEnd).ok());
  EXPECT_TRUE(replay(8, 8).ok());
  for (const std::size_t records : {0U, 1U, 10U}) {
    const Result<service::State> state = replay(records, kNoEnd);
    EXPECT_EQ(state.status().code(), StatusCode::kDataLoss);
    EXPECT_THAT(std::string(state.status().message()),
                HasSubstr("the log ends at sequence 11, but its records end at " + std::to_string(records)));
  }
}

TEST_F(LogTest, ANewIncarnationKeepsTheOldIdsApart) {
  run(create_pool("gpu0", 1000));
  const std::string before = result_of<result::Allocated>(run(allocate("gpu0", 10))).block_id;
  service::State state = replayed();
  write(service::start_incarnation(state, IncarnationCause::Restore, journal_->durable_head().root, 0xffff0000,
                                   kStart - 1));
  EXPECT_EQ(state.incarnation(), 0xffff0000);
  EXPECT_TRUE(state.remembers(3, kIncarnation));
  EXPECT_FALSE(state.remembers(4, kIncarnation)) << "it ended before that";
  EXPECT_TRUE(state.remembers(4, 0xffff0000));
  EXPECT_FALSE(state.remembers(5, 0xffff0000));
  EXPECT_FALSE(state.remembers(1, 7));
  restart();
  const std::string after = result_of<result::Allocated>(run(allocate("gpu0", 10))).block_id;
  EXPECT_THAT(before, HasSubstr("b-0a1b2c3d-"));
  EXPECT_THAT(after, HasSubstr("b-ffff0000-"));
  EXPECT_EQ(record(4).time, kStart) << "time does not go back with the clock";
  EXPECT_EQ(std::get<IncarnationStarted>(std::get<ServerEvent>(record(4).event)).previous, kIncarnation);
}

TEST_F(LogTest, ReadLogComesInPages) {
  for (int i = 0; i < 9; ++i) run(register_model("m" + std::to_string(i)), {.reason = i == 0 ? "first" : ""});
  Reply page = read(query::ReadLog{0, 4});
  EXPECT_THAT(sequences(page), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(page.next_page_token, "5");
  EXPECT_EQ(page.sequence, 10u);
  const auto& records = std::get<result::LogRecords>(page.result).records;
  EXPECT_EQ(records[0].salt, std::nullopt);
  EXPECT_NE(records[1].salt, std::nullopt);
  EXPECT_EQ(codec::decode_note(std::as_bytes(std::span(records[1].note)))->reason, "first");
  page = read(query::ReadLog{9, 4});
  EXPECT_THAT(sequences(page), ElementsAre(9, 10));
  EXPECT_EQ(page.next_page_token, std::nullopt);
  EXPECT_THAT(sequences(read(query::ReadLog{11, 4})), IsEmpty());
  EXPECT_THAT(sequences(read(query::ReadLog{1, 0}, 500)), SizeIs(testing::Lt(5u))) << "it ends at half a frame too";
  EXPECT_EQ(read(query::ReadLog{1, 10'001}).status.code(), StatusCode::kInvalidArgument);
}

TEST_F(LogTest, ReadHistoryFindsTheRecordsOfAStream) {
  run(register_model("a"));                                                      // 2
  run(register_model("b"));                                                      // 3
  run(transition("a", DeploymentState::Validating), {.session = SessionId{9}});  // 4
  run(create_pool("gpu0", 100));                                                 // 5
  const auto history = [&](const std::string& stream) { return sequences(read(query::ReadHistory{stream, {}})); };
  EXPECT_THAT(history("model/a"), ElementsAre(2, 4));
  EXPECT_THAT(history("pool/gpu0"), ElementsAre(5));
  EXPECT_THAT(history("server"), ElementsAre(1));
  EXPECT_THAT(history("session/09000000000000000000000000000000"), ElementsAre(4));
  EXPECT_THAT(history("principal/ann"), ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(history("run/none"), IsEmpty());
  EXPECT_EQ(read(query::ReadHistory{"model", {}}).status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(read(query::ReadHistory{"model/", {}}).status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(read(query::ReadHistory{"server", {0, "x"}}).status.code(), StatusCode::kInvalidArgument);
}

TEST_F(LogTest, AHistoryGoesOnWhereAPageOrAScanEnded) {
  for (std::uint32_t i = 0; i < 20; ++i) run(register_model(i % 5 == 0 ? "rare" : "other", {i, 0, 0}));
  const auto all = [&](std::uint32_t page_size, std::size_t scan) {
    std::vector<Sequence> found;
    query::ReadHistory query{"model/rare", {page_size, {}}};
    for (;;) {
      const Reply page = read(query, 1 << 19, scan);
      for (const Sequence s : sequences(page)) found.push_back(s);
      if (!page.next_page_token) return found;
      query.page.token = page.next_page_token;
    }
  };
  for (const std::uint32_t page_size : {1u, 2u, 100u}) {
    for (const std::size_t scan : {1u, 3u, 1000u}) EXPECT_THAT(all(page_size, scan), ElementsAre(2, 7, 12, 17));
  }
}

TEST_F(LogTest, VerificationTellsTheEndOrTheDamage) {
  run(register_model("a"));
  const Reply good = read(query::VerifyLog{});
  EXPECT_EQ(result_of<result::LogVerified>(good).sequence, 2u);
  EXPECT_EQ(result_of<result::LogVerified>(good).root, journal_->durable_head().root);
  journal_->damage(2);
  EXPECT_EQ(read(query::VerifyLog{}).status.code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tensorforge::test
