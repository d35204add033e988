#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <asio/io_context.hpp>
#include <fmt/format.h>

#include "checkpoint/state_machine.h"
#include "codec/version_request_frame.h"
#include "gpu_memory/state_machine.h"
#include "registry/state_machine.h"

/// The parts of `tensorforge bench`.
namespace tensorforge::cli::bench {

using SteadyClock = std::chrono::steady_clock;

enum class Operation { Register, Get, Alloc, Checkpoint, Mixed };
std::string_view to_string(Operation operation);

struct Plan {
  Operation operation{};
  std::uint64_t clients{1}, depth{1}, seconds{10}, keys{1'000};
  std::uint64_t live{};         ///< versions, blocks or checkpoints that are there before the clock starts
  std::uint64_t timeout_s{30};  ///< a connection that is silent for so long, with requests in flight, is lost
};

inline constexpr std::uint64_t kMaxKeys = 1'000'000;
inline constexpr std::uint64_t kMaxBlockBytes = std::uint64_t{4} << 20U;

/// What all connections of one measurement share: what they ask for next, and what came of it.
///
/// Threads: none.
class Run {
 public:
  explicit Run(const Plan& plan);
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  /// Encodes what will be sent, all but the version that it is about: once, when `models` are known.
  void prepare_frames();

  using IdBuffer = fmt::basic_memory_buffer<char, 128>;
  struct NextVersion {
    std::size_t row{};  ///< of the table: the fields that it gets
    IdBuffer model_id;
    registry::ModelVersion version;
    std::string_view id() const { return {model_id.data(), model_id.size()}; }
  };
  /// The next version to make, of `keys` models in turn.
  NextVersion next_version();
  registry::PackedModel next_model();
  /// What registers a NextVersion of this row, but for the version.
  codec::VersionRequestFrame& registration(std::size_t row) { return registrations_[row]; }

  using Version = std::pair<std::string, registry::ModelVersion>;
  /// A random one of `models`.
  const Version& next_to_read();
  /// What asks for a model with an id of so many bytes, but for the version.
  codec::VersionRequestFrame& get(std::size_t id_bytes) { return *gets_[id_bytes]; }

  gpu_memory::Allocate next_block(std::size_t client);
  std::string device(std::size_t client) const;
  checkpoint::CreateCheckpoint next_checkpoint(std::size_t client, std::uint64_t step) const;
  static checkpoint::CompleteCheckpoint completion_of(std::string checkpoint_id);

  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(random_() % bound); }
  void note_errors(std::uint64_t count, const absl::Status& what);

  const Plan plan;
  std::vector<Version> models;  ///< that `get` reads

  asio::io_context io{1};
  SteadyClock::time_point end;
  SteadyClock::time_point last_answer;
  std::uint64_t connections{};  ///< that are not done
  std::uint64_t lost_connections{};
  absl::Status first_loss;
  std::uint64_t operations{};  ///< that were answered
  std::uint64_t errors{};      ///< answers that are wrong, and those that will not come
  absl::Status first_error;
  std::vector<float> latencies_us;

 private:
  /// The ids of a row's models are equally long.
  IdBuffer model_id(std::size_t row, std::uint64_t key) const;

  std::mt19937_64 random_;
  std::string prefix_;  ///< of everything that this run makes: nothing is met twice
  std::vector<registry::PackedModel> table_;
  std::vector<std::string> id_starts_;                     ///< of the models of each row, up to the number of the key
  std::vector<codec::VersionRequestFrame> registrations_;  ///< one for each row of the table
  std::vector<std::optional<codec::VersionRequestFrame>> gets_;  ///< by the bytes of the id
  /// Of `models`, what is read next; so the memory has brought each when it is its turn.
  std::array<std::uint32_t, 16> picks_{};
  std::size_t next_pick_{};
  std::uint64_t versions_made_{};
};

}  // namespace tensorforge::cli::bench
