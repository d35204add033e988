#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "client/core.h"
#include "crashtest/call_journal.h"
#include "crashtest/journal_driver.h"
#include "crashtest/oracle.h"
#include "crashtest/simulated_disk.h"
#include "crashtest/workload.h"
#include "protocol/engine.h"
#include "service/config.h"
#include "storage/data_directory.h"

namespace tensorforge::crashtest {

/// Clients with their journal of calls, a virtual clock, and one service after another on simulated disks: the real
/// client core, protocol engine, service and RocksDB journal in one process, joined without sockets. The same seed and
/// the same plans make the same history, to the byte.
///
/// Threads: one; the journal's own beside it.
class World {
 public:
  /// The data directory, on every disk.
  static constexpr const char* kDataDir = "/data";
  static constexpr std::size_t kClients = 3;

  explicit World(std::uint64_t seed, std::size_t clients = kClients);
  ~World();

  struct Plan {
    std::size_t requests{};  ///< that clients begin in this life
    /// Asked before each call of the disk, after the journal's threads were put in order.
    SimulatedDisk::Hook hook;
    /// Asked after everything that happened: the service ends here, without a word.
    std::function<bool()> is_cut{[] { return false; }};
    /// The directory was opened and the state recovered; nobody is served yet.
    std::function<void(const Recovered&)> on_recovered{[](const Recovered&) {}};
    /// How long the clock stands before the journal goes on, ms; asked once for each thing that it does.
    std::function<std::uint64_t()> disk_delay_ms{[] { return std::uint64_t{0}; }};
    storage::Ack ack{};
    /// Snapshots of where the digests were noted last are taken now and then, and at a clean stop.
    bool takes_snapshots{};
  };
  enum class End {
    kStopped,     ///< everything was answered, and the service stopped cleanly
    kCut,         ///< is_cut
    kRefused,     ///< it did not open: `why`
    kDiskFailed,  ///< exit code 3: `why`
    kStuck,       ///< neither the clients nor the service get on
  };
  struct Life {
    End end{};
    absl::Status why;
    double recovery_ms{};  ///< of opening and replay, by the machine's clock; 0: it did not come so far
  };
  /// One life of the service, from its opening to its end. What clients have open is sent again first.
  Life live(const std::shared_ptr<SimulatedDisk>& disk, const Plan& plan);

  const CallJournal& calls() const { return calls_; }
  /// What clients were told that can never be right, as that the log was rolled back.
  const std::vector<std::string>& complaints() const { return complaints_; }
  const service::Config& config() const { return config_; }
  std::size_t unanswered() const { return open_; }
  /// Of the disk, for the service's reserve: its refusals count as explained.
  void expect_full_disk() { disk_was_full_ = true; }
  std::mt19937_64& random() { return random_; }

 private:
  struct Client {
    SessionId session{};
    std::string actor;
    std::optional<client::Core> core;
    std::optional<protocol::ConnectionId> connection;
    std::uint64_t commands{};
  };
  class Service;  // one life of it

  void begin_request(Client&);
  void on_answer(std::size_t handle, const client::Answer& answer);
  void disconnect_all();
  void pass_time(std::uint64_t ms);

  std::mt19937_64 random_;
  service::Config config_;
  service::Now now_;
  CallJournal calls_;
  Workload workload_;
  std::vector<Client> clients_;
  std::size_t open_{};
  protocol::ConnectionId last_connection_{};
  std::vector<std::string> complaints_;
  bool disk_was_full_{};
};

}  // namespace tensorforge::crashtest
