#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "platform/endpoint.h"
#include "platform/result.h"
#include "protocol/engine.h"
#include "server/snapshot_taker.h"
#include "service/state.h"
#include "storage/data_directory.h"
#include "storage/journal.h"

namespace tensorforge::server {

/// The address, taken before the log is recovered, so that a port in use is known at once. Nobody can connect yet.
class Listener {
 public:
  /// kInvalidArgument: the address cannot be had; the message says why.
  static Result<Listener> bind(const Endpoint& endpoint);
  Listener(Listener&&) noexcept;
  ~Listener();

  /// With the port that was picked, where it was 0.
  const Endpoint& endpoint() const;

 private:
  friend class Server;
  struct Socket;
  explicit Listener(std::unique_ptr<Socket> socket);
  std::unique_ptr<Socket> socket_;
};

/// Carries the protocol's engine: sockets, the journal's completions, reads of the log, time and signals in, its
/// effects out.
///
/// Threads: run() is the I/O thread, where the engine lives and the log has its one writer. The journal's threads post
/// their completions to it, and a reader thread the answers from the log.
class Server {
 public:
  struct Options {
    protocol::Config protocol;
    service::Config service;
    protocol::Identity identity;
    /// Set: the log begins a new life with this, durable before anybody is let in.
    std::optional<storage::OpenedDirectory::Incarnation> to_start;
    /// What opening did not read: everything before this is checked while serving. At the log's start: nothing.
    storage::LogPoint unverified_until{};
    std::optional<SnapshotOptions> snapshots;  ///< nullopt: none are taken
    std::function<void()> on_ready{[] {}};     ///< runs when the first client can connect
    bool handle_signals{true};                 ///< SIGTERM and SIGINT stop it
  };

  /// `journal` is idle, not started, and `state` recovered from it, to its end. When run() has returned, the journal is
  /// for the caller to close, and to be closed before the server ends.
  Server(Options options, Listener listener, storage::Journal& journal, service::State state);
  ~Server();

  /// Serves until it is stopped, the disk fails (3), or the log turns out not to verify (2). The process's exit code.
  int run();
  /// Stops accepting, answers what is in flight, makes it durable, and lets run() return. Any thread.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tensorforge::server
