// The level `simulate`: a short history on a virtual clock for each seed.
#include <fmt/format.h>

#include "crashtest/level.h"
#include "crashtest/simulation.h"

namespace tensorforge::crashtest {
namespace {

/// Every so many seeds a history is made twice, to see that it is the same.
constexpr std::uint64_t kRepeated = 16;

SimulationPlan plan_of(std::uint64_t seed, const Portion& portion) {
  SimulationPlan plan;
  plan.seed = seed;
  plan.clients = portion.clients.value_or(plan.clients);
  plan.operations = portion.operations.value_or(plan.operations);
  plan.faults = portion.faults;
  return plan;
}

}  // namespace

RunResult run_simulate(std::uint64_t seed, const Scratch&, const Portion& portion) {
  const SimulationPlan plan = plan_of(seed, portion);
  const SimulationOutcome outcome = simulate(plan);
  RunResult result;
  result.count(outcome.verdict);
  for (std::size_t kind = 0; kind < kSimulatedFaults; ++kind) {
    if (outcome.faults[kind] == 0) continue;
    result.faults[std::string(to_string(static_cast<SimulatedFault>(kind)))] = outcome.faults[kind];
  }
  const std::string where = describe(plan);
  result.add_findings(outcome.verdict, where);
  for (const std::string& problem : outcome.problems) result.add_failure(fmt::format("{}: {}", where, problem));
  if (seed % kRepeated == 0 && simulate(plan).trace != outcome.trace) {
    result.add_failure("the same seed made another history");
  }
  return result;
}

Portion whole_simulate(std::uint64_t seed) {
  const SimulationPlan plan = plan_of(seed, {});
  return {plan.clients, plan.operations, all_faults(fault_count(plan))};
}

}  // namespace tensorforge::crashtest
