#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "crashtest/oracle.h"
#include "platform/digest.h"

namespace tensorforge::crashtest {

/// What can go wrong in the simulated world.
enum class SimulatedFault {
  kCrash,           ///< the service ends without a word; what was not synced is there or not
  kStop,            ///< the service is told to stop
  kDiskFails,       ///< for good: the service ends
  kDiskSlow,        ///< each sync and anchor takes up to 30 s for a while
  kDiskFull,        ///< under the reserve for a while
  kReset,           ///< a connection breaks; both ends learn of it, each in its time
  kServiceUnaware,  ///< a connection breaks, and the service learns of it much later
  kClientUnaware,   ///< ... the client does
  kStall,           ///< nothing gets through a connection for a while, one way or both
  kClientDies,      ///< and a new one with a new session takes its place
  kClockSteps,      ///< the wall clock, by up to some hours, either way
};
inline constexpr std::size_t kSimulatedFaults = 11;
std::string_view to_string(SimulatedFault);

/// A history: the seed decides all that is not said here.
struct SimulationPlan {
  std::uint64_t seed{};
  std::size_t clients{3};
  std::size_t operations{16};  ///< of each client
  /// Which of the faults that the seed gives happen, by number from 0; nullopt: all.
  std::optional<std::vector<std::uint64_t>> faults;
  bool operator==(const SimulationPlan&) const = default;
};
/// How many faults the seed gives.
std::size_t fault_count(const SimulationPlan&);

struct SimulationOutcome {
  Verdict verdict;
  std::vector<std::string> problems;  ///< beside the findings of the verdict
  Digest trace;                       ///< of everything that happened, in order
  std::uint64_t happenings{};
  std::uint64_t virtual_ms{};
  std::array<std::uint64_t, kSimulatedFaults> faults{};  ///< that happened, by kind
  std::uint64_t connections{}, restarts{};

  bool ok() const { return verdict.ok() && problems.empty(); }
};

/// Clients, the service and the network between them on a virtual clock, in one thread: the client's own state machine,
/// the protocol's engine and the journal in memory, joined by connections that deliver as much as they like, when they
/// like. Nobody but the seed decides anything, so the same plan has the same outcome.
SimulationOutcome simulate(const SimulationPlan&);

/// "2 clients, 5 operations of each, faults 0 (crash), 3 (stall)"
std::string describe(const SimulationPlan&);

}  // namespace tensorforge::crashtest
