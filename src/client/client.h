#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "client/core.h"

namespace asio {
class io_context;
}

namespace tensorforge::client {

struct ClientOptions {
  std::string server{"127.0.0.1:7411"};       ///< HOST:PORT; an IPv6 address in brackets
  std::string actor{"anonymous"};             ///< who asks; an id, recorded with every change
  std::string program{"tensorforge-client"};  ///< name and version, for the service's log
  std::chrono::milliseconds connect_timeout{5'000};
  std::chrono::milliseconds request_timeout{30'000};  ///< of one request, with all its retries
  /// Without a connection for so long, what is open is given up before its time.
  std::chrono::milliseconds reconnect_timeout{30'000};
  std::size_t max_in_flight{1'024};
};

/// What a new session is called: 16 random bytes. kInternal: the system gives none.
Result<SessionId> new_session();

/// A connection to tensorforged that mends itself: pipelining, with safe retries (see Core).
///
///     auto client = Client::connect({.server = "127.0.0.1:7411", .actor = "ann"});
///     if (!client.ok()) return client.status();
///     Answer answer = (*client)->call(query::GetModel{"resnet", {}});
///
/// Threads: every function from any thread. Callbacks run on the client's thread (connect()) or on the thread that runs
/// the caller's context (start()); they may submit, and must not wait: no call() from a callback.
class Client {
 public:
  /// Connects, with an I/O thread of its own, and waits for the service's welcome.
  ///
  /// kInvalidArgument: `server` is no HOST:PORT. kUnavailable: nobody answers there; the message says what to check.
  /// Else what the service refused the hello with.
  static Result<std::unique_ptr<Client>> connect(ClientOptions options);
  /// Runs on `io`, which one thread runs and which outlives the client. Begins to connect at once, and does not wait:
  /// requests are sent when there is a connection, and end at their deadline where there is none.
  /// kInvalidArgument: `server` is no HOST:PORT.
  static Result<std::unique_ptr<Client>> start(asio::io_context& io, ClientOptions options);

  /// Closes: what is open is answered with kCancelled. After connect() not from a callback of its own.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// `callback` runs once, always.
  void submit(Command command, CommandOptions options, Callback callback);
  void submit(Query query, Callback callback);
  /// Submits and waits.
  Answer call(Command command, CommandOptions options = {});
  Answer call(Query query);

  /// Of the newest connection; empty before the first.
  Welcome welcome() const;

 private:
  class Impl;
  explicit Client(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace tensorforge::client
