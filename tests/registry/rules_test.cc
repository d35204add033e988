// The pure functions: lifecycle, scores, selection.
#include <algorithm>
#include <limits>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "registry/registry.h"

namespace tensorforge::registry {
namespace {

using enum DeploymentState;
using Shape = std::vector<std::size_t>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(Lifecycle, AllowsNineOfTheFortyNinePairs) {
  const std::set<std::pair<DeploymentState, DeploymentState>> allowed = {
      {Registered, Validating}, {Validating, Staging},    {Validating, Registered},
      {Staging, Canary},        {Staging, Registered},    {Canary, Production},
      {Canary, Staging},        {Production, Deprecated}, {Deprecated, Archived}};
  for (int from = 0; from < 7; ++from) {
    for (int to = 0; to < 7; ++to) {
      const auto pair = std::pair(static_cast<DeploymentState>(from), static_cast<DeploymentState>(to));
      SCOPED_TRACE(testing::Message() << to_string(pair.first) << " to " << to_string(pair.second));
      EXPECT_EQ(can_transition_state(pair.first, pair.second), allowed.contains(pair));
    }
  }
}

TEST(Lifecycle, ListsWhereAStateLeads) {
  EXPECT_THAT(allowed_transitions(Staging), testing::ElementsAre(Canary, Registered));
  EXPECT_THAT(allowed_transitions(Archived), testing::IsEmpty());
}

TEST(ShapeCompatibility, IsTheMeanOfTheTwoScores) {
  const struct {
    const char* name;
    Shape input_a, output_a, input_b, output_b;
    double want;
  } cases[] = {
      {"all equal", {1, 3, 224, 224}, {1, 1000}, {1, 3, 224, 224}, {1, 1000}, 1},
      {"all empty", {}, {}, {}, {}, 1},
      {"one dimension differs", {1, 3, 224, 224}, {1, 1000}, {1, 3, 256, 224}, {1, 1000}, 0.875},
      {"ranks differ", {1, 2}, {}, {1, 2, 3, 4}, {}, 0.75},
      {"shifted by one", {1, 2, 3}, {5}, {2, 3, 4}, {5}, 0.5},
      {"empty against something", {}, {1}, {7}, {1}, 0.5},
      {"nothing in common", {1}, {2}, {3}, {4}, 0},
      {"zero is a dimension", {0}, {0}, {0}, {0}, 1},
  };
  for (const auto& [name, input_a, output_a, input_b, output_b, want] : cases) {
    SCOPED_TRACE(name);
    EXPECT_EQ(shape_compatibility(input_a, output_a, input_b, output_b), want);
    EXPECT_EQ(shape_compatibility(input_b, output_b, input_a, output_a), want);
  }
}

TEST(ShapeCompatibilityProperty, IsOneExactlyWhenAllShapesAreEqual) {
  for (std::uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto shape = [&] {
      Shape made(random() % 4);
      for (std::size_t& dimension : made) dimension = random() % 2;
      return made;
    };
    const Shape input_a = shape(), output_a = shape(), input_b = shape(), output_b = shape();
    const double score = shape_compatibility(input_a, output_a, input_b, output_b);
    ASSERT_GE(score, 0);
    ASSERT_LE(score, 1);
    ASSERT_EQ(score == 1, input_a == input_b && output_a == output_b);
  }
}

ValidationResult measured(double p99, double accuracy, std::size_t errors = 0) {
  ValidationResult result;
  result.latency_p99_ms = p99;
  result.accuracy_score = accuracy;
  result.errors.assign(errors, "failed");
  return result;
}

TEST(MeetsSla, IncludesBothLimits) {
  EXPECT_TRUE(meets_sla(measured(50, 0.9), 50, 0.9));
  EXPECT_FALSE(meets_sla(measured(50.001, 0.9), 50, 0.9));
  EXPECT_FALSE(meets_sla(measured(50, 0.899), 50, 0.9));
}

TEST(MeetsSla, IsFalseWithANanAmongTheFour) {
  EXPECT_FALSE(meets_sla(measured(kNan, 0.9), 50, 0.5));
  EXPECT_FALSE(meets_sla(measured(10, kNan), 50, 0.5));
  EXPECT_FALSE(meets_sla(measured(10, 0.9), kNan, 0.5));
  EXPECT_FALSE(meets_sla(measured(10, 0.9), 50, kNan));
}

TEST(MeetsSla, TakesInfinityAsALimitAndNotAsAMeasurement) {
  EXPECT_TRUE(meets_sla(measured(1e300, 0), kInf, -kInf));
  EXPECT_FALSE(meets_sla(measured(kInf, 0.9), kInf, 0.5));
  EXPECT_FALSE(meets_sla(measured(10, kInf), 50, 0.5));
}

TEST(MeetsSla, DoesNotReadPassedOrErrors) {
  ValidationResult result = measured(10, 0.9, 3);
  result.passed = false;
  EXPECT_TRUE(meets_sla(result, 50, 0.5));
}

std::pair<ModelMetadata, ValidationResult> candidate(std::string id, DeploymentState state, double accuracy, double p99,
                                                     ModelVersion version = {1, 0, 0}) {
  ModelMetadata model;
  model.model_id = std::move(id);
  model.state = state;
  model.version = version;
  return {model, measured(p99, accuracy)};
}

TEST(SelectBestModel, TakesTheHighestAccuracyThenEachTieBreakInTurn) {
  using Candidates = std::vector<std::pair<ModelMetadata, ValidationResult>>;
  const struct {
    const char* name;
    Candidates candidates;
    std::optional<std::string> want;
  } cases[] = {
      {"none", {}, std::nullopt},
      {"accuracy first", {candidate("a", Production, 0.8, 1), candidate("b", Canary, 0.9, 99)}, "b"},
      {"then the lower p99", {candidate("a", Production, 0.9, 9), candidate("b", Production, 0.9, 8)}, "b"},
      {"then the higher version",
       {candidate("a", Production, 0.9, 9, {1, 9, 9}), candidate("b", Production, 0.9, 9, {1, 10, 0})},
       "b"},
      {"then the earlier", {candidate("b", Production, 0.9, 9), candidate("a", Production, 0.9, 9)}, "b"},
      {"NaN accuracy is out", {candidate("a", Production, kNan, 1), candidate("b", Production, 0.1, 9)}, "b"},
      {"NaN p99 is out", {candidate("a", Production, 0.9, kNan), candidate("b", Production, 0.1, 9)}, "b"},
      {"NaN alone", {candidate("a", Production, kNan, 1)}, std::nullopt},
      {"infinite accuracy is last", {candidate("a", Production, kInf, 1), candidate("b", Production, 0.1, 9)}, "b"},
      {"infinite p99 loses a tie", {candidate("a", Production, 0.9, -kInf), candidate("b", Production, 0.9, 1e9)}, "b"},
      {"negative accuracy counts", {candidate("a", Canary, -2, 1), candidate("b", Canary, -1, 1)}, "b"},
  };
  for (const auto& [name, candidates, want] : cases) {
    SCOPED_TRACE(name);
    EXPECT_EQ(select_best_model(candidates), want);
  }
}

TEST(SelectBestModel, LooksAtProductionAndCanaryOnly) {
  for (int i = 0; i < 7; ++i) {
    const auto state = static_cast<DeploymentState>(i);
    SCOPED_TRACE(to_string(state));
    const auto only = std::vector{candidate("a", state, 0.9, 1)};
    EXPECT_EQ(select_best_model(only).has_value(), state == Production || state == Canary);
  }
}

TEST(SelectBestModel, DoesNotReadPassedOrErrors) {
  auto failed = candidate("a", Production, 0.9, 1);
  failed.second.errors = {"failed"};
  EXPECT_EQ(select_best_model(std::vector{failed, candidate("b", Production, 0.8, 1)}), "a");
}

TEST(RollbackPriority, WeighsErrorsLatencyAndAccuracy) {
  const ValidationResult baseline = measured(100, 0.9);
  EXPECT_EQ(rollback_priority(measured(100, 0.9), baseline), 0);
  EXPECT_EQ(rollback_priority(measured(50, 0.95), baseline), 0);
  EXPECT_EQ(rollback_priority(measured(100, 0.9, 3), baseline), 30);
  EXPECT_EQ(rollback_priority(measured(150, 0.9), baseline), 25);
  EXPECT_DOUBLE_EQ(rollback_priority(measured(100, 0.7), baseline), 20);
  EXPECT_DOUBLE_EQ(rollback_priority(measured(200, 0.4, 2), baseline), 20 + 50 + 50);
  EXPECT_EQ(rollback_priority(measured(50, 0.9, 1), baseline), 10);  // an improvement buys nothing back
}

TEST(RollbackPriority, TakesATermThatIsNotANumberAsNothing) {
  EXPECT_EQ(rollback_priority(measured(kNan, 0.9, 1), measured(100, 0.9)), 10);
  EXPECT_EQ(rollback_priority(measured(200, 0.9, 1), measured(kNan, 0.9)), 10);
  EXPECT_EQ(rollback_priority(measured(100, kNan, 1), measured(100, 0.9)), 10);
  EXPECT_EQ(rollback_priority(measured(100, 0.9, 1), measured(100, kNan)), 10);
  EXPECT_EQ(rollback_priority(measured(kInf, kInf, 1), measured(kInf, kInf)), 10);
}

TEST(RollbackPriority, CountsNoLatencyAgainstABaselineThatIsNotPositive) {
  EXPECT_EQ(rollback_priority(measured(500, 0.9), measured(0, 0.9)), 0);
  EXPECT_EQ(rollback_priority(measured(500, 0.9), measured(-1, 0.9)), 0);
}

TEST(RollbackPriorityProperty, IsNeverNegativeAndGrowsWithEachFactor) {
  for (std::uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto figure = [&] { return static_cast<double>(random() % 1000) / 10; };
    const ValidationResult baseline = measured(figure(), figure());
    const ValidationResult current = measured(figure(), figure(), random() % 4);
    const double priority = rollback_priority(current, baseline);
    ASSERT_GE(priority, 0);
    ValidationResult more_errors = current, slower = current, worse = current;
    more_errors.errors.emplace_back("another");
    slower.latency_p99_ms = std::max(current.latency_p99_ms, baseline.latency_p99_ms) + 1;
    worse.accuracy_score = std::min(current.accuracy_score, baseline.accuracy_score) - 1;
    ASSERT_GT(rollback_priority(more_errors, baseline), priority);
    if (baseline.latency_p99_ms > 0) {
      ASSERT_GT(rollback_priority(slower, baseline), priority);
    }
    ASSERT_GT(rollback_priority(worse, baseline), priority);
  }
}

TEST(ValidateLatencies, TakesPercentilesOfTheSamples) {
  std::vector<double> samples;
  for (int i = 100; i >= 0; --i) samples.push_back(i);
  const ValidationResult want{"resnet", {1, 2, 0}, true, 50, 99, 0.93, {}};
  EXPECT_EQ(validate_latencies("resnet", {1, 2, 0}, samples, 0.93, {}), want);
}

TEST(ValidateLatencies, PassesWithSamplesAndWithoutErrorsOnly) {
  const std::vector<double> samples = {5};
  EXPECT_TRUE(validate_latencies("m", {}, samples, 0, {}).passed);
  EXPECT_FALSE(validate_latencies("m", {}, samples, 0, {"out of memory"}).passed);
  EXPECT_EQ(validate_latencies("m", {}, samples, 0, {"out of memory"}).latency_p99_ms, 5);
}

TEST(ValidateLatencies, HasZerosWhereThereIsNoPercentile) {
  for (const std::vector<double>& samples : {std::vector<double>{}, {1, kNan, 3}}) {
    const ValidationResult result = validate_latencies("m", {}, samples, 0.5, {});
    EXPECT_EQ(result, (ValidationResult{"m", {}, false, 0, 0, 0.5, {}}));
  }
}

}  // namespace
}  // namespace tensorforge::registry
