// The level `simulate`: a short history on a virtual clock for each seed.
#include <fmt/format.h>

#include "crashtest/level.h"
#include "crashtest/simulation.h"

namespace tensorforge::crashtest {
namespace {

/// Every so many seeds a history is made twice, to see that it is the same.
constexpr std::uint64_t kRepeated = 16;

void note_failure(RunResult& result, const SimulationPlan& plan) {
  const SimulationPlan smallest = shrink(plan, [](const SimulationPlan& other) { return !simulate(other).ok(); });
  const SimulationOutcome outcome = simulate(smallest);
  const std::string where = describe(smallest);
  result.add_findings(outcome.verdict, where);
  for (const std::string& problem : outcome.problems) result.add_failure(fmt::format("{}: {}", where, problem));
}

}  // namespace

RunResult run_simulate(std::uint64_t seed, const Scratch&) {
  SimulationPlan plan;
  plan.seed = seed;
  const SimulationOutcome outcome = simulate(plan);
  RunResult result;
  result.count(outcome.verdict);
  for (std::size_t kind = 0; kind < kSimulatedFaults; ++kind) {
    if (outcome.faults[kind] == 0) continue;
    result.faults[std::string(to_string(static_cast<SimulatedFault>(kind)))] = outcome.faults[kind];
  }
  if (!outcome.ok()) note_failure(result, plan);
  if (seed % kRepeated == 0 && simulate(plan).trace != outcome.trace) {
    result.add_failure("the same seed made another history");
  }
  return result;
}

}  // namespace tensorforge::crashtest
