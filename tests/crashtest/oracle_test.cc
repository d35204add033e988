// The oracle has to flag each way in which a service can break its promises.
#include "crashtest/oracle.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "crashtest/ledger.h"
#include "crashtest/world.h"
#include "service/recover.h"
#include "storage/merkle.h"

namespace tensorforge::crashtest {
namespace {

std::span<const std::byte> bytes_of(const std::string& record) { return std::as_bytes(std::span(record)); }

/// A log of any records at all, which believes in itself.
class AnyLog final : public storage::Log {
 public:
  explicit AnyLog(const storage::Log& from) {
    const Sequence end = from.durable_head().sequence;
    while (records.size() < end) {
      Result<storage::Records> page = from.read(records.size() + 1, 10'000, 1U << 20U);
      for (std::string& record : page->records) {
        notes.push_back(*from.note(records.size() + 1));
        records.push_back(std::move(record));
      }
    }
    head = from.durable_head();
  }

  storage::TreeHead durable_head() const override { return head; }
  LogId log_id() const override { return {}; }
  Result<storage::Records> read(Sequence first, std::size_t, std::size_t) const override {
    storage::Records page;
    page.first = first;
    page.records.assign(records.begin() + static_cast<std::ptrdiff_t>(first - 1), records.end());
    return page;
  }
  absl::Status scan(Sequence first, const storage::VisitRecords& visit) const override {
    const std::vector<std::string_view> views(records.begin() + static_cast<std::ptrdiff_t>(first - 1), records.end());
    visit(views);
    return absl::OkStatus();
  }
  absl::Status check(storage::LogPoint&, const storage::VisitRecords&) const override {
    return absl::UnimplementedError("it has no chunks");
  }
  Result<std::optional<storage::NotedAt>> newest_noted_digest() const override { return std::nullopt; }
  Result<std::optional<storage::Note>> note(Sequence sequence) const override { return notes.at(sequence - 1); }
  Result<std::optional<std::string>> noted_digest(Sequence) const override { return std::nullopt; }
  Result<storage::LogVerified> verify() const override { return verified; }

  Record record(Sequence sequence) const { return codec::decode_record(bytes_of(records.at(sequence - 1))).value(); }
  void set_record(const Record& record) { records.at(record.sequence - 1) = codec::encode_record(record).value(); }
  void append(Record record) {
    record.sequence = records.size() + 1;
    record.time = this->record(records.size()).time;
    records.push_back(codec::encode_record(record).value());
    notes.emplace_back();
  }
  void cut(Sequence end) { records.resize(end); }

  std::vector<std::string> records;
  std::vector<std::optional<storage::Note>> notes;
  storage::TreeHead head;
  Result<storage::LogVerified> verified = storage::LogVerified{};
};

/// A history of an honest service, and the same with one lie in it.
class OracleTest : public testing::Test {
 protected:
  OracleTest() {
    const auto disk = std::make_shared<SimulatedDisk>();
    World world(7);
    World::Plan plan;
    plan.requests = 150;
    EXPECT_EQ(world.live(disk, plan).end, World::End::kStopped);
    plan.requests = 0;
    plan.on_recovered = [&](const Recovered& recovered) { log_ = std::make_unique<AnyLog>(recovered.log); };
    EXPECT_EQ(world.live(disk, plan).end, World::End::kStopped);
    calls_ = world.calls().calls();
    config_ = world.config();
    EXPECT_TRUE(check().ok()) << text(check());
    EXPECT_GT(check().acknowledged, 20U);
    EXPECT_GT(check().refused, 5U);
    EXPECT_GT(check().read, 10U);
  }

  /// The log's tree and the recovered state are those of its records, unless a test sets them.
  Verdict check() const {
    AnyLog& log = *log_;
    storage::MerkleFrontier frontier;
    for (const std::string& record : log.records) frontier.append(record);
    log.head.sequence = log.records.size();
    log.head.root = root_.value_or(frontier.root());
    return check_history(journal(), kForever - 1, {log, digest_.value_or(fold()), config_, disk_was_full_, everything_},
                         before_);
  }
  /// As far as the history is legal: a projection trusts its events.
  Digest fold() const {
    service::Replay replay;
    Ledger ledger;
    for (const std::string& bytes : log_->records) {
      const Result<Record> record = codec::decode_record(bytes_of(bytes));
      if (!record.ok() || !ledger.add(record->event).empty() || !replay.add(bytes_of(bytes)).ok()) break;
    }
    return replay.state().digest();
  }
  void expect(Violation violation) const {
    const Verdict verdict = check();
    EXPECT_TRUE(verdict.has(violation)) << "wanted " << to_string(violation) << ", got " << text(verdict);
  }
  static std::string text(const Verdict& verdict) {
    std::string all = "(";
    for (const Finding& finding : verdict.findings) {
      all += std::string(to_string(finding.violation)) + ": " + finding.what + "; ";
    }
    return all + ")";
  }

  /// calls_, begun and answered in their order.
  CallJournal journal() const {
    std::vector<std::pair<Moment, std::function<void(CallJournal&)>>> steps;
    for (std::size_t i = 0; i < calls_.size(); ++i) {
      const Call& call = calls_[i];
      steps.emplace_back(call.begun, [&call](CallJournal& journal) { journal.begin(call); });
      if (call.answered == kForever) continue;
      steps.emplace_back(call.answered, [&call, i](CallJournal& journal) { journal.answer(i, call.reply); });
    }
    std::sort(steps.begin(), steps.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    CallJournal journal;
    for (const auto& [moment, step] : steps) step(journal);
    return journal;
  }
  /// The last call that `fits`.
  Call& call_that(const std::function<bool(const Call&)>& fits) {
    const auto found = std::find_if(calls_.rbegin(), calls_.rend(), fits);
    EXPECT_NE(found, calls_.rend()) << "the history is too tame";
    return *found;
  }
  bool is_in_log(const Call& call) const {
    return call.number != 0 && call.reply.sequence != 0 && log_->record(call.reply.sequence).session == call.session &&
           log_->record(call.reply.sequence).command_number == call.number;
  }
  Call& last_change() {
    return call_that([this](const Call& call) { return is_in_log(call) && call.reply.status.ok(); });
  }

  std::unique_ptr<AnyLog> log_;
  std::vector<Call> calls_;
  service::Config config_;
  std::optional<Hash> root_;
  std::optional<Digest> digest_, everything_;
  std::vector<Digest> before_;
  bool disk_was_full_{};
};

TEST_F(OracleTest, FlagsALostChange) {
  const Sequence last = last_change().reply.sequence;
  log_->cut(last - log_->record(last).parts);
  expect(Violation::kLost);
  EXPECT_GT(check().lost, 0U);
}

TEST_F(OracleTest, FlagsALostChangeBehindWhichAllWasMovedUp) {
  const Call& lost = last_change();
  std::erase_if(log_->records, [&](const std::string& bytes) {
    const Record record = codec::decode_record(bytes_of(bytes)).value();
    return record.session == lost.session && record.command_number == lost.number;
  });
  for (Sequence i = 1; i <= log_->records.size(); ++i) {
    Record record = log_->record(i);
    record.sequence = i;
    log_->set_record(record);
  }
  expect(Violation::kLost);
}

TEST_F(OracleTest, FlagsRecordsThatWereDurableAndAreGone) {
  before_ = check().records;
  before_.emplace_back();
  expect(Violation::kLost);
  before_.pop_back();
  ++before_.at(3).low;
  expect(Violation::kLost);
}

TEST_F(OracleTest, FlagsACommandThatWasDoneTwice) {
  log_->append(log_->record(last_change().reply.sequence));
  expect(Violation::kDoubled);
}

TEST_F(OracleTest, FlagsTheRetryOfAnUnansweredCommandThatWasDoneTwice) {
  Call& call = last_change();
  call.answered = kForever;
  EXPECT_TRUE(check().ok()) << text(check());
  EXPECT_EQ(check().unknown_kept, 1U);
  log_->append(log_->record(call.reply.sequence));
  expect(Violation::kDoubled);
}

TEST_F(OracleTest, AcceptsAnUnansweredCommandThatWasNeverDone) {
  Call call = last_change();
  call.number += 1'000;
  call.answered = kForever;
  call.begun = kForever - 2;
  calls_.push_back(call);
  EXPECT_TRUE(check().ok()) << text(check());
  EXPECT_EQ(check().unknown_dropped, 1U);
}

TEST_F(OracleTest, FlagsAnAnswerThatTheLogDoesNotGive) {
  Call& call = call_that([](const Call& each) { return std::holds_alternative<result::Allocated>(each.reply.result); });
  std::get<result::Allocated>(call.reply.result).offset += 256;
  expect(Violation::kChangedAnswer);
}

TEST_F(OracleTest, FlagsAChangeAtAnotherSequenceThanWasTold) {
  Call& call = call_that([this](const Call& each) {
    return is_in_log(each) && each.reply.sequence > 3 && log_->record(each.reply.sequence).parts == 1;
  });
  --call.reply.sequence;
  EXPECT_FALSE(check().ok());
}

TEST_F(OracleTest, FlagsARecordThatItsCommandDoesNotMake) {
  Record record = log_->record(last_change().reply.sequence);
  record.actor = "somebody else";
  log_->set_record(record);
  expect(Violation::kChangedRecord);
}

TEST_F(OracleTest, FlagsALostNote) {
  const auto noted =
      std::find_if(log_->notes.begin(), log_->notes.end(), [](const auto& note) { return note.has_value(); });
  ASSERT_NE(noted, log_->notes.end()) << "the history is too tame";
  noted->reset();
  expect(Violation::kLostNote);
}

TEST_F(OracleTest, FlagsARecordOfNobody) {
  Record record = log_->record(last_change().reply.sequence);
  record.session = SessionId{1, 2, 3};
  record.opened_at = 1;
  log_->append(record);
  expect(Violation::kForeignRecord);
}

TEST_F(OracleTest, FlagsAHole) {
  log_->records.erase(log_->records.begin() + 5);
  expect(Violation::kHole);
}

TEST_F(OracleTest, FlagsHalfACommand) {
  Sequence first = 0;
  for (Sequence i = 1; i <= log_->records.size(); ++i) {
    if (log_->record(i).parts > 1 && log_->record(i).part == 0) first = i;
  }
  ASSERT_GT(first, 0U) << "the history is too tame";
  log_->cut(first);
  expect(Violation::kHole);
}

TEST_F(OracleTest, FlagsAWrongRoot) {
  root_ = Hash{1, 2, 3};
  expect(Violation::kWrongTree);
}

TEST_F(OracleTest, FlagsALogThatDoesNotVerify) {
  log_->verified = absl::DataLossError("events 3..5 are missing");
  expect(Violation::kUnreadable);
}

TEST_F(OracleTest, FlagsAStateThatTheLogDoesNotFoldTo) {
  digest_ = Digest{1, 2};
  expect(Violation::kWrongState);
}

TEST_F(OracleTest, FlagsAStateThatForgotItsSessions) {
  service::Replay replay;
  for (const std::string& record : log_->records) ASSERT_TRUE(replay.add(bytes_of(record)).ok());
  service::State state = replay.take();
  everything_ = digest_of_everything(state);
  EXPECT_TRUE(check().ok()) << text(check());
  state.sessions = service::Sessions();
  everything_ = digest_of_everything(state);
  EXPECT_EQ(state.digest(), fold()) << "it differs in nothing else";
  expect(Violation::kWrongState);
}

TEST_F(OracleTest, FlagsAnIllegalLifecycle) {
  for (Sequence i = 1; i <= log_->records.size(); ++i) {
    Record record = log_->record(i);
    auto* models = std::get_if<registry::Event>(&record.event);
    auto* moved = models == nullptr ? nullptr : std::get_if<registry::StateTransitioned>(models);
    if (moved == nullptr) continue;
    moved->to = registry::DeploymentState::Archived;
    log_->set_record(record);
    return expect(Violation::kIllegalHistory);
  }
  FAIL() << "the history is too tame";
}

TEST_F(OracleTest, FlagsABlockOverAnother) {
  std::optional<std::size_t> taken;
  for (Sequence i = 1; i <= log_->records.size(); ++i) {
    Record record = log_->record(i);
    auto* gpu = std::get_if<gpu_memory::Event>(&record.event);
    auto* allocated = gpu == nullptr ? nullptr : std::get_if<gpu_memory::BlockAllocated>(gpu);
    if (allocated == nullptr) continue;
    if (!std::exchange(taken, allocated->offset)) continue;
    allocated->offset = 0;
    allocated->request.alignment = 1;
    log_->set_record(record);
    return expect(Violation::kIllegalHistory);
  }
  FAIL() << "the history is too tame";
}

TEST_F(OracleTest, FlagsAReadOfAnOlderState) {
  // A list of models, as it was before the last change to one.
  const auto lists_models = [](const Call& call) {
    return std::holds_alternative<result::Models>(call.reply.result) &&
           std::get<result::Models>(call.reply.result).models.size() > 0;
  };
  Call& read = call_that(lists_models);
  std::get<result::Models>(read.reply.result).models.pop_back();
  expect(Violation::kUnexplained);
}

TEST_F(OracleTest, FlagsAnAnswerOlderThanWhatWasToldBefore) {
  // True at its sequence, and asked for when more had been told.
  Call late = call_that([](const Call& call) {
    return call.number == 0 && call.reply.status.ok() && std::holds_alternative<result::Models>(call.reply.result);
  });
  late.begun = kForever - 3;
  late.answered = kForever - 2;
  ASSERT_LT(late.reply.sequence, log_->records.size());
  calls_.push_back(late);
  expect(Violation::kOrder);
}

TEST_F(OracleTest, FlagsARefusalThatTheStateDoesNotGive) {
  Call& call = call_that(
      [this](const Call& each) { return each.number != 0 && absl::IsNotFound(each.reply.status) && !is_in_log(each); });
  call.reply.status = absl::AlreadyExistsError("it is there");
  expect(Violation::kUnexplained);
}

TEST_F(OracleTest, AcceptsThatAFullDiskRefusesOnlyWhereItWasFull) {
  Call refused = last_change();
  refused.number += 1'000;
  refused.begun = kForever - 3;
  refused.answered = kForever - 2;
  refused.reply.status =
      absl::ResourceExhaustedError("5 bytes are free on the disk, under the reserve of 9: free some");
  refused.reply.result = {};
  refused.reply.sequence = log_->records.size();
  calls_.push_back(refused);
  expect(Violation::kUnexplained);
  disk_was_full_ = true;
  EXPECT_TRUE(check().ok()) << text(check());
}

}  // namespace
}  // namespace tensorforge::crashtest
