#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/support.h"

namespace tensorforge::checkpoint {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(CheckpointManager, GivesACheckpointBackAsItWasMade) {
  Training t;
  const CheckpointMeta made = t.start(kFull, 7, "team/run", {{"loss", 0.25}, {"recall@10", 0.9}}, 3);
  EXPECT_EQ(made.training_run_id, "team/run");
  EXPECT_EQ(made.step, 7u);
  EXPECT_EQ(made.epoch, 3u);
  EXPECT_EQ(made.created_at, t.now);
  EXPECT_EQ(made.state, CheckpointState::Creating);
  EXPECT_EQ(made.parent_id, std::nullopt);
  EXPECT_EQ(made.size_bytes, 0u);
  EXPECT_EQ(made.metrics, (std::map<std::string, double>{{"loss", 0.25}, {"recall@10", 0.9}}));
  EXPECT_EQ(t.manager.get(made.checkpoint_id), made);

  t.finish(made.checkpoint_id);
  const auto complete = t.manager.get(made.checkpoint_id);
  EXPECT_EQ(complete->state, CheckpointState::Complete);
  EXPECT_EQ(complete->size_bytes, 100u);
  EXPECT_EQ(complete->storage_path, "/store/" + made.checkpoint_id);
}

TEST(CheckpointManager, NeverGivesAnIdTwice) {
  Training t;
  const std::string a = t.save(kFull, 0);
  EXPECT_TRUE(t.manager.remove(a).ok());
  EXPECT_NE(t.save(kFull, 0), a);
}

TEST(CheckpointManager, BuildsAnIncrementalOnTheLatestRestorableAtOrUnderItsStepAndEpoch) {
  Training t;
  const std::string a = t.save(kFull, 10, "r", {}, 1);
  const std::string b = t.save(kFull, 20, "r", {}, 2);
  const std::string c = t.save(kFull, 30, "r", {}, 1);
  t.start(kFull, 40, "r", {}, 1);  // never Complete
  t.save(kFull, 15, "other", {}, 1);
  const struct {
    std::uint64_t step;
    std::uint32_t epoch;
    std::string want;
  } cases[] = {{10, 1, a}, {19, 9, a}, {20, 2, b}, {29, 9, b}, {25, 1, a}, {30, 1, c}, {99, 1, c}, {99, 9, c}};
  for (const auto& [step, epoch, want] : cases) {
    SCOPED_TRACE(testing::Message() << "step " << step << ", epoch " << epoch);
    const CheckpointMeta made = t.start(kIncremental, step, "r", {}, epoch);
    EXPECT_EQ(made.parent_id, want);
    EXPECT_TRUE(t.manager.remove(made.checkpoint_id).ok());
  }
}

TEST(CheckpointManager, TakesTheLaterCreationAsParentAmongEqualSteps) {
  Training t;
  t.save(kFull, 5);
  const std::string later = t.save(kEmergency, 5);
  t.now -= 3000;  // the clock goes back
  const std::string before_both = t.save(kFull, 5);
  EXPECT_EQ(t.start(kIncremental, 5).parent_id, later);
  EXPECT_THAT(t.live().front(), before_both);
}

TEST(CheckpointManager, RefusesAnIncrementalWithNothingToBuildOn) {
  Training t;
  const auto code = [&t](std::uint64_t step, std::uint32_t epoch) {
    return t.manager.create({"r", epoch, step, kIncremental, {}}, t.now).status().code();
  };
  EXPECT_EQ(code(5, 5), absl::StatusCode::kFailedPrecondition) << "an empty run";
  t.save(kFull, 5, "r", {}, 5);
  EXPECT_EQ(code(4, 5), absl::StatusCode::kFailedPrecondition) << "only a later step";
  EXPECT_EQ(code(5, 4), absl::StatusCode::kFailedPrecondition) << "only a later epoch";
  EXPECT_EQ(code(5, 5), absl::StatusCode::kOk);
}

TEST(CheckpointManager, CannotCompleteAnIncrementalWhoseParentIsLost) {
  Training t;
  const std::string f0 = t.save(kFull, 0);
  const std::string i1 = t.save(kIncremental, 1);
  const std::string i2 = t.start(kIncremental, 2).checkpoint_id;
  ASSERT_EQ(t.manager.get(i2)->parent_id, i1);
  t.corrupt(f0);
  const absl::Status status = t.manager.complete(i2, 1, "/p");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(i1));
  EXPECT_EQ(t.manager.get(i2)->state, CheckpointState::Creating);
}

TEST(CheckpointManager, PassesByWhatACorruptionHasMadeUseless) {
  Training t;
  const std::string f0 = t.save(kFull, 0);
  const std::string i1 = t.save(kIncremental, 1);
  const std::string i2 = t.save(kIncremental, 2);
  EXPECT_EQ(t.restore_step({"r", {}, {}, true, false}), 2);
  t.corrupt(i1);
  EXPECT_EQ(t.restore_step({"r", {}, {}, true, false}), 0);
  EXPECT_EQ(t.start(kIncremental, 9).parent_id, f0) << "nothing new is built on it";
  EXPECT_EQ(t.manager.get_latest("r")->checkpoint_id, i2) << "it is still the latest Complete one";
  EXPECT_EQ(t.manager.get(i2)->state, CheckpointState::Complete);
}

TEST(CheckpointManager, PassesByASaveThatDiedUnlessAsked) {
  Training t;
  t.save(kFull, 1);
  const std::string died = t.start(kFull, 2).checkpoint_id;
  EXPECT_EQ(t.restore_step({"r", {}, {}, true, false}), 1);
  EXPECT_EQ(t.restore_step({"r", {}, {}, false, false}), 1) << "Complete comes before anything else";
  EXPECT_EQ(t.manager.get_latest("r")->step, 1u);
  Training none;
  none.start(kFull, 2);
  EXPECT_EQ(none.restore_step({"r", {}, {}, true, false}), -1);
  EXPECT_EQ(none.restore_step({"r", {}, {}, false, false}), 2);
  EXPECT_EQ(none.manager.get_latest("r"), std::nullopt);
}

TEST(CheckpointManager, RestoresWithinTheLimitsAfterARollback) {
  Training t;
  t.save(kFull, 10, "r", {}, 1);
  t.save(kIncremental, 20, "r", {}, 2);
  t.save(kFull, 30, "r", {}, 3);
  EXPECT_EQ(t.restore_step({"r", {}, {}, true, false}), 30);
  EXPECT_EQ(t.restore_step({"r", {}, 29, true, false}), 20);
  EXPECT_EQ(t.restore_step({"r", {}, 29, true, true}), 10) << "a Full one is preferred";
  EXPECT_EQ(t.restore_step({"r", 1, {}, true, false}), 10);
  EXPECT_EQ(t.restore_step({"r", 0, {}, true, false}), -1);
  EXPECT_EQ(t.restore_step({"r", {}, 9, true, false}), -1);
  EXPECT_EQ(t.restore_step({"unknown", {}, {}, true, false}), -1);
}

TEST(CheckpointManager, PrefersAtTheSameStepTheShorterWayThenTheLaterCreation) {
  Training t;
  t.save(kFull, 5);
  const std::string root = t.save(kEmergency, 6);
  t.save(kIncremental, 6);
  EXPECT_EQ(t.manager.find_restore_point({"r", {}, {}, true, false})->checkpoint_id, root);
  const std::string later = t.save(kFull, 6);
  EXPECT_EQ(t.manager.find_restore_point({"r", {}, {}, true, false})->checkpoint_id, later);
  const std::string latest = t.save(kEmergency, 6);
  EXPECT_EQ(t.manager.find_restore_point({"r", {}, {}, true, false})->checkpoint_id, latest);
  EXPECT_EQ(t.manager.find_restore_point({"r", {}, {}, true, true})->checkpoint_id, later);
}

TEST(CheckpointManager, TellsStepsApartThatAScoreCannot) {
  Training t;
  constexpr std::uint64_t kTop = std::numeric_limits<std::uint64_t>::max();
  t.save(kFull, kTop - 1);
  const std::string last = t.save(kIncremental, kTop);
  EXPECT_EQ(t.manager.find_restore_point({"r", {}, {}, true, false})->checkpoint_id, last);
}

TEST(CheckpointManager, ListsARunByStepThenCreation) {
  Training t;
  const std::string c = t.save(kFull, 9);
  const std::string a = t.save(kFull, 1);
  const std::string b = t.save(kFull, 1);
  const std::string gone = t.save(kFull, 5);
  t.save(kFull, 5, "other");
  EXPECT_TRUE(t.manager.remove(gone).ok());
  EXPECT_THAT(t.live(), ElementsAre(a, b, c));
  EXPECT_THAT(t.live("unknown"), IsEmpty());
}

TEST(CheckpointManager, FindsByMetricBothWays) {
  Training t;
  const std::string a = t.save(kFull, 1, "r", {{"m", 1.0}});
  const std::string b = t.save(kFull, 2, "r", {{"m", 2.0}});
  const std::string c = t.save(kFull, 3, "r", {{"m", 3.0}});
  const std::string b2 = t.save(kFull, 3, "r", {{"m", 2.0}});
  const std::string b3 = t.save(kFull, 3, "r", {{"m", 2.0}});
  t.save(kFull, 4, "r", {{"other", 2.0}});
  t.start(kFull, 5, "r", {{"m", 2.0}});
  t.corrupt(t.save(kFull, 6, "r", {{"m", 2.0}}));
  t.save(kFull, 7, "s", {{"m", 2.0}});
  const auto find = [&t](double threshold, bool ascending) {
    return ids_of(t.manager.find_by_metric("r", "m", threshold, ascending));
  };
  EXPECT_THAT(find(2.0, true), ElementsAre(a, b3, b2, b));
  EXPECT_THAT(find(2.0, false), ElementsAre(c, b3, b2, b));
  EXPECT_THAT(find(0.5, true), IsEmpty());
  EXPECT_THAT(find(3.5, false), IsEmpty());
  EXPECT_THAT(find(kNan, true), IsEmpty());
  EXPECT_THAT(find(kNan, false), IsEmpty());
  EXPECT_EQ(find(std::numeric_limits<double>::infinity(), true).size(), 5u);
  EXPECT_THAT(t.manager.find_by_metric("r", "unknown", 9, true), IsEmpty());
  EXPECT_THAT(t.manager.find_by_metric("unknown", "m", 9, true), IsEmpty());
}

TEST(CheckpointManager, RefusesToRemoveWhatALiveOneDescendsFrom) {
  Training t;
  const std::string f0 = t.save(kFull, 0);
  const std::string i1 = t.save(kIncremental, 1);
  const absl::Status status = t.manager.remove(f0);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("\"" + i1 + "\""));
  t.corrupt(i1);
  EXPECT_FALSE(t.manager.remove(f0).ok()) << "a Corrupted one is not Deleted";
  EXPECT_TRUE(t.manager.remove(i1).ok());
  EXPECT_TRUE(t.manager.remove(f0).ok());
}

TEST(CheckpointManager, RemovesInEveryStateButDeleted) {
  Training t;
  const std::string creating = t.start(kFull, 0).checkpoint_id;
  const std::string corrupted = t.save(kFull, 1);
  t.corrupt(corrupted);
  EXPECT_TRUE(t.manager.remove(creating).ok());
  EXPECT_TRUE(t.manager.remove(corrupted).ok());
  EXPECT_EQ(t.manager.remove(creating).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(t.manager.complete(creating, 1, "/p").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(t.manager.mark_corrupted(creating).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(t.manager.get(creating)->state, CheckpointState::Deleted);
}

TEST(CheckpointManager, CountsAndSumsWhatIsNotDeletedAndSaturates) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  CheckpointManager manager({});
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) {
    ids.push_back(manager.create({"r", 0, 0, kFull, {}}, 0)->checkpoint_id);
    EXPECT_TRUE(manager.complete(ids.back(), kMax - 1, "/p").ok());
  }
  EXPECT_EQ(manager.total_size(), kMax);
  EXPECT_TRUE(manager.remove(ids[0]).ok());
  EXPECT_EQ(manager.total_size(), kMax);
  EXPECT_TRUE(manager.mark_corrupted(ids[1]).ok());
  EXPECT_TRUE(manager.remove(ids[2]).ok());
  EXPECT_EQ(manager.total_size(), kMax - 1) << "the sum itself is exact";
  EXPECT_EQ(manager.total_count(), 1u);
}

}  // namespace
}  // namespace tensorforge::checkpoint
