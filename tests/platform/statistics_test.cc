#include "platform/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace tensorforge::statistics {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(Percentile, IsLinearBetweenTheClosestRanks) {
  // Expected values are those of numpy.percentile, whose default is type 7.
  const std::vector<double> ten = {7, 1, 10, 4, 3, 9, 2, 8, 6, 5};
  const struct {
    double p, want;
  } cases[] = {{0, 1}, {100, 10}, {50, 5.5}, {25, 3.25}, {75, 7.75}, {90, 9.1}, {99, 9.91}, {1, 1.09}};
  for (const auto& [p, want] : cases) {
    SCOPED_TRACE(p);
    ASSERT_TRUE(percentile(ten, p).has_value());
    EXPECT_DOUBLE_EQ(*percentile(ten, p), want);
  }
}

TEST(Percentile, OfOneSampleIsThatSample) {
  for (const double p : {0.0, 37.5, 100.0}) EXPECT_EQ(percentile(std::vector<double>{42}, p), 42);
}

TEST(Percentile, HasNoAnswerWithoutSamplesForNanOrOutsideTheRange) {
  const std::vector<double> samples = {1, 2, 3};
  EXPECT_EQ(percentile({}, 50), std::nullopt);
  EXPECT_EQ(percentile(std::vector<double>{1, kNan, 3}, 0), std::nullopt);
  for (const double p : {-0.001, 100.001, kNan, kInf, -kInf}) {
    SCOPED_TRACE(p);
    EXPECT_EQ(percentile(samples, p), std::nullopt);
  }
}

TEST(Percentile, AnswersWithInfinitiesWhereThereIsAnAnswer) {
  EXPECT_EQ(percentile(std::vector<double>{kInf, kInf, kInf}, 40), kInf);
  EXPECT_EQ(percentile(std::vector<double>{1, kInf}, 50), kInf);
  EXPECT_EQ(percentile(std::vector<double>{1, kInf}, 0), 1);
  EXPECT_EQ(percentile(std::vector<double>{-kInf, kInf}, 50), std::nullopt);
}

TEST(Percentile, DoesNotOverflowBetweenExtremes) {
  constexpr double kMax = std::numeric_limits<double>::max();
  EXPECT_EQ(percentile(std::vector<double>{-kMax, kMax}, 50), 0);
}

TEST(Percentile, OfSortedAndUnsortedSamplesAgreesWithItsDefinition) {
  for (std::uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    std::vector<double> samples(1 + random() % 40);
    for (double& sample : samples) sample = static_cast<double>(random() % 1000) / 8;
    const double p = static_cast<double>(random() % 10001) / 100;
    const std::optional<double> got = percentile(samples, p);

    std::sort(samples.begin(), samples.end());
    const double rank = static_cast<double>(samples.size() - 1) * p / 100;
    const auto below = static_cast<std::size_t>(std::floor(rank));
    const std::size_t above = std::min(below + 1, samples.size() - 1);
    ASSERT_TRUE(got.has_value());
    ASSERT_NEAR(*got, samples[below] + (rank - std::floor(rank)) * (samples[above] - samples[below]), 1e-9);
  }
}

TEST(Mean, AddsUpWithoutOverflow) {
  constexpr double kMax = std::numeric_limits<double>::max();
  EXPECT_EQ(mean(std::vector<double>{1, 2, 6}), 3);
  EXPECT_EQ(mean(std::vector<double>{kMax, kMax}), kMax);
  EXPECT_EQ(mean({}), std::nullopt);
  EXPECT_EQ(mean(std::vector<double>{1, kNan}), std::nullopt);
}

TEST(Stddev, IsThatOfASample) {
  EXPECT_EQ(stddev(std::vector<double>{2, 4, 4, 4, 5, 5, 7, 9}), std::sqrt(32.0 / 7));
  EXPECT_EQ(stddev(std::vector<double>{3, 3, 3}), 0);
}

TEST(Stddev, HasNoAnswerForFewerThanTwoSamplesOrNan) {
  EXPECT_EQ(stddev({}), std::nullopt);
  EXPECT_EQ(stddev(std::vector<double>{5}), std::nullopt);
  EXPECT_EQ(stddev(std::vector<double>{5, kNan}), std::nullopt);
  EXPECT_EQ(stddev(std::vector<double>{5, kInf}), std::nullopt);
}

TEST(Stddev, SurvivesALargeOffset) {
  EXPECT_DOUBLE_EQ(*stddev(std::vector<double>{1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16}), std::sqrt(30.0));
}

}  // namespace
}  // namespace tensorforge::statistics
