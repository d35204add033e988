#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "codec/frame_reader.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "platform/allocator.h"
#include "platform/result.h"
#include "protocol/group_commits.h"
#include "service/log_reader.h"
#include "service/service.h"
#include "storage/journal.h"

namespace tensorforge::protocol {

using ConnectionId = std::uint64_t;
using ReadId = std::uint64_t;

/// Limits of connections. Configuration keys of the same names.
struct Config {
  std::size_t max_connections{1'024};
  std::size_t max_requests_in_flight{1'024};  ///< of one connection; then it is not read from
  std::size_t max_output_bytes{std::size_t{4}
                               << 20U};  ///< answers of one connection not yet sent; then it is not read from
  /// Of all connections together: answers, requests in flight, and large frames on their way. From a quarter on only
  /// those are served that hold less than their share; see docs/protocol.md, "Backpressure".
  std::size_t max_buffered_bytes{std::size_t{48} << 20U};
  /// Records waiting for the disk; then nobody is read from, and from a half on only who has less than his part among
  /// them. Half is a thousand records, and more than that makes everybody wait for what few ask.
  std::size_t max_gathered_bytes{std::size_t{1} << 20U};
  /// Records that go to the journal at once. Fewer wait until it writes nothing and no input is ready: a group that
  /// begins early is small, and makes those behind it wait for one write more. No key.
  std::size_t early_group_bytes{std::size_t{64} << 10U};
  std::size_t frames_per_turn{64};       ///< of one connection, before the others have their turn
  std::size_t max_frames_per_turn{512};  ///< of all; then who has not been served yet in this turn gets a few
  std::uint64_t rate_limit_requests{};   ///< of one actor in any rate_limit_window_ms; 0: no limit
  std::uint64_t rate_limit_window_ms{1'000};
  std::uint64_t hello_timeout_ms{10'000};
  std::uint64_t half_frame_timeout_ms{30'000};   ///< a frame that began and does not end
  std::uint64_t slow_reader_timeout_ms{30'000};  ///< answers wait and the peer takes none
  std::uint64_t idle_timeout_ms{0};              ///< no request for so long; 0: never
  std::uint64_t shutdown_timeout_ms{5'000};      ///< for peers to take their last answers at a clean stop
  std::uint64_t failure_timeout_ms{1'000};       ///< ... and when the disk failed
};

/// What is known of the service outside the engine, for `server status`.
struct Identity {
  LogId log_id{};
  std::string version;         ///< "0.1.0"
  std::string ack{"anchor"};   ///< or "wal"
  std::uint64_t started_at{};  ///< ms since the Unix epoch
};

/// The work that the engine asks of its surroundings.
struct Effects {
  struct Send {
    ConnectionId connection{};
    std::string_view bytes;  ///< valid until the next call of the engine
  };
  struct Read {
    ReadId id{};
    service::LogRead what;
    std::size_t max_reply_bytes{};
  };
  std::vector<Send> sends;             ///< in order; each is reported by on_sent() when the socket took it
  std::vector<ConnectionId> closes;    ///< close now; what the socket has not taken is dropped, nothing is reported
  std::vector<ConnectionId> pauses;    ///< stop reading from these ...
  std::vector<ConnectionId> resumes;   ///< ... and read from these again
  std::vector<storage::Group> groups;  ///< for Journal::submit(), in order
  std::vector<Read> reads;  ///< for another thread: service::run_read(); VerifyLog and TakeSnapshot take very long
  std::vector<std::string> warnings;  ///< for the service's log
  bool more_work{};                   ///< call on_turn() soon, after other input had its chance
  bool gathers{};                     ///< take_effects() again once no input is ready, for what was kept back
  std::optional<int> exit_code;       ///< nothing is left to do: end the process with this
};

/// The whole service as a state machine: bytes, completions and ticks go in, bytes, groups and reads come out.
///
/// Every answer, of a read and of a refusal too, is held until the sequence that the state had when it was made is
/// durable, so nobody is told what a power cut could take back (invariant 2). The answers of a connection leave in the
/// order of its requests, but for reads of the log, which leave when they are ready.
///
/// How to drive it: call on_tick() with the clocks at least once a second and at the start of each turn of the event
/// loop; feed whatever happened; then take_effects() and carry them out. What is decided in a turn is given to the
/// journal at its end, unless it is little, and others are being written or may join it; the journal makes one write of
/// all that waits.
///
/// Threads: one. No call blocks, reads a clock or does I/O, and the same calls give the same effects.
class Engine {
 public:
  /// `state` is recovered, and durable up to its end: `head` is the tree head there.
  Engine(Config config, service::Config service_config, Identity identity, service::State state,
         const storage::TreeHead& head, service::RandomBytes random, service::Now now);
  ~Engine();

  /// A connection came in. It may be closed at once by the effects.
  void on_connect(ConnectionId, std::string peer_address);
  /// Input. What it asks for is done by take_effects(), with what arrived on other connections.
  void on_bytes(ConnectionId, std::span<const std::byte> bytes);
  /// The socket took `bytes` more bytes of what was given to send.
  void on_sent(ConnectionId, std::size_t bytes);
  /// The peer closed, or the socket failed. What it asked for goes on; its answers are dropped.
  void on_disconnect(ConnectionId);
  /// Goes on with requests that arrived already.
  void on_turn();

  /// The oldest `groups` of those given out are synced, and the journal writes what waited behind them.
  void on_synced(std::size_t groups);
  /// Everything up to `head` may be answered.
  void on_durable(const storage::TreeHead& head);
  /// A write of the journal took so long from its beginning until it could be answered.
  void on_group_commit(std::uint32_t microseconds);
  /// Final: whatever is not durable is answered with kUnavailable, and so is all that follows; exit code 3 as soon as
  /// the peers took these answers, or after a second.
  void on_journal_failed(const absl::Status& why);
  /// The answer of an Effects::Read, from service::run_read().
  void on_read_done(ReadId, Reply reply);
  void on_free_bytes(std::uint64_t bytes) { service_.on_free_bytes(bytes); }
  /// For `server status`: this snapshot is there, and whole.
  void on_snapshot(Sequence of) { snapshot_ = std::max(snapshot_, of); }
  /// For `server status`: the log was checked in full up to here.
  void on_verified(Sequence to) { verified_to_ = std::max(verified_to_, to); }

  void on_tick(service::Now now);
  /// Takes no more requests, answers those it took, makes everything durable, closes every connection: exit code 0.
  void begin_shutdown();

  /// What there is to do. With `input_ready` there may be input that the engine was not given, and what would be a
  /// small group is kept for it, for 1 or 2 ms at most.
  Effects take_effects(bool input_ready = false);

  const service::State& state() const { return service_.state(); }
  std::size_t connection_count() const { return connections_.size(); }
  /// What counts against max_buffered_bytes now.
  std::size_t buffered_bytes() const { return buffered_ + large_frames_; }
  /// Of the records that wait for the disk, and not those that it is writing, as far as it told of that.
  std::size_t gathered_bytes() const { return submitted_bytes_ + service_.gathered_bytes(); }

 private:
  struct Connection;
  /// A frame, decoded.
  struct Incoming {
    Result<ClientMessage> content;
    std::optional<std::uint64_t> correlation_id{};  ///< where it does not decode, and says so much
  };
  /// What counts against rate_limit_requests: of all connections of one actor together.
  struct ActorRate {
    ActorRate(std::uint64_t window_ms, std::size_t limit) : window(window_ms, limit) {}
    allocator::RollingWindowScheduler window;
    std::size_t connections{};  ///< of the actor, now
  };
  /// A read of the log that somebody waits for.
  struct PendingRead {
    ConnectionId connection{};
    std::uint64_t correlation_id{};
    std::optional<std::uint64_t> slot;  ///< its place among the answers in order; nullopt: it leaves when it is ready
    Sequence needs{};                   ///< it begins when this is durable
    service::LogRead what;
  };
  /// The state at the end of a group: what `server status` tells when that is durable.
  struct Boundary {
    Digest digest;
    storage::TreeHead head;  ///< the root is known when it is durable
    std::uint64_t time{};
    std::uint64_t models{}, model_versions{}, pools{}, live_blocks{}, checkpoints{}, sessions{};
  };

  Connection* find(ConnectionId);
  bool may_take_requests(const Connection&) const;
  bool under_pressure() const { return buffered_ >= config_.max_buffered_bytes / 4; }
  bool may_hold_more(const Connection&) const;
  bool may_gather_more(const Connection&) const;
  std::size_t fair_share() const;
  bool is_crowded() const;
  std::size_t max_flood_bytes() const;
  bool holds_floods() const;
  std::size_t max_frames() const;
  bool serves_who_waits() const;
  static bool asks_alone(const Connection&);
  void note_manner(Connection&, bool has_more);
  void note_gathered(Connection&, std::size_t bytes);
  bool may_read_log(const Connection&) const;
  void adapt_gather_share();
  void begin_gathering();
  void give_groups(bool input_ready);
  bool gathered_too_much() const { return gathered_bytes() >= config_.max_gathered_bytes; }
  std::size_t pressure_level() const;
  std::size_t max_reply_bytes() const;
  void account(Connection&);
  void close_who_takes_nothing();
  bool waits_for_room(Connection&);
  bool take_room(Connection&, std::size_t bytes);
  void leave_room(Connection&);
  void grant_room();
  std::size_t share_of(std::size_t frames, std::size_t least) const;
  void work(Connection&, std::size_t most_frames);
  static bool is_batch(const Incoming&);
  void take_arrived();
  void decode_first_frames(std::span<const ConnectionId> of);
  absl::Status read_ahead(Connection&, std::size_t most);
  Incoming decode(Connection&, std::span<const std::byte> frame);
  void prefetch(std::span<const Incoming* const> messages) const;
  void reconsider_all();
  void handle(Connection&, Incoming&&);
  void on_hello(Connection&, Hello&&);
  void on_request(Connection&, Request&&);
  void on_command(Connection&, const Request&, Command&&);
  void on_query(Connection&, const Request&, const Query&);
  absl::Status check_hello(const Hello&) const;
  absl::Status check_rate(const Connection&, const Request&);
  void count_actor(Connection&);
  void leave_actor(const Connection&);
  Reply status_reply() const;
  Reply refusal(absl::Status) const;
  void answer(Connection&, std::uint64_t correlation_id, Reply&&);
  /// Does not wait until what the reply rests on is durable: for a DeliberateBug.
  void answer_too_early(Connection&, std::uint64_t correlation_id, Reply&&);
  template <class Message>
  void answer(Connection&, std::uint64_t correlation_id, const Message& message, Sequence needs);
  void answer_unavailable(Connection&, std::uint64_t correlation_id);
  void read(Connection&, std::uint64_t correlation_id, bool in_order, service::LogRead&& what, Sequence needs);
  void start_reads();
  void fail(Connection&, absl::Status why);
  void release(Connection&);
  void close_or_go_on(Connection&);
  void send(Connection&, std::string_view bytes);
  std::string& output_of(Connection&);
  void close(Connection&);
  void reconsider(Connection&);
  void check_timeouts();
  void check_end();
  Boundary boundary() const;

  Config config_;
  std::size_t max_reply_bytes_;
  Identity identity_;
  service::Service service_;
  service::Now now_;
  std::map<ConnectionId, std::unique_ptr<Connection>> connections_;  ///< in the order in which they are gone through
  absl::flat_hash_map<ConnectionId, Connection*> connection_of_id_;  ///< ... and to find one
  absl::flat_hash_map<SessionId, ConnectionId> sessions_;
  std::vector<ConnectionId> arrived_;  ///< whose input came since the last effects
  std::deque<ConnectionId> turns_;     ///< with frames that wait for their turn, each once
  std::size_t frames_left_{};          ///< of max_frames(), for what arrives in this turn
  ConnectionId last_turn_of_{};        ///< of those that had to wait for theirs
  std::vector<Incoming> ahead_;        ///< of the connection that is served now
  std::vector<ConnectionId> dirty_;    ///< with bytes for the next effects
  std::vector<ConnectionId> reading_changed_;
  std::map<ReadId, PendingRead> reads_;
  ReadId last_read_{};
  std::size_t reads_begun_{};               ///< and not done
  std::deque<ConnectionId> read_turns_;     ///< with reads that wait to begin, each once
  std::size_t buffered_{};                  ///< by all connections
  std::size_t highest_level_{};             ///< pressure_level() at the last effects
  std::size_t large_frames_{};              ///< room that was given to frames on their way
  std::deque<ConnectionId> room_wanted_;    ///< with a large frame that waits for room, first come first
  std::map<std::string, ActorRate> rates_;  ///< by actor; empty without a limit
  struct GoneActor {
    std::string actor;
    std::uint64_t at{};  ///< boot clock
  };
  std::deque<GoneActor> gone_actors_;  ///< whose last connection went; what they used counts for one more window
  std::uint64_t group_number_{};       ///< of the group that gathers
  std::size_t gather_share_;           ///< bytes of it that one connection may take, and then the rest of a command
  std::size_t flood_gathered_{};       ///< bytes of it from connections that keep several requests in flight
  std::uint64_t alone_asked_{};        ///< boot clock: when one asked that waits for each answer
  bool alone_gathered_{};              ///< such a one has changes in it
  bool floods_due_{};                  ///< they waited for such a one, and have nothing in a group since
  bool waiting_gathered_{};            ///< somebody who had to wait has changes in it
  bool floods_released_{};             ///< since the last effects
  bool turned_away_{};                 ///< somebody may not gather more, and waits
  struct Given {
    std::size_t bytes{};
    bool sealed{};        ///< ends at a noted digest: what is behind it is another write
    bool holds_floods{};  ///< until it is synced
  };
  std::optional<std::uint64_t> kept_since_;  ///< boot clock: a small group, for input that is ready
  std::deque<Given> given_;                  ///< to the journal, and not synced
  bool group_began_{};                       ///< since the last effects
  std::size_t submitted_bytes_{};            ///< of those in given_ that wait behind what is being written
  Sequence durable_{};
  Boundary told_;                    ///< the last boundary that is durable
  std::deque<Boundary> boundaries_;  ///< those that are not yet
  Sequence verified_to_{};
  Sequence snapshot_{};
  GroupCommits group_commits_;
  std::int64_t group_commit_us_{};  ///< of the last ones, on average
  absl::Status journal_status_;
  struct Ending {
    int exit_code{};
    std::uint64_t deadline{};  ///< boot clock
  };
  std::optional<Ending> ending_;
  std::uint64_t next_timeout_check_{};
  Effects effects_;
};

}  // namespace tensorforge::protocol
