#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/support.h"

namespace tensorforge::checkpoint {
namespace {

constexpr std::uint64_t kMaxStep = std::numeric_limits<std::uint64_t>::max();
const RestoreCriteria kAny{"r", {}, {}, false, false};
const RestoreCriteria kPreferFull{"r", {}, {}, false, true};

CheckpointMeta candidate(CheckpointType type, std::uint64_t step, CheckpointState state = CheckpointState::Complete) {
  CheckpointMeta meta = link("x", type == kIncremental ? std::optional<std::string>("p") : std::nullopt);
  meta.checkpoint_type = type;
  meta.step = step;
  meta.state = state;
  return meta;
}

TEST(SelectionScore, PutsCompleteBeforeAnyStep) {
  EXPECT_GT(selection_score(candidate(kIncremental, 0), kPreferFull),
            selection_score(candidate(kFull, kMaxStep, CheckpointState::Creating), kPreferFull));
}

TEST(SelectionScore, PutsTheTypeBeforeAnyStepOnlyWhereFullIsPreferred) {
  EXPECT_GT(selection_score(candidate(kFull, 0), kPreferFull),
            selection_score(candidate(kEmergency, kMaxStep), kPreferFull));
  EXPECT_GT(selection_score(candidate(kEmergency, 0), kPreferFull),
            selection_score(candidate(kIncremental, kMaxStep), kPreferFull));
  EXPECT_LT(selection_score(candidate(kFull, 1), kAny), selection_score(candidate(kIncremental, 2), kAny));
  EXPECT_EQ(selection_score(candidate(kFull, 1), kAny), selection_score(candidate(kEmergency, 1), kAny));
}

TEST(SelectionScore, PutsTheShorterWayFirstAtTheSameStep) {
  EXPECT_GT(selection_score(candidate(kFull, 7), kAny), selection_score(candidate(kIncremental, 7), kAny));
  EXPECT_LT(selection_score(candidate(kFull, 7), kAny), selection_score(candidate(kIncremental, 8), kAny));
}

TEST(SelectionScore, IsMinusInfinityOutsideTheLimitsAndFiniteInside) {
  const struct {
    const char* name;
    RestoreCriteria criteria;
    bool inside;
  } cases[] = {
      {"other run", {"s", {}, {}, false, false}, false},
      {"step at the limit", {"r", {}, 5, false, false}, true},
      {"step over the limit", {"r", {}, 4, false, false}, false},
      {"epoch at the limit", {"r", 3, {}, false, false}, true},
      {"epoch over the limit", {"r", 2, {}, false, false}, false},
  };
  CheckpointMeta meta = candidate(kFull, 5, CheckpointState::Creating);
  meta.epoch = 3;
  for (const auto& [name, criteria, inside] : cases) {
    SCOPED_TRACE(name);
    const double score = selection_score(meta, criteria);
    EXPECT_EQ(std::isfinite(score), inside);
    if (!inside) {
      EXPECT_EQ(score, -std::numeric_limits<double>::infinity());
    }
  }
}

TEST(SelectionScore, IsANormalNumberAtBothEnds) {
  for (const RestoreCriteria& criteria : {kAny, kPreferFull}) {
    for (const CheckpointType type : {kFull, kIncremental, kEmergency}) {
      for (const std::uint64_t step : {std::uint64_t{0}, kMaxStep}) {
        EXPECT_TRUE(std::isnormal(selection_score(candidate(type, step), criteria)));
        EXPECT_TRUE(std::isnormal(selection_score(candidate(type, step, CheckpointState::Creating), criteria)));
      }
    }
  }
}

TEST(SelectionScore, TellsEveryStepBelow2To53FromTheNext) {
  const std::uint64_t top = std::uint64_t{1} << 53U;
  for (const std::uint64_t step :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4095}, top / 2, top - 2, top - 1}) {
    // With the worse way at the later step, so that nothing but the step decides.
    EXPECT_LT(selection_score(candidate(kFull, step), kAny), selection_score(candidate(kIncremental, step + 1), kAny))
        << step;
  }
}

TEST(SelectionScore, NeverTurnsFactorsRoundHoweverLargeTheSteps) {
  const auto factors = [](const CheckpointMeta& meta, const RestoreCriteria& criteria) {
    const int rank = meta.checkpoint_type == kFull ? 2 : meta.checkpoint_type == kEmergency ? 1 : 0;
    return std::tuple(meta.state == CheckpointState::Complete, criteria.prefer_full ? rank : 0, meta.step,
                      !meta.parent_id);
  };
  std::mt19937_64 random(7);
  const auto any = [&random] {
    const std::uint64_t step = random() >> (random() % 64);  // all magnitudes
    return candidate(static_cast<CheckpointType>(random() % 3), random() % 4 == 0 ? kMaxStep - step % 4 : step,
                     random() % 2 == 0 ? CheckpointState::Complete : CheckpointState::Creating);
  };
  for (int i = 0; i < 50'000; ++i) {
    CheckpointMeta a = any();
    CheckpointMeta b = any();
    if (random() % 4 == 0) b.step = a.step + 1;
    const RestoreCriteria& criteria = i % 2 == 0 ? kAny : kPreferFull;
    if (factors(a, criteria) > factors(b, criteria)) std::swap(a, b);
    const double low = selection_score(a, criteria);
    const double high = selection_score(b, criteria);
    ASSERT_LE(low, high) << a.step << " and " << b.step;
    if (factors(a, criteria) < factors(b, criteria) && b.step < std::uint64_t{1} << 53U) {
      ASSERT_LT(low, high);
    }
  }
}

TEST(GcEligible, FollowsTheStateTheStepAndTheAge) {
  constexpr std::uint64_t kNow = 1'000'000;
  const GcPolicy week{0, 10, 0, "", true};
  const GcPolicy never{};
  const struct {
    const char* name;
    CheckpointState state;
    std::uint64_t step, created_at;
    const GcPolicy* policy;
    bool is_best, want;
  } cases[] = {
      {"Creating stays however old", CheckpointState::Creating, 1, 0, &week, false, false},
      {"Deleted is gone already", CheckpointState::Deleted, 1, 0, &week, false, false},
      {"Corrupted goes however young", CheckpointState::Corrupted, 9, kNow, &never, false, true},
      {"Corrupted goes though it is best", CheckpointState::Corrupted, 1, kNow, &never, true, true},
      {"a best one stays", CheckpointState::Complete, 1, 0, &week, true, false},
      {"the latest step stays", CheckpointState::Complete, 5, 0, &week, false, false},
      {"a step above the latest stays", CheckpointState::Complete, 6, 0, &week, false, false},
      {"an age of 0 seconds means never", CheckpointState::Complete, 1, 0, &never, false, false},
      {"exactly that age is kept", CheckpointState::Complete, 1, kNow - 10'000, &week, false, false},
      {"one millisecond more goes", CheckpointState::Complete, 1, kNow - 10'001, &week, false, true},
      {"a clock behind the creation is age 0", CheckpointState::Complete, 1, kNow + 1, &week, false, false},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    CheckpointMeta meta = candidate(kFull, c.step, c.state);
    meta.created_at = c.created_at;
    EXPECT_EQ(is_gc_eligible(meta, *c.policy, 5, kNow, c.is_best), c.want);
  }
}

TEST(GcEligible, TakesAnAgeThatIsTooLongForMillisecondsForNever) {
  CheckpointMeta meta = candidate(kFull, 1);
  const GcPolicy ages{0, std::numeric_limits<std::uint64_t>::max(), 0, "", true};
  EXPECT_FALSE(is_gc_eligible(meta, ages, 5, std::numeric_limits<std::uint64_t>::max(), false));
}

TEST(Names, OfEnumeratorsReadBack) {
  for (const char* name : {"Creating", "Complete", "Corrupted", "Deleted"}) {
    ASSERT_TRUE(parse_checkpoint_state(name).has_value()) << name;
    EXPECT_EQ(to_string(*parse_checkpoint_state(name)), name);
  }
  for (const char* name : {"Full", "Incremental", "Emergency"}) {
    ASSERT_TRUE(parse_checkpoint_type(name).has_value()) << name;
    EXPECT_EQ(to_string(*parse_checkpoint_type(name)), name);
  }
  EXPECT_EQ(parse_checkpoint_state("complete"), std::nullopt);
  EXPECT_EQ(parse_checkpoint_type(""), std::nullopt);
}

}  // namespace
}  // namespace tensorforge::checkpoint
