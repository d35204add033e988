#include "registry/state_machine.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "platform/names.h"

namespace tensorforge::registry {
namespace {

using enum DeploymentState;

constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();
constexpr ModelVersion kV1{1, 2, 0}, kV2{2, 0, 0};

ModelMetadata model(std::string id, ModelVersion version = kV1) {
  ModelMetadata made;
  made.model_id = std::move(id);
  made.version = version;
  return made;
}

ValidationResult validation(std::string id, ModelVersion version = kV1) {
  return {std::move(id), version, true, 3, 9, 0.9, {}};
}

std::vector<std::string> names_of(const std::vector<ModelView>& models) {
  std::vector<std::string> names;
  for (const ModelView& one : models) {
    names.push_back(std::string(one.model_id) + "@" + format_version(one.version));
  }
  return names;
}

class RegistryTest : public testing::Test {  // events are the only way in, as in production
 protected:
  void given(const Events& events) {
    for (const Event& event : events) apply(state_, event);
  }
  absl::Status refusal(const Command& command) { return decide(state_, command).status(); }

  State state_;
};

TEST_F(RegistryTest, DecidesTheEventOfEachCommand) {
  EXPECT_EQ(decide(state_, RegisterModel{model("resnet")}).value(), Events{ModelRegistered{model("resnet")}});
  given({ModelRegistered{model("resnet")}});
  EXPECT_EQ(decide(state_, TransitionState{"resnet", kV1, Validating}).value(),
            (Events{StateTransitioned{"resnet", kV1, Registered, Validating}}));
  EXPECT_EQ(decide(state_, RecordValidation{validation("resnet")}).value(),
            Events{ValidationRecorded{validation("resnet")}});
}

TEST_F(RegistryTest, RefusesWithTheCodeOfTheCause) {
  given({ModelRegistered{model("resnet")}});
  ModelMetadata staged = model("bert");
  staged.state = Staging;
  using absl::StatusCode;
  const struct {
    const char* name;
    Command command;
    StatusCode want;
  } cases[] = {
      {"known version", RegisterModel{model("resnet")}, StatusCode::kAlreadyExists},
      {"empty id", RegisterModel{model("")}, StatusCode::kInvalidArgument},
      {"born in Staging", RegisterModel{staged}, StatusCode::kInvalidArgument},
      {"unknown model", TransitionState{"bert", kV1, Validating}, StatusCode::kNotFound},
      {"unknown version", TransitionState{"resnet", kV2, Validating}, StatusCode::kNotFound},
      {"skips a stage", TransitionState{"resnet", kV1, Production}, StatusCode::kFailedPrecondition},
      {"to itself", TransitionState{"resnet", kV1, Registered}, StatusCode::kFailedPrecondition},
      {"no such state", TransitionState{"resnet", kV1, static_cast<DeploymentState>(7)},
       StatusCode::kFailedPrecondition},
      {"validation of an unknown model", RecordValidation{validation("bert")}, StatusCode::kNotFound},
      {"validation of an unknown version", RecordValidation{validation("resnet", kV2)}, StatusCode::kNotFound},
  };
  for (const auto& [name, command, want] : cases) {
    SCOPED_TRACE(name);
    EXPECT_EQ(refusal(command).code(), want) << refusal(command);
  }
}

TEST_F(RegistryTest, ChecksArgumentsBeforeTheState) {
  EXPECT_EQ(refusal(TransitionState{"a@b", kV1, Validating}).code(), absl::StatusCode::kInvalidArgument);
  ValidationResult unknown_and_bad = validation("unknown");
  unknown_and_bad.accuracy_score = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(refusal(RecordValidation{unknown_and_bad}).code(), absl::StatusCode::kInvalidArgument);
  given({ModelRegistered{model("resnet")}});
  ModelMetadata known_and_bad = model("resnet");
  known_and_bad.state = Canary;
  EXPECT_EQ(refusal(RegisterModel{known_and_bad}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RegistryTest, SaysWhatWasWrongAndWhatWouldDo) {
  ModelMetadata staged = model("resnet");
  staged.state = Staging;
  given({ModelRegistered{staged}});
  const struct {
    Command command;
    const char* want;
  } cases[] = {
      {TransitionState{"resnet", kV1, Production},
       "model \"resnet\" 1.2.0: cannot go from Staging to Production; allowed: Canary, Registered"},
      {TransitionState{"bert", kV2, Staging}, "model \"bert\" 2.0.0 is not registered"},
      {RegisterModel{model("resnet")},
       "model \"resnet\" 1.2.0 is registered already, and in Staging; register another version"},
  };
  for (const auto& [command, want] : cases) EXPECT_EQ(std::string(refusal(command).message()), want);
}

TEST_F(RegistryTest, SaysThatNothingLeavesArchived) {
  ModelMetadata archived = model("resnet");
  archived.state = Archived;
  given({ModelRegistered{archived}});
  EXPECT_EQ(std::string(refusal(TransitionState{"resnet", kV1, Registered}).message()),
            "model \"resnet\" 1.2.0: cannot go from Archived to Registered; allowed: nothing");
}

TEST_F(RegistryTest, DecidesAllFortyNineTransitionsAsTheLifecycleSays) {
  for (int from = 0; from < 7; ++from) {
    State state;
    ModelMetadata started = model("resnet");
    started.state = static_cast<DeploymentState>(from);
    apply(state, ModelRegistered{started});
    for (int number = 0; number < 7; ++number) {
      const auto to = static_cast<DeploymentState>(number);
      SCOPED_TRACE(testing::Message() << to_string(started.state) << " to " << to_string(to));
      const Result<Events> events = decide(state, TransitionState{"resnet", kV1, to});
      ASSERT_EQ(events.ok(), can_transition_state(started.state, to));
      EXPECT_EQ(events.status().code(), events.ok() ? absl::StatusCode::kOk : absl::StatusCode::kFailedPrecondition);
    }
  }
}

TEST_F(RegistryTest, HoldsEachLimitAtItsEdge) {
  using Change = std::function<void(ModelMetadata&)>;
  const auto tags_of_bytes = [](std::size_t bytes) {  // two tags, keys and values together
    return [bytes](ModelMetadata& m) { m.tags = {{"k", std::string(100, 'x')}, {"l", std::string(bytes - 102, 'x')}}; };
  };
  const auto tags_of_count = [](std::size_t count) {
    return [count](ModelMetadata& m) {
      for (std::size_t i = 0; i < count; ++i) m.tags["t" + std::to_string(i)] = "";
    };
  };
  const struct {
    const char* name;
    Change change;
    bool allowed;
  } cases[] = {
      {"id of 255", [](auto& m) { m.model_id = std::string(255, 'i'); }, true},
      {"id of 256", [](auto& m) { m.model_id = std::string(256, 'i'); }, false},
      {"name of 255", [](auto& m) { m.name = std::string(255, 'n'); }, true},
      {"name of 256", [](auto& m) { m.name = std::string(256, 'n'); }, false},
      {"name that is not UTF-8", [](auto& m) { m.name = "\xFF"; }, false},
      {"framework of 255", [](auto& m) { m.framework = std::string(255, 'f'); }, true},
      {"framework of 256", [](auto& m) { m.framework = std::string(256, 'f'); }, false},
      {"framework that is not UTF-8", [](auto& m) { m.framework = "\xFF"; }, false},
      {"checksum of 255", [](auto& m) { m.checksum = std::string(255, 'c'); }, true},
      {"checksum of 256", [](auto& m) { m.checksum = std::string(256, 'c'); }, false},
      {"checksum that is not UTF-8", [](auto& m) { m.checksum = "\xFF"; }, false},
      {"input of rank 32", [](auto& m) { m.input_shape.assign(32, 0); }, true},
      {"input of rank 33", [](auto& m) { m.input_shape.assign(33, 0); }, false},
      {"output of rank 32", [](auto& m) { m.output_shape.assign(32, kAll); }, true},
      {"output of rank 33", [](auto& m) { m.output_shape.assign(33, 1); }, false},
      {"256 tags", tags_of_count(256), true},
      {"257 tags", tags_of_count(257), false},
      {"tags of 16 KiB", tags_of_bytes(16'384), true},
      {"tags of 16 KiB and one", tags_of_bytes(16'385), false},
      {"tag key with @",
       [](auto& m) {
         m.tags = {{"recall@10", "0.9"}};
       },
       true},
      {"tag key of 255",
       [](auto& m) {
         m.tags = {{std::string(255, 'k'), ""}};
       },
       true},
      {"tag key of 256",
       [](auto& m) {
         m.tags = {{std::string(256, 'k'), ""}};
       },
       false},
      {"empty tag key",
       [](auto& m) {
         m.tags = {{"", "x"}};
       },
       false},
      {"tag that is not UTF-8",
       [](auto& m) {
         m.tags = {{"k", "\xFF"}};
       },
       false},
      {"largest numbers", [](auto& m) { m.size_bytes = m.registered_at = kAll; }, true},
  };
  for (const auto& [name, change, allowed] : cases) {
    SCOPED_TRACE(name);
    ModelMetadata changed = model("resnet");
    change(changed);
    EXPECT_EQ(refusal(RegisterModel{changed}).code(),
              allowed ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(RegistryTest, HoldsTheLimitsOfAValidationAtTheirEdges) {
  given({ModelRegistered{model("resnet")}});
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  using Change = std::function<void(ValidationResult&)>;
  const struct {
    const char* name;
    Change change;
    bool allowed;
  } cases[] = {
      {"256 errors", [](auto& v) { v.errors.assign(256, "e"); }, true},
      {"257 errors", [](auto& v) { v.errors.assign(257, ""); }, false},
      {"errors of 16 KiB", [](auto& v) { v.errors.assign(256, std::string(64, 'e')); }, true},
      {"errors of 16 KiB and one",
       [](auto& v) {
         v.errors = {std::string(16'384, 'e'), "e"};
       },
       false},
      {"error that is not UTF-8", [](auto& v) { v.errors = {"\xFF"}; }, false},
      {"NaN p50", [](auto& v) { v.latency_p50_ms = kNan; }, false},
      {"NaN p99", [](auto& v) { v.latency_p99_ms = kNan; }, false},
      {"NaN accuracy", [](auto& v) { v.accuracy_score = kNan; }, false},
      {"infinite p50", [](auto& v) { v.latency_p50_ms = kInf; }, false},
      {"infinite p99", [](auto& v) { v.latency_p99_ms = kInf; }, false},
      {"minus infinite accuracy", [](auto& v) { v.accuracy_score = -kInf; }, false},
      {"largest figures", [](auto& v) { v.latency_p99_ms = v.accuracy_score = 1.7e308; }, true},
  };
  for (const auto& [name, change, allowed] : cases) {
    SCOPED_TRACE(name);
    ValidationResult changed = validation("resnet");
    change(changed);
    EXPECT_EQ(refusal(RecordValidation{changed}).code(),
              allowed ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(RegistryTest, DecidingChangesNothing) {
  given({ModelRegistered{model("resnet")}});
  const Digest before = state_.digest();
  ASSERT_TRUE(decide(state_, RegisterModel{model("bert")}).ok());
  ASSERT_TRUE(decide(state_, TransitionState{"resnet", kV1, Validating}).ok());
  EXPECT_EQ(state_.digest(), before);
  EXPECT_EQ(state_.version_count(), 1u);
}

TEST_F(RegistryTest, ListsByModelAndVersionAPageAtATime) {
  given({ModelRegistered{model("b", {1, 10, 0})}, ModelRegistered{model("a", {2, 0, 0})},
         ModelRegistered{model("b", {1, 9, 0})}, ModelRegistered{model("a/b", {1, 0, 0})}});
  EXPECT_THAT(names_of(state_.list(std::nullopt, kAll)),
              testing::ElementsAre("a@2.0.0", "a/b@1.0.0", "b@1.9.0", "b@1.10.0"));
  EXPECT_THAT(names_of(state_.list(std::nullopt, 2)), testing::ElementsAre("a@2.0.0", "a/b@1.0.0"));
  EXPECT_THAT(names_of(state_.list(VersionKey{"a/b", {1, 0, 0}}, 1)), testing::ElementsAre("b@1.9.0"));
  EXPECT_THAT(names_of(state_.list(VersionKey{"b", {1, 9, 5}}, kAll)), testing::ElementsAre("b@1.10.0"));
  EXPECT_THAT(names_of(state_.list(VersionKey{"aa", {}}, kAll)), testing::ElementsAre("b@1.9.0", "b@1.10.0"));
  EXPECT_THAT(names_of(state_.list(VersionKey{"b", {1, 10, 0}}, kAll)), testing::IsEmpty());
  EXPECT_THAT(names_of(state_.list(std::nullopt, 0)), testing::IsEmpty());
  EXPECT_THAT(names_of(state_.list_versions("b", ModelVersion{1, 9, 0}, 5)), testing::ElementsAre("b@1.10.0"));
  EXPECT_THAT(names_of(state_.find_by_state(Registered, VersionKey{"a", {9, 0, 0}}, 2)),
              testing::ElementsAre("a/b@1.0.0", "b@1.9.0"));
  EXPECT_THAT(state_.find_by_state(static_cast<DeploymentState>(200), std::nullopt, kAll), testing::IsEmpty());
}

TEST_F(RegistryTest, IdsCompareByteByByte) {
  given({ModelRegistered{model("é")}, ModelRegistered{model("z")}, ModelRegistered{model("Z")}});
  EXPECT_THAT(names_of(state_.list(std::nullopt, kAll)), testing::ElementsAre("Z@1.2.0", "z@1.2.0", "é@1.2.0"));
}

TEST_F(RegistryTest, APackedModelSaysTheSame) {
  ModelMetadata full = model("resnet", kV2);
  full.name = "ResNet";
  full.framework = "onnx";
  full.input_shape = {1, 3, 224, 224};
  full.output_shape = {1, 1'000};
  full.size_bytes = 7;
  full.checksum = "sha256:00";
  full.registered_at = 8;
  full.state = Canary;
  full.tags = {{"", "empty key"}, {"stage", ""}, {"task", "vision"}};
  const PackedModel packed(full);
  EXPECT_EQ(copy_of(packed.view()), full);
  EXPECT_EQ(copy_of(PackedModel(packed.view()).view()), full);
  PackedModel copy = packed;
  EXPECT_EQ(copy, packed);
  copy.set_registered_at(9);
  EXPECT_NE(copy, packed) << "a copy is another one";
  copy = packed;
  EXPECT_EQ(copy, packed);
  ModelMetadata other = full;
  other.tags["task"] = "text";
  EXPECT_NE(PackedModel(other), packed);
  other = full;
  other.output_shape.back() = 999;
  EXPECT_NE(PackedModel(other), packed);
  EXPECT_EQ(copy_of(PackedModel().view()), ModelMetadata());
  EXPECT_EQ(decide(state_, RegisterModel{}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RegistryTest, AModelKnowsWhereTheLogHasItsLastEvent) {
  EXPECT_EQ(state_.last_change("resnet"), 0u);
  apply(state_, ModelRegistered{model("resnet")}, 5);
  EXPECT_EQ(state_.last_change("resnet"), 5u);
  apply(state_, ModelRegistered{model("resnet", kV2)}, 7);
  apply(state_, ModelRegistered{model("bert")}, 8);
  EXPECT_EQ(state_.last_change("resnet"), 7u) << "of all its versions";
  apply(state_, StateTransitioned{"resnet", kV1, Registered, Validating}, 9);
  EXPECT_EQ(state_.last_change("resnet"), 9u);
  apply(state_, ValidationRecorded{validation("resnet")}, 11);
  EXPECT_EQ(state_.last_change("resnet"), 11u);

  Undo log;
  apply(state_, StateTransitioned{"resnet", kV1, Validating, Staging}, log);
  EXPECT_EQ(state_.last_change("resnet"), 11u) << "whether it is in the log is not known yet";
  note_change(state_, "resnet", 12);
  EXPECT_EQ(state_.last_change("resnet"), 12u);
  EXPECT_EQ(state_.last_change("bert"), 8u);

  Undo taken_back;
  apply(state_, ModelRegistered{model("t5")}, taken_back);
  apply(state_, StateTransitioned{"bert", kV1, Registered, Validating}, taken_back);
  undo(state_, std::move(taken_back));
  EXPECT_EQ(state_.last_change("t5"), 0u);
  EXPECT_EQ(state_.last_change("bert"), 8u);
}

// Whatever it asks the memory for is there: AddressSanitizer would tell.
TEST_F(RegistryTest, PrefetchOfAnythingFollowsOnlyWhatIsThere) {
  const auto prefetch_all = [&] {
    const Digest before = state_.digest();
    for (const char* id : {"resnet", "bert", "t5", ""}) {
      for (const std::optional<ModelVersion>& version :
           {std::optional<ModelVersion>(), std::optional(kV1), std::optional(kV2), std::optional(ModelVersion{})}) {
        Prefetch all(state_, id, version);
        for (const PrefetchStep step : kPrefetchSteps) {
          all(step);
          Prefetch(state_, id, version)(step);
        }
      }
    }
    EXPECT_EQ(state_.digest(), before);
  };
  prefetch_all();
  given({ModelRegistered{model("resnet")}, ModelRegistered{model("bert")}});
  prefetch_all();
  Undo log;
  apply(state_, ModelRegistered{model("resnet", kV2)}, log);
  apply(state_, ModelRegistered{model("t5")}, log);
  prefetch_all();
  undo(state_, std::move(log));
  prefetch_all();
}

TEST_F(RegistryTest, UndoPutsEverythingBack) {
  given({ModelRegistered{model("resnet")}, ValidationRecorded{validation("resnet")}});
  const Digest before = state_.digest();
  Undo log;
  const ValidationResult other{"resnet", kV1, false, 1, 2, 0.1, {"e"}};
  for (const Event& event :
       Events{StateTransitioned{"resnet", kV1, Registered, Validating}, ValidationRecorded{other},
              ModelRegistered{model("resnet", kV2)}, ModelRegistered{model("bert")},
              ValidationRecorded{validation("bert")}, StateTransitioned{"resnet", kV1, Validating, Staging}}) {
    apply(state_, event, log);
  }
  ASSERT_EQ(state_.version_count(), 3u);
  ASSERT_EQ(*state_.validation("resnet", kV1), other);
  undo(state_, std::move(log));
  EXPECT_EQ(state_.digest(), before);
  EXPECT_THAT(names_of(state_.list(std::nullopt, kAll)), testing::ElementsAre("resnet@1.2.0"));
  EXPECT_THAT(names_of(state_.find_by_state(Registered, std::nullopt, kAll)), testing::ElementsAre("resnet@1.2.0"));
  EXPECT_THAT(state_.find_by_state(Staging, std::nullopt, kAll), testing::IsEmpty());
  EXPECT_EQ(*state_.validation("resnet", kV1), validation("resnet"));
  EXPECT_FALSE(state_.latest("bert"));
  EXPECT_EQ(state_.model_count(), 1u);
}

TEST_F(RegistryTest, DigestDependsOnContentsAndNotOnTheirOrder) {
  State other;
  given({ModelRegistered{model("a")}, ModelRegistered{model("b")}, StateTransitioned{"a", kV1, Registered, Validating},
         ValidationRecorded{validation("b")}});
  for (const Event& event : Events{ModelRegistered{model("b")}, ValidationRecorded{validation("b")},
                                   ModelRegistered{model("a")}, StateTransitioned{"a", kV1, Registered, Validating}}) {
    EXPECT_NE(other.digest(), state_.digest());
    apply(other, event);
  }
  EXPECT_EQ(other.digest(), state_.digest());
  EXPECT_EQ(State().digest(), Digest());
}

TEST_F(RegistryTest, DigestSeesEveryField) {
  using Change = std::function<void(ModelMetadata&)>;
  const Change changes[] = {
      [](auto&) {},
      [](auto& m) { m.model_id = "other"; },
      [](auto& m) { m.name = "n"; },
      [](auto& m) { m.version.major = 9; },
      [](auto& m) { m.version.minor = 9; },
      [](auto& m) { m.version.patch = 9; },
      [](auto& m) { m.framework = "n"; },
      [](auto& m) { m.input_shape = {1}; },
      [](auto& m) { m.output_shape = {1}; },
      [](auto& m) { m.size_bytes = 1; },
      [](auto& m) { m.checksum = "n"; },
      [](auto& m) { m.registered_at = 1; },
      [](auto& m) { m.state = Staging; },
      [](auto& m) {
        m.tags = {{"a", "b"}};
      },
      [](auto& m) {
        m.tags = {{"ab", ""}};
      },
  };
  std::set<Digest> digests;
  for (const Change& change : changes) {
    ModelMetadata changed = model("resnet");
    change(changed);
    State state;
    apply(state, ModelRegistered{changed});
    digests.insert(state.digest());
  }
  EXPECT_EQ(digests.size(), std::size(changes));
}

TEST_F(RegistryTest, DigestSeesEveryFieldOfAValidation) {
  using Change = std::function<void(ValidationResult&)>;
  const Change changes[] = {
      [](auto&) {},
      [](auto& v) { v.passed = false; },
      [](auto& v) { v.latency_p50_ms = 4; },
      [](auto& v) { v.latency_p99_ms = 4; },
      [](auto& v) { v.accuracy_score = 4; },
      [](auto& v) { v.errors = {"ab"}; },
      [](auto& v) {
        v.errors = {"a", "b"};
      },
  };
  std::set<Digest> digests = {Digest()};
  for (const Change& change : changes) {
    State state;
    apply(state, ModelRegistered{model("resnet")});
    ValidationResult changed = validation("resnet");
    change(changed);
    apply(state, ValidationRecorded{changed});
    digests.insert(state.digest());
  }
  EXPECT_EQ(digests.size(), std::size(changes) + 1);
}

// Computed from the bytes that apply.cc documents by another program. Digests are kept in every log, so a change here
// is a change of format.
TEST_F(RegistryTest, DigestIsTheSameForEver) {
  ModelMetadata full{"team/resnet",
                     "ResNet",
                     kV1,
                     "onnx",
                     {1, 3, 224},
                     {1, 1000},
                     102,
                     "sha256:00",
                     1'700'000'000'000,
                     Canary,
                     {{"accuracy_top1", "0.76"}, {"é", ""}}};
  given({ModelRegistered{full}});
  EXPECT_EQ(format_digest(state_.digest()), "3aa0e6eedb412d93cb9339d0822421fd");
  given({ValidationRecorded{{"team/resnet", kV1, true, 1.5, 9.25, 0.76, {"slow", ""}}}});
  EXPECT_EQ(format_digest(state_.digest()), "c263a57884ccf3ae0b88945c342f44d2");
}

// In runs that are few, whatever the order they come in.
TEST(RegistryOrder, KeepsManyVersionsTogether) {
  constexpr std::uint32_t kVersions = 1'000;
  std::vector<std::uint32_t> ascending(kVersions);
  std::iota(ascending.begin(), ascending.end(), 0);
  const std::vector<std::uint32_t> descending(ascending.rbegin(), ascending.rend());
  std::vector<std::uint32_t> behind_a_full_run(ascending.begin(), ascending.begin() + 64);
  behind_a_full_run.insert(behind_a_full_run.end(), descending.begin(), descending.end() - 64);
  std::vector<std::uint32_t> shuffled = ascending;
  std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937(7));
  for (const auto& [order, most_runs] : {std::pair{ascending, 16U}, std::pair{behind_a_full_run, 16U},
                                         std::pair{descending, 32U}, std::pair{shuffled, 32U}}) {
    VersionList list;
    std::map<std::uint32_t, StoredVersion::Owner> versions;
    for (const std::uint32_t minor : order) {
      const auto made = versions.emplace(minor, PackedModel(model("m", {1, minor, 0})).take()).first;
      list.insert(*made->second, made == versions.begin() ? nullptr : std::prev(made)->second.get());
    }
    std::set<const VersionList::Run*> runs;
    for (const auto& [minor, version] : versions) runs.insert(&*version->run);
    EXPECT_LE(runs.size(), most_runs);
    std::vector<std::uint32_t> got;
    for (const ModelView& view : list.page(Registered, nullptr, kAll)) got.push_back(view.version.minor);
    EXPECT_EQ(got, ascending);
  }
}

// Far more versions than stand together in the index, in an order that cuts it everywhere.
TEST(RegistryOrder, HoldsForManyVersionsThatComeAndGo) {
  constexpr std::uint32_t kModels = 60, kVersions = 40;
  std::mt19937 random(7);
  std::vector<VersionKey> keys;
  for (std::uint32_t model = 0; model < kModels; ++model) {
    for (std::uint32_t minor = 0; minor < kVersions; ++minor)
      keys.push_back({"m" + std::to_string(model), {1, minor, 0}});
  }
  std::shuffle(keys.begin(), keys.end(), random);
  State state;
  Undo undo;
  std::map<VersionKey, DeploymentState> expected;
  const auto check = [&] {
    for (const auto wanted : {DeploymentState::Registered, DeploymentState::Validating, DeploymentState::Archived}) {
      std::vector<VersionKey> want, got;
      for (const auto& [key, held] : expected) {
        if (held == wanted) want.push_back(key);
      }
      std::optional<VersionKey> after;
      for (;;) {
        const auto page = state.find_by_state(wanted, after, 97);
        for (const ModelView& model : page) got.push_back({std::string(model.model_id), model.version});
        if (page.size() < 97) break;
        after = got.back();
      }
      ASSERT_EQ(got, want);
    }
  };
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const bool undone = i >= keys.size() / 2;
    const auto apply_here = [&](const Event& event) { undone ? apply(state, event, undo) : apply(state, event); };
    ModelMetadata model;
    model.model_id = keys[i].model_id;
    model.version = keys[i].version;
    apply_here(ModelRegistered{model});
    if (!undone) expected[keys[i]] = DeploymentState::Registered;
    if (random() % 3 == 0) {
      apply_here(StateTransitioned{model.model_id, model.version, {}, DeploymentState::Validating});
      if (!undone) expected[keys[i]] = DeploymentState::Validating;
    }
    if (i + 1 == keys.size() / 2) check();
  }
  EXPECT_EQ(state.version_count(), keys.size());
  registry::undo(state, std::move(undo));
  EXPECT_EQ(state.version_count(), keys.size() / 2);
  check();
  EXPECT_EQ(state.find_by_state(DeploymentState::Registered, VersionKey{"zzz", {}}, 5).size(), 0u);
  EXPECT_EQ(names_of(state.find_by_state(DeploymentState::Registered, VersionKey{"a", {}}, 5)),
            names_of(state.find_by_state(DeploymentState::Registered, std::nullopt, 5)));
}

}  // namespace
}  // namespace tensorforge::registry
