#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <asio/ip/tcp.hpp>

#include "bench_run.h"
#include "bench_set_up.h"
#include "codec/reply.h"
#include "load_connection.h"

namespace tensorforge::cli::bench {

/// One connection: keeps `depth` requests in flight until the time is over, and checks each answer.
///
/// Threads: that of the run's `io`.
class Load final : public LoadConnection::User {
 public:
  Load(Run& run, std::size_t number, Share share);

  /// Once; `service` is what messages call it. Throws what ends the command.
  void start(const std::string& service, const std::vector<asio::ip::tcp::endpoint>& endpoints,
             const std::string& actor);
  /// Gives it up if it was silent for too long.
  void look(SteadyClock::time_point now);

  void on_frame(std::span<const std::byte> frame, LoadConnection::Time arrived) override;
  /// Each request that is in flight is an error, and where none is the loss.
  void on_lost(const absl::Status& why) override;

 private:
  /// A request that is in flight. Its correlation id is its place among all of this connection, from 1 up.
  struct Asked {
    LoadConnection::Time started;
    bool is_command{};
    std::function<bool(const Reply&)> check;  ///< empty: the answer names the version below
    std::string_view model_id;
    std::string own_id;  ///< what model_id may refer to
    registry::ModelVersion version;
  };

  std::uint64_t in_flight() const { return sent_ - answered_; }
  void on_welcome(std::span<const std::byte> frame);
  void finish();

  void next(LoadConnection::Time now);
  void register_model(LoadConnection::Time now);
  void get(LoadConnection::Time now);
  void alloc(LoadConnection::Time now);
  void free_block(LoadConnection::Time now);
  void begin_checkpoint(LoadConnection::Time now);
  void complete_checkpoint(LoadConnection::Time now);

  Asked& ask(LoadConnection::Time now, bool is_command);
  void send(Asked& asked, codec::VersionRequestFrame& frame);
  void send_command(LoadConnection::Time now, SingleCommand command, std::function<bool(const Reply&)> check);
  /// Compares the answer where it lies: the copies that a client makes of it would be measured too.
  bool names_version(const Asked& asked, std::span<const std::byte> frame) const;
  bool is_good(const Asked& asked, std::span<const std::byte> frame) const;

  Run& run_;
  std::size_t number_;
  std::vector<Asked> asked_;  // a ring of `depth`
  std::uint64_t sent_{}, answered_{};
  std::uint64_t sent_commands_{}, answered_commands_{};
  std::vector<std::string> blocks_, begun_;
  std::size_t blocks_held_;
  std::uint64_t steps_;
  LoadConnection::Time last_frame_;
  bool greeted_{}, done_{};
  LoadConnection connection_;
};

}  // namespace tensorforge::cli::bench
