#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "codec/frame_reader.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "platform/queue.h"
#include "platform/result.h"

namespace tensorforge::client {

/// What became of a request.
struct Answer {
  /// The service's refusal, or from the client itself: kUnavailable (no connection until the deadline),
  /// kDeadlineExceeded (no answer until then), kResourceExhausted (too many requests wait), kInvalidArgument (too large
  /// for a frame), kDataLoss (the log was rolled back), kCancelled (the client was closed). The message says whether
  /// the outcome of a command is unknown.
  absl::Status status;
  Reply reply;             ///< of the service; empty where the client answers itself
  std::string request_id;  ///< of a command that was sent: <session, 32 hex digits>-<number>
};
using Callback = std::function<void(Answer)>;

struct CommandOptions {
  std::optional<Sequence> if_sequence;
  std::string reason;
};

/// The client's side of the protocol, without I/O: bytes, time and lost connections in; bytes and answers out.
///
/// Requests are sent in the order of submit(), many in flight, and answered in any order. A command keeps its number
/// until it is answered: after a lost connection, or an answer of kUnavailable, what was sent and not answered is sent
/// again, in order, with the same numbers, and the service carries out each at most once. A request ends at its
/// deadline in any case.
///
/// Where the service refuses the hello for good (the log was rolled back, no common protocol), the session is over:
/// every open and later request gets that status, and the caller makes a new client.
///
/// Threads: none. Times are ms of one monotonic clock.
class Core {
 public:
  struct Options {
    std::string actor;                        ///< who asks; an id
    std::string program;                      ///< name and version, for the service's log
    std::uint64_t connect_timeout_ms{5'000};  ///< from the start of an attempt to the service's welcome
    std::uint64_t request_timeout_ms{30'000};
    /// Without a connection for so long, what is open is given up before its time.
    std::uint64_t reconnect_timeout_ms{std::numeric_limits<std::uint64_t>::max()};
    std::uint64_t first_backoff_ms{20}, max_backoff_ms{2'000};  ///< between attempts to connect; doubles, with jitter
    std::size_t max_in_flight{1'024};                           ///< sent and not answered; the service takes no more
    std::size_t max_waiting{65'536};                            ///< submitted and not sent; more are refused
  };
  /// What the owner of the socket is to do next.
  enum class Action { None, Connect, Disconnect };

  /// `session` is 16 random bytes; `random` gives the jitter.
  Core(Options options, SessionId session, std::function<std::uint64_t()> random);

  void submit(Command command, CommandOptions options, Callback callback, std::uint64_t now);
  void submit(Query query, Callback callback, std::uint64_t now);

  /// Connects even though nothing waits to be sent.
  void connect() { wanted_ = true; }
  void on_connected(std::uint64_t now);
  void on_bytes(std::span<const std::byte> bytes, std::uint64_t now);
  /// The connection, or the attempt at one, is gone; not called after Action::Disconnect.
  void on_disconnected(const absl::Status& why, std::uint64_t now);
  void on_tick(std::uint64_t now);
  /// Answers everything that is open with kCancelled, and refuses the rest.
  void close();

  Action take_action(std::uint64_t now);
  /// What is to be sent now, about 256 KiB at most; ask again when it is written.
  std::string take_output(std::uint64_t now);
  /// Answers since the last call, each with its callback.
  struct Completion {
    Callback callback;
    Answer answer;
  };
  std::vector<Completion> take_completions() { return std::exchange(completions_, {}); }
  /// When on_tick() is due; the largest number: never.
  std::uint64_t next_tick() const;

  bool ready() const { return phase_ == Phase::Ready; }
  /// Why there is no connection: of the last attempt, or for good.
  const absl::Status& last_error() const { return last_error_; }
  /// Of the newest connection.
  const std::optional<Welcome>& welcome() const { return welcome_; }
  std::size_t open_requests() const { return pending_.size(); }

 private:
  enum class Phase { Idle, Connecting, Greeting, Ready, Over };
  struct Pending {
    Request request;
    Callback callback;
    std::uint64_t deadline{};
    bool sent{};
  };
  using PendingMap = std::map<std::uint64_t, Pending>;  // by correlation id, which is the order of submit()

  void add(Request&& request, Callback&& callback, std::uint64_t now);
  void send(PendingMap::iterator position);
  void pump();
  void on_frame(std::span<const std::byte> frame, std::uint64_t now);
  void on_welcome(Welcome welcome);
  void on_reply(Reply reply, std::uint64_t now);
  void on_hello_refused(const absl::Status& status, std::uint64_t now);
  void lose_connection(const absl::Status& why, std::uint64_t now);
  void saw(std::uint32_t incarnation, Sequence sequence);
  void finish(PendingMap::iterator position, absl::Status status, Reply reply);
  void leave_flight(const Pending& pending);
  void close_number(std::uint64_t number);
  void end_session(const absl::Status& why);
  void expire(std::uint64_t now);
  std::uint64_t reconnect_deadline() const;
  void give_up(PendingMap::iterator position, std::string message, bool waited);
  std::uint64_t backoff();
  std::string request_id(const Pending& pending) const;

  Options options_;
  SessionId session_;
  std::string request_id_prefix_;
  std::function<std::uint64_t()> random_;

  Phase phase_{Phase::Idle};
  bool wanted_{};                            // connect although nothing is pending
  bool drop_{};                              // the adapter has to close the socket
  std::uint64_t attempt_at_{};               // Idle: not before; Connecting, Greeting: the attempt's deadline
  std::uint64_t send_at_{};                  // Ready: nothing is sent before
  std::optional<std::uint64_t> gone_since_;  // a connection was lost, or not made, and none came since
  std::uint32_t failures_{};                 // attempts since the last answer
  absl::Status last_error_;
  std::optional<Welcome> welcome_;
  std::optional<Sequence> opened_at_;
  Sequence seen_sequence_{};
  std::uint32_t seen_incarnation_{};

  PendingMap pending_;
  std::uint64_t next_correlation_{1};
  std::uint64_t first_unsent_{1};  // correlation id: those from here on were never sent
  std::size_t in_flight_{};        // pending_ that are sent
  queue::BoundedQueue<std::uint64_t> retries_;
  // Numbers lowest_open_, lowest_open_ + 1, ... that were given out: whether each is still open. The first one is.
  std::deque<bool> open_numbers_;
  std::uint64_t lowest_open_{1};

  codec::FrameReader input_;
  std::string output_;
  std::vector<Completion> completions_;
};

}  // namespace tensorforge::client
