// Clients, the network and the service on a virtual clock. One number makes the whole history.
#include "crashtest/simulation.h"

#include <algorithm>
#include <array>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::crashtest {
namespace {

SimulationPlan plan_of(std::uint64_t seed) {
  SimulationPlan plan;
  plan.seed = seed;
  return plan;
}
void expect_ok(const SimulationOutcome& outcome) {
  for (const std::string& problem : outcome.problems) ADD_FAILURE() << problem;
  for (const Finding& finding : outcome.verdict.findings) {
    ADD_FAILURE() << to_string(finding.violation) << ": " << finding.what;
  }
}

TEST(Simulation, WhatIsToldIsInTheLogOnceWhateverHappens) {
  std::array<std::uint64_t, kSimulatedFaults> faults{};
  std::uint64_t acknowledged = 0, refused = 0, read = 0, kept = 0, dropped = 0;
  // 660 and 955: a batch that ended with a no-op was answered differently at each retry.
  for (std::uint64_t seed = 1; seed <= 202; ++seed) {
    const std::uint64_t known = seed == 201 ? 660 : seed == 202 ? 955 : seed;
    SCOPED_TRACE(testing::Message() << "seed " << known);
    const SimulationOutcome outcome = simulate(plan_of(known));
    expect_ok(outcome);
    for (std::size_t i = 0; i < faults.size(); ++i) faults[i] += outcome.faults[i];
    acknowledged += outcome.verdict.acknowledged;
    refused += outcome.verdict.refused;
    read += outcome.verdict.read;
    kept += outcome.verdict.unknown_kept;
    dropped += outcome.verdict.unknown_dropped;
  }
  for (std::size_t i = 0; i < faults.size(); ++i) {
    EXPECT_GT(faults[i], 10U) << to_string(static_cast<SimulatedFault>(i)) << " hardly ever happened";
  }
  EXPECT_GT(acknowledged, 1'000U);
  EXPECT_GT(refused, 1'000U);
  EXPECT_GT(read, 1'000U);
  EXPECT_GT(kept, 10U) << "carried out, and nobody was told";
  EXPECT_GT(dropped, 10U) << "never carried out, and nobody was told";
}

TEST(Simulation, TheSameSeedMakesTheSameHistory) {
  std::set<Digest> traces;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const SimulationOutcome one = simulate(plan_of(seed)), two = simulate(plan_of(seed));
    EXPECT_EQ(one.trace, two.trace);
    EXPECT_EQ(one.happenings, two.happenings);
    traces.insert(one.trace);
  }
  EXPECT_EQ(traces.size(), 40U);
}

TEST(Simulation, AHistoryOfOneClientWithoutFaultsAnswersEverything) {
  SimulationPlan plan = plan_of(7);
  plan.clients = 1;
  plan.faults.emplace();
  const SimulationOutcome outcome = simulate(plan);
  expect_ok(outcome);
  EXPECT_EQ(outcome.verdict.unknown_kept + outcome.verdict.unknown_dropped, 0U);
  EXPECT_EQ(outcome.restarts, 0U);
  EXPECT_EQ(outcome.connections, 1U);
}

TEST(Simulation, IsDescribed) {
  SimulationPlan plan = plan_of(7);
  plan.clients = 2;
  plan.operations = 5;
  while (fault_count(plan) < 3) ++plan.seed;
  plan.faults = {2};
  EXPECT_THAT(describe(plan), testing::StartsWith("2 clients, 5 operations of each, fault 2 ("));
}

}  // namespace
}  // namespace tensorforge::crashtest
