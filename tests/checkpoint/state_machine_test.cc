#include "checkpoint/state_machine.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "platform/names.h"
#include "tests/checkpoint/support.h"

namespace tensorforge::checkpoint {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr EntityId kF0{7, 1}, kI1{7, 2}, kF2{7, 3};

class CheckpointStateMachine : public testing::Test {
 protected:
  void given(const Events& events) {
    for (const Event& event : events) apply(state_, event);
  }
  /// F0 <- I1 and F2, all Complete, in run "r".
  void given_a_chain_and_a_root() {
    given({CheckpointCreated{kF0, {"r", 0, 0, kFull, {{"m", 2.0}}}, {}, 1000}, CheckpointCompleted{kF0, "r", 5, "/f0"},
           CheckpointCreated{kI1, {"r", 0, 1, kIncremental, {{"m", 1.0}}}, kF0, 2000},
           CheckpointCompleted{kI1, "r", 5, "/i1"}, CheckpointCreated{kF2, {"r", 0, 2, kFull, {{"m", 1.0}}}, {}, 3000},
           CheckpointCompleted{kF2, "r", 5, "/f2"}});
  }
  absl::Status refusal(const Command& command) const { return decide(state_, command, {.now = 9000}).status(); }

  State state_;
};

CreateCheckpoint create(std::string run, std::map<std::string, double> metrics = {}) {
  return {{std::move(run), 0, 0, kFull, std::move(metrics)}};
}

std::map<std::string, double> metrics_of(std::size_t count, std::size_t key_bytes) {
  std::map<std::string, double> metrics;
  for (std::size_t i = 0; i < count; ++i) {
    const std::string number = std::to_string(1000 + i);
    metrics[number + std::string(key_bytes - number.size(), 'k')] = 1;
  }
  return metrics;
}

TEST_F(CheckpointStateMachine, RefusesBadArguments) {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string long_path(names::kMaxTextBytes + 1, 'p');
  const struct {
    const char* name;
    Command command;
    const char* message;
  } cases[] = {
      {"empty run id", create(""), "training run id"},
      {"run id with @", create("a@b"), "training run id"},
      {"run id over the limit", create(std::string(256, 'r')), "255"},
      {"NaN metric", create("r", {{"loss", nan}}), "\"loss\""},
      {"infinite metric", create("r", {{"loss", inf}}), "\"loss\""},
      {"negative infinity", create("r", {{"loss", -inf}}), "\"loss\""},
      {"empty metric key", create("r", {{"", 1.0}}), "metric key"},
      {"257 metrics", create("r", metrics_of(257, 8)), "256"},
      {"keys of over 16 KiB", create("r", metrics_of(65, 255)), "16384"},
      {"unknown type", CreateCheckpoint{{"r", 0, 0, static_cast<CheckpointType>(3), {}}}, "checkpoint type"},
      {"empty path", CompleteCheckpoint{"unknown", 1, ""}, "storage path"},
      {"path over the limit", CompleteCheckpoint{"unknown", 1, long_path}, "4096"},
      {"path that is no text", CompleteCheckpoint{"unknown", 1, "\xff"}, "UTF-8"},
      {"policy of a bad run id", SetPolicy{"", {}}, "training run id"},
      {"policy by a bad key", SetPolicy{{}, {0, 0, 1, " loss", true}}, "metric key"},
  };
  for (const auto& [name, command, message] : cases) {
    SCOPED_TRACE(name);
    const absl::Status status = refusal(command);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST_F(CheckpointStateMachine, AcceptsWhatIsJustWithinTheLimits) {
  EXPECT_TRUE(refusal(create(std::string(255, 'r'), metrics_of(256, 64))).ok());
  given({CheckpointCreated{kF0, {"r", 0, 0, kFull, {}}, {}, 0}});
  EXPECT_TRUE(refusal(CompleteCheckpoint{"ck-00000007-1", 1, std::string(names::kMaxTextBytes, 'p')}).ok());
  EXPECT_TRUE(refusal(SetPolicy{{}, {0, 0, 1, "recall@10", true}}).ok());
}

TEST_F(CheckpointStateMachine, RefusesWithTheCodeOfTheCause) {
  given_a_chain_and_a_root();
  given({CheckpointCorrupted{kF2, "r"}});
  using enum absl::StatusCode;
  const struct {
    const char* name;
    Command command;
    absl::StatusCode code;
    const char* message;
  } cases[] = {
      {"unknown: complete", CompleteCheckpoint{"ck-00000007-9", 1, "/p"}, kNotFound, "ck-00000007-9"},
      {"unknown: corrupt", CorruptCheckpoint{"nonsense"}, kNotFound, "nonsense"},
      {"unknown: remove", RemoveCheckpoint{"ck-00000000-1"}, kNotFound, "ck-00000000-1"},
      {"of another spelling", RemoveCheckpoint{"ck-00000007-02"}, kNotFound, "ck-00000007-02"},
      {"complete twice", CompleteCheckpoint{"ck-00000007-1", 1, "/p"}, kFailedPrecondition,
       "cannot go from Complete to Complete; allowed: Corrupted, Deleted"},
      {"corrupt twice", CorruptCheckpoint{"ck-00000007-3"}, kFailedPrecondition,
       "cannot go from Corrupted to Corrupted; allowed: Deleted"},
      {"a live one descends from it", RemoveCheckpoint{"ck-00000007-1"}, kFailedPrecondition, "\"ck-00000007-2\""},
  };
  for (const auto& [name, command, code, message] : cases) {
    SCOPED_TRACE(name);
    const absl::Status status = refusal(command);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST_F(CheckpointStateMachine, NumbersGoOnThroughIncarnations) {
  given({CheckpointCreated{{7, 41}, {"r", 0, 0, kFull, {}}, {}, 0}});
  const Result<Events> events = decide(state_, create("r"), {.now = 5, .incarnation = 0xABCD});
  ASSERT_TRUE(events.ok());
  EXPECT_THAT(*events, ElementsAre(Event(CheckpointCreated{{0xABCD, 42}, {"r", 0, 0, kFull, {}}, {}, 5})));
  given(*events);
  EXPECT_TRUE(state_.find("ck-0000abcd-42").has_value());
  EXPECT_TRUE(state_.find("ck-00000007-41").has_value());
  EXPECT_FALSE(state_.find("ck-00000007-42").has_value());
}

TEST_F(CheckpointStateMachine, SettingAPolicyThatIsSetChangesNothing) {
  const GcPolicy policy{3, 0, 0, "", true};
  const auto events_of = [this](const Command& command) { return decide(state_, command, {}).value(); };
  EXPECT_THAT(events_of(SetPolicy{{}, {}}), IsEmpty());
  EXPECT_EQ(events_of(SetPolicy{"r", {}}).size(), 1u) << "the run gets one of its own, like the default or not";
  given({PolicySet{{}, policy}, PolicySet{"r", policy}});
  EXPECT_THAT(events_of(SetPolicy{{}, policy}), IsEmpty());
  EXPECT_THAT(events_of(SetPolicy{"r", policy}), IsEmpty());
  EXPECT_EQ(state_.policy("r"), policy);
  EXPECT_EQ(state_.policy("s"), std::nullopt);
  EXPECT_EQ(state_.default_policy(), policy);
  EXPECT_FALSE(state_.has_run("r")) << "a policy makes no run";
}

TEST_F(CheckpointStateMachine, CollectsEachRunByItsOwnPolicyElseTheDefault) {
  EntityId id{7, 0};
  for (const char* run : {"own", "default"}) {
    for (std::uint64_t step = 0; step < 4; ++step) {
      ++id.number;
      given({CheckpointCreated{id, {run, 0, step, kFull, {}}, {}, step}, CheckpointCompleted{id, run, 1, "/p"}});
    }
  }
  given({PolicySet{{}, {3, 0, 0, "", true}}, PolicySet{"own", {1, 0, 0, "", true}}});
  const Events events = decide(state_, CollectGarbage{}, {.now = 9}).value();
  std::vector<std::uint64_t> deleted;
  for (const Event& event : events) deleted.push_back(std::get<CheckpointDeleted>(event).checkpoint.number);
  EXPECT_THAT(deleted, ElementsAre(5, 3, 2, 1)) << "runs by id, within a run the highest step first";
}

TEST_F(CheckpointStateMachine, SaysInTheLastEventWhetherALimitEndedTheCollection) {
  given_a_chain_and_a_root();
  given({PolicySet{{}, {1, 0, 0, "", true}}});
  const CheckpointDeleted i1{kI1, "r", DeletionCause::GarbageCollected, "/i1", 5, false};
  CheckpointDeleted i1_and_more = i1;
  i1_and_more.more = true;
  const CheckpointDeleted f0{kF0, "r", DeletionCause::GarbageCollected, "/f0", 5, false};
  const std::size_t no_limit = std::numeric_limits<std::size_t>::max();
  const std::size_t bytes_of_one = std::string("ck-00000007-1r/f0").size();
  const struct {
    const char* name;
    std::size_t max_deletions, max_path_bytes;
    Events want;
  } cases[] = {
      {"none", no_limit, no_limit, {i1, f0}},
      {"exactly enough", 2, bytes_of_one * 2, {i1, f0}},
      {"one deletion", 1, no_limit, {i1_and_more}},
      {"one byte too few", no_limit, bytes_of_one * 2 - 1, {i1_and_more}},
      {"too few for any: one goes, or it would never end", 0, 0, {i1_and_more}},
  };
  for (const auto& [name, max_deletions, max_path_bytes, want] : cases) {
    SCOPED_TRACE(name);
    const Context context{.now = 9000, .max_deletions = max_deletions, .max_path_bytes = max_path_bytes};
    EXPECT_EQ(decide(state_, CollectGarbage{}, context).value(), want);
  }
}

TEST_F(CheckpointStateMachine, GivesListsInPagesThatGoOnBehindADeletedOne) {
  given_a_chain_and_a_root();
  EXPECT_THAT(ids_of(state_.list_for_run("r", {}, 2)), ElementsAre("ck-00000007-1", "ck-00000007-2"));
  EXPECT_THAT(ids_of(state_.list_for_run("r", "ck-00000007-2", 2)), ElementsAre("ck-00000007-3"));
  EXPECT_THAT(ids_of(state_.find_by_metric("r", "m", 9, true, {}, 2)), ElementsAre("ck-00000007-3", "ck-00000007-2"));
  given({CheckpointDeleted{kI1, "r", DeletionCause::Removed, "/i1", 5, false}});
  EXPECT_THAT(ids_of(state_.list_for_run("r", "ck-00000007-2", 2)), ElementsAre("ck-00000007-3"));
  EXPECT_THAT(ids_of(state_.find_by_metric("r", "m", 9, true, "ck-00000007-2", 2)), ElementsAre("ck-00000007-1"));
  EXPECT_THAT(state_.list_for_run("r", "ck-00000007-9", 2), IsEmpty());
  EXPECT_THAT(state_.find_by_metric("r", "m", 9, true, "nonsense", 2), IsEmpty());
}

TEST(CheckpointMetrics, GoOnBehindOneThatIsNotCompleteAnyMore) {
  State state;
  const auto run = [&state](const Command& command) {
    const Result<Events> events = decide(state, command, {.now = 1000});
    ASSERT_TRUE(events.ok()) << events.status();
    for (const Event& event : *events) apply(state, event);
  };
  for (const double loss : {2.0, 1.0, 1.0, 1.0, 3.0}) {  // all at one step, so that creation decides
    run(CreateCheckpoint{{"r", 1, 1, CheckpointType::Full, {{"loss", loss}}}});
  }
  const auto id = [](int number) { return "ck-00000000-" + std::to_string(number); };
  for (int i = 1; i <= 5; ++i) run(CompleteCheckpoint{id(i), 1, "/s"});
  const auto behind = [&](int number, bool ascending) {
    return ids_of(state.find_by_metric("r", "loss", ascending ? 9 : 0, ascending, id(number), 10));
  };
  run(CorruptCheckpoint{id(3)});
  EXPECT_THAT(behind(3, true), ElementsAre(id(2), id(1), id(5)));
  EXPECT_THAT(behind(3, false), ElementsAre(id(2)));
  EXPECT_THAT(behind(4, true), ElementsAre(id(2), id(1), id(5)));
  EXPECT_THAT(behind(1, false), ElementsAre(id(4), id(2)));
  for (const int number : {1, 2, 4, 5}) run(RemoveCheckpoint{id(number)});
  EXPECT_THAT(behind(3, true), IsEmpty());
  EXPECT_THAT(behind(3, false), IsEmpty());
}

TEST_F(CheckpointStateMachine, GivesTheChainAndItsVerdict) {
  given_a_chain_and_a_root();
  EXPECT_THAT(ids_of(state_.restoration_chain("ck-00000007-2")), ElementsAre("ck-00000007-1", "ck-00000007-2"));
  EXPECT_THAT(state_.restoration_chain("ck-00000007-9"), IsEmpty());
  EXPECT_TRUE(state_.validate("ck-00000007-2").ok());
  EXPECT_EQ(state_.validate("ck-00000007-9").code(), absl::StatusCode::kNotFound);
  given({CheckpointCorrupted{kF0, "r"}});
  EXPECT_EQ(state_.validate("ck-00000007-2").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*state_.run_of("ck-00000007-2"), "r");
  EXPECT_EQ(state_.run_of("ck-00000007-9"), nullptr);
}

TEST_F(CheckpointStateMachine, UndoTakesBackARunItsPoliciesAndTheCounter) {
  const Digest before = state_.digest();
  Undo taken_back;
  apply(state_, PolicySet{{}, {3, 0, 0, "", true}}, &taken_back);
  apply(state_, PolicySet{"r", {1, 0, 0, "", true}}, &taken_back);
  apply(state_, CheckpointCreated{kF0, {"r", 0, 0, kFull, {}}, {}, 1}, &taken_back);
  apply(state_, CheckpointCompleted{kF0, "r", 5, "/p"}, &taken_back);
  apply(state_, CheckpointCreated{kI1, {"r", 0, 0, kIncremental, {}}, kF0, 2}, &taken_back);
  apply(state_, CheckpointCorrupted{kF0, "r"}, &taken_back);
  EXPECT_NE(state_.digest(), before);
  undo(state_, std::move(taken_back));
  EXPECT_EQ(state_.digest(), before);
  EXPECT_FALSE(state_.has_run("r"));
  EXPECT_EQ(state_.default_policy(), GcPolicy{});
  EXPECT_EQ(state_.policy("r"), std::nullopt);
  EXPECT_EQ(state_.total_count(), 0u);
  const Events events = decide(state_, create("r"), {}).value();
  EXPECT_EQ(std::get<CheckpointCreated>(events[0]).checkpoint.number, 1u);
}

TEST(DeletionCauses, ReadBackByName) {
  for (const char* name : {"Removed", "GarbageCollected"}) {
    ASSERT_TRUE(parse_deletion_cause(name).has_value()) << name;
    EXPECT_EQ(to_string(*parse_deletion_cause(name)), name);
  }
  EXPECT_EQ(parse_deletion_cause("removed"), std::nullopt);
}

}  // namespace
}  // namespace tensorforge::checkpoint
