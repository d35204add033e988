#include "server/server.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include <asio.hpp>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "server/connection.h"
#include "server/system.h"
#include "service/fold.h"
#include "service/log_reader.h"
#include "service/recover.h"
#include "service/snapshot.h"
#include "storage/chunk_reader.h"
#include "storage/crash_point.h"

namespace tensorforge::server {
namespace {

using asio::ip::tcp;
using storage::crash_point;
using storage::CrashPoint;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTick{500};
constexpr std::chrono::milliseconds kAcceptPause{100};  // when there are no descriptors left
constexpr std::uint64_t kLingerMs = 5'000;              // for a peer to take the last answer of a closed connection
constexpr std::uint64_t kLastLingerMs = 1'000;          // ... when the process ends
constexpr int kLogDamaged = 2, kDiskFailed = 3;         // exit codes
constexpr Sequence kCheckedPerReport = 100'000;

}  // namespace

struct Listener::Socket {
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  Endpoint endpoint;
};

Listener::Listener(std::unique_ptr<Socket> socket) : socket_(std::move(socket)) {}
Listener::Listener(Listener&&) noexcept = default;
Listener::~Listener() = default;
const Endpoint& Listener::endpoint() const { return socket_->endpoint; }

Result<Listener> Listener::bind(const Endpoint& endpoint) {
  auto socket = std::make_unique<Socket>();
  std::error_code error;
  const auto found =
      tcp::resolver(socket->io).resolve(endpoint.host, std::to_string(endpoint.port), tcp::resolver::passive, error);
  if (!error) {
    const tcp::endpoint address = *found.begin();
    socket->acceptor.open(address.protocol(), error);
    if (!error) socket->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) socket->acceptor.bind(address, error);
  }
  if (error) {
    return absl::InvalidArgumentError(
        fmt::format("cannot listen at {}: {}{}", format_endpoint(endpoint), error.message(),
                    error == asio::error::address_in_use ? "; is another tensorforged running there?" : ""));
  }
  socket->endpoint = {endpoint.host, socket->acceptor.local_endpoint().port()};
  return Listener(std::move(socket));
}

// Everything but the constructor and stop() runs on the thread of run().
class Server::Impl {
 public:
  Impl(Options options, Listener listener, storage::Journal& journal, service::State state)
      : options_(std::move(options)),
        socket_(std::move(listener.socket_)),
        io_(socket_->io),
        acceptor_(socket_->acceptor),
        journal_(journal),
        state_(std::move(state)),
        tick_timer_(io_),
        accept_timer_(io_),
        signals_(io_) {
    if (options_.snapshots) snapshots_.emplace(*options_.snapshots, journal_);
  }

  int run() {
    journal_.start(
        {[this](Sequence, std::size_t groups) { post([this, groups, at = Clock::now()] { on_synced(groups, at); }); },
         [this](Sequence) {
           post([this, head = journal_.durable_head(), at = Clock::now()] { on_durable(head, at); });
         },
         [this](absl::Status why) { post([this, why = std::move(why)] { on_journal_failed(why); }); }});
    const auto work = asio::make_work_guard(io_);
    if (options_.to_start) {
      start_to_sync_ = true;
      crash_point(CrashPoint::kLifeToStart);
      journal_.submit(service::start_incarnation(*state_, options_.to_start->cause, journal_.durable_head().root,
                                                 options_.to_start->incarnation, read_clocks().wall_ms));
    } else {
      serve();
    }
    io_.run();
    ending_ = true;
    if (checker_.joinable()) checker_.join();
    for (asio::thread_pool* pool : {&readers_, &verifier_}) {
      pool->stop();  // what has not begun is nobody's any more
      pool->join();
    }
    if (snapshots_) end_snapshots();
    return *exit_code_;
  }

  void stop() {
    asio::post(io_, [this] { begin_shutdown(); });
  }

 private:
  using ConnectionId = protocol::ConnectionId;
  using ReadId = protocol::ReadId;
  struct Sent {
    ConnectionId connection{};
    std::size_t bytes{};
  };
  struct Write {
    Sequence last{};
    Clock::time_point begun;
  };

  template <class Handler>
  void post(Handler handler) {
    asio::post(io_, std::move(handler));
  }

  // ---- turns: all input that is ready goes to the engine first, then its effects are carried out together

  void begin_turn() {
    if (turn_posted_) return;
    turn_posted_ = true;
    engine_->on_tick(read_clocks());
    post([this] {
      turn_posted_ = false;
      end_turn(true);
    });
  }

  void end_turn(bool input_ready) {
    if (exit_code_) return;  // what it decided since may rest on a state that is wrong
    protocol::Effects effects = engine_->take_effects(input_ready);
    for (const std::string& warning : effects.warnings) spdlog::warn("{}", warning);
    for (storage::Group& group : effects.groups) {
      crash_point(CrashPoint::kGroupTaken);
      writes_.push_back({group.last(), Clock::now()});
      if (snapshots_ && !group.noted_digest.empty()) note(group.noted_digest);
      journal_.submit(std::move(group));
    }
    if (!effects.sends.empty()) crash_point(CrashPoint::kReplyToSend);
    for (protocol::Effects::Read& read : effects.reads) begin_read(std::move(read));
    send_all(effects.sends);
    if (!effects.sends.empty()) crash_point(CrashPoint::kReplySent);
    for (const ConnectionId id : effects.pauses) {
      if (Connection* connection = find(id)) connection->pause();
    }
    for (const ConnectionId id : effects.resumes) {
      if (Connection* connection = find(id)) connection->resume();
    }
    for (const ConnectionId id : effects.closes) close(id);
    if (effects.more_work) {
      post([this] {
        begin_turn();
        engine_->on_turn();
      });
    }
    if (effects.gathers) wait_for_rest();
    if (effects.exit_code && !exit_code_) end(*effects.exit_code);
  }

  /// The engine is told behind what has arrived meanwhile. Told at once it would end a turn without that, and a group
  /// be smaller than it has to be.
  void send_all(std::span<const protocol::Effects::Send> sends) {
    std::vector<Sent> all;
    all.reserve(sends.size());
    for (const protocol::Effects::Send& send : sends) {
      Connection* connection = find(send.connection);
      if (connection == nullptr) continue;
      const std::size_t size = connection->send(send.bytes);
      if (size > 0) all.push_back({send.connection, size});
    }
    if (all.empty()) return;
    post([this, all = std::move(all)] {
      begin_turn();
      for (const Sent& sent : all) engine_->on_sent(sent.connection, sent.bytes);
    });
  }

  /// Until what the reactor had found by the end of a turn has been read: its handlers come before this one, and begin
  /// another.
  void wait_for_rest() {
    if (rest_posted_) return;
    rest_posted_ = true;
    post([this] {
      rest_posted_ = false;
      if (turn_posted_) return;  // which asks again
      engine_->on_tick(read_clocks());
      end_turn(false);
    });
  }

  // ---- the journal; before the engine is there, for the first group of a new life alone

  void on_synced(std::size_t groups, Clock::time_point at) {
    if (std::exchange(start_to_sync_, false)) return;  // which may be told after it is durable
    begin_turn();
    time_writes(groups, at);
    engine_->on_free_bytes(journal_.free_bytes());
    engine_->on_synced(groups);
  }

  /// These groups were one write, synced at `at`, and those behind them wait no longer.
  void time_writes(std::size_t groups, Clock::time_point at) {
    const auto first = writes_.begin() + static_cast<std::ptrdiff_t>(synced_writes_++);
    first->last = (first + static_cast<std::ptrdiff_t>(groups - 1))->last;
    writes_.erase(first + 1, first + static_cast<std::ptrdiff_t>(groups));
    for (std::size_t i = synced_writes_; i < writes_.size(); ++i) writes_[i].begun = std::max(writes_[i].begun, at);
    // It was told before, or nothing is to be told: a digest alone.
    if (first->last <= durable_) end_write(first, durable_at_);
  }
  void end_write(const std::deque<Write>::iterator& write, Clock::time_point at) {
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(at - write->begun);
    if (took.count() > 0) engine_->on_group_commit(static_cast<std::uint32_t>(took.count()));
    writes_.erase(write);
    --synced_writes_;
  }

  void on_durable(const storage::TreeHead& head, Clock::time_point at) {
    if (!engine_) return serve();
    begin_turn();
    durable_ = head.sequence;
    durable_at_ = at;
    while (synced_writes_ > 0 && writes_.front().last <= durable_) end_write(writes_.begin(), at);
    engine_->on_durable(head);
    consider_snapshot(head.sequence);
  }

  void on_journal_failed(const absl::Status& why) {
    spdlog::error("the disk failed: {}", std::string(why.message()));
    if (!engine_) return end(kDiskFailed);
    fail_engine(why);
  }
  void fail_engine(const absl::Status& why) {
    begin_turn();
    engine_->on_journal_failed(why);
  }

  void serve() {
    const storage::TreeHead head = journal_.durable_head();
    durable_ = head.sequence;
    engine_.emplace(options_.protocol, options_.service, options_.identity, *std::exchange(state_, std::nullopt), head,
                    fill_random, read_clocks());
    engine_->on_free_bytes(journal_.free_bytes());
    if (options_.unverified_until.sequence() == 0) {
      engine_->on_verified(head.sequence);
    } else {
      checker_ = std::thread([this, head] { check_older(head.sequence); });
    }
    if (snapshots_) {
      engine_->on_snapshot(options_.snapshots->newest);
      noted_.push_back({service::noted_digest(engine_->state()), service::live_entities(engine_->state())});
      consider_snapshot(head.sequence);
    }
    if (options_.handle_signals) wait_for_signal();
    tick();
    if (stopping_) return stop_engine();
    acceptor_.listen();
    accept();
    crash_point(CrashPoint::kServing);
    options_.on_ready();
  }

  /// On its own thread: reads what opening did not, of a log that is verified from there up to `end`.
  void check_older(Sequence end) {
    work_in_background();
    Sequence told = 0;
    const absl::Status checked = service::check_older(journal_, options_.unverified_until, [&](Sequence verified) {
      if (verified - told >= kCheckedPerReport) {
        told = verified;
        post([this, verified] { engine_->on_verified(verified); });
      }
      return !ending_;
    });
    if (absl::IsCancelled(checked)) return;
    post([this, checked, end] {
      if (checked.ok()) return engine_->on_verified(end);
      spdlog::error("{}: {}", std::string(checked.message()), storage::kRemedy);
      end_at_once(absl::IsDataLoss(checked) ? kLogDamaged : kDiskFailed);
    });
  }

  // ---- snapshots

  void note(const std::string& digest) {
    const Result<service::NotedDigest> noted = service::decode_noted_digest(digest);
    if (noted.ok()) noted_.push_back({*noted, service::live_entities(engine_->state())});
  }

  /// Where a digest was noted, once that is durable.
  void consider_snapshot(Sequence durable) {
    for (; !noted_.empty() && noted_.front().digest.sequence <= durable; noted_.pop_front()) {
      snapshots_->consider(noted_.front().digest, noted_.front().live_entities,
                           [this, sequence = noted_.front().digest.sequence](Result<service::Folded> folded) {
                             post([this, sequence, folded = std::move(folded)] { on_folded(sequence, folded); });
                           });
    }
  }

  void on_folded(Sequence sequence, const Result<service::Folded>& folded) {
    if (folded.ok()) engine_->on_snapshot(sequence);
    const int exit_code = tell(sequence, folded);
    if (exit_code == kLogDamaged) end_at_once(kLogDamaged);
    if (exit_code == kDiskFailed) fail_engine(folded.status());
  }

  /// In the service's log. What the service has to end with for it; 0: it goes on.
  static int tell(Sequence sequence, const Result<service::Folded>& folded) {
    if (folded.ok()) {
      if (folded->is_new) spdlog::info("snapshot {} is taken: {} bytes", sequence, folded->bytes);
      return 0;
    }
    const std::string why(folded.status().message());
    switch (folded.status().code()) {
      case absl::StatusCode::kCancelled:
        return 0;
      case absl::StatusCode::kDataLoss:
        spdlog::error("{}", why);
        return kLogDamaged;
      case absl::StatusCode::kUnavailable:
        spdlog::error("the disk failed: {}", why);
        return kDiskFailed;
      default:
        spdlog::warn("no snapshot is taken at sequence {}: {}", sequence, why);
        return 0;
    }
  }

  void begin_snapshot(ReadId id, const service::NotedDigest& noted) {
    snapshots_->take(noted, [this, id, noted](Result<service::Folded> folded) {
      post([this, id, noted, folded = std::move(folded)] {
        begin_turn();
        Reply reply;
        reply.status = folded.status();
        reply.sequence = noted.sequence;
        reply.incarnation = journal_.durable_head().incarnation;
        if (folded.ok()) reply.result = result::SnapshotTaken{folded->sequence, folded->bytes};
        on_folded(noted.sequence, folded);
        engine_->on_read_done(id, std::move(reply));
      });
    });
  }

  /// The one of a clean stop is taken when everything is answered and durable.
  void end_snapshots() {
    snapshots_->end();
    if (*exit_code_ != 0 || !engine_) return;
    const service::NotedDigest noted = service::noted_digest(engine_->state());
    const auto folded = snapshots_->take_at_stop(noted, service::live_entities(engine_->state()));
    if (folded) exit_code_ = tell(noted.sequence, *folded);
  }

  void begin_read(protocol::Effects::Read read) {
    const auto* snapshot = std::get_if<service::TakeSnapshot>(&read.what);
    if (snapshot != nullptr && snapshots_) return begin_snapshot(read.id, snapshot->noted);
    // A verification reads the whole log: the others do not wait for it.
    asio::thread_pool& readers = std::holds_alternative<query::VerifyLog>(read.what) ? verifier_ : readers_;
    asio::post(readers, [this, read = std::move(read)] {
      Reply reply = service::run_read(journal_, read.what, read.max_reply_bytes);
      post([this, id = read.id, reply = std::move(reply)]() mutable {
        begin_turn();
        if (reply.status.ok() && std::holds_alternative<result::LogVerified>(reply.result)) {
          engine_->on_verified(reply.sequence);
        }
        engine_->on_read_done(id, std::move(reply));
      });
    });
  }

  // ---- connections

  Connection* find(ConnectionId id) {
    const auto found = connections_.find(id);
    return found == connections_.end() ? nullptr : found->second.get();
  }

  void accept() {
    acceptor_.async_accept([this](std::error_code error, tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (error) {
        spdlog::warn("cannot accept a connection: {}", error.message());
        accept_timer_.expires_after(kAcceptPause);
        accept_timer_.async_wait([this](std::error_code cancelled) {
          if (!cancelled) accept();
        });
        return;
      }
      add(std::move(socket));
      accept();
    });
  }

  void add(tcp::socket socket) {
    std::error_code error;
    const tcp::endpoint peer = socket.remote_endpoint(error);
    if (error) return;  // it is gone already
    const ConnectionId id = ++last_connection_;
    const auto connection = std::make_shared<Connection>(std::move(socket));
    connections_.emplace(id, connection);
    begin_turn();
    engine_->on_connect(id, format_endpoint({peer.address().to_string(), peer.port()}));
    connection->start({[this, id](std::span<const std::byte> bytes) {
                         begin_turn();
                         engine_->on_bytes(id, bytes);
                       },
                       [this, id](std::size_t size) {
                         begin_turn();
                         engine_->on_sent(id, size);
                       },
                       [this, id] {
                         begin_turn();
                         engine_->on_disconnect(id);
                         connections_.erase(id);
                       },
                       [this, id] {
                         connections_.erase(id);
                         end_if_sent();
                       }});
  }

  void close(ConnectionId id, std::uint64_t linger_ms = kLingerMs) {
    if (const auto found = connections_.find(id); found != connections_.end()) {
      const std::shared_ptr<Connection> connection = found->second;
      connection->close(read_clocks().boot_ms + linger_ms);
    }
  }

  // ---- time, signals, the end

  void tick() {
    begin_turn();
    journal_.refresh_free_bytes();
    engine_->on_free_bytes(journal_.free_bytes());
    const std::uint64_t boot_ms = read_clocks().boot_ms;
    std::vector<std::shared_ptr<Connection>> all;
    all.reserve(connections_.size());
    for (const auto& [id, connection] : connections_) all.push_back(connection);
    for (const auto& connection : all) connection->on_tick(boot_ms);
    tick_timer_.expires_after(kTick);
    tick_timer_.async_wait([this](std::error_code error) {
      if (!error) tick();
    });
  }

  void wait_for_signal() {
    std::error_code ignored;
    signals_.add(SIGTERM, ignored);
    signals_.add(SIGINT, ignored);
    signals_.async_wait([this](std::error_code error, int signal) {
      if (error) return;
      spdlog::info("{}: stopping", signal == SIGTERM ? "SIGTERM" : "SIGINT");
      begin_shutdown();
      wait_for_signal();
    });
  }

  void begin_shutdown() {
    if (stopping_) return;
    stopping_ = true;
    crash_point(CrashPoint::kStopBegun);
    std::error_code ignored;
    acceptor_.close(ignored);
    accept_timer_.cancel();
    if (engine_) stop_engine();
  }

  void stop_engine() {
    begin_turn();
    engine_->begin_shutdown();
  }

  /// Nothing more is answered: what is served may be wrong.
  void end_at_once(int exit_code) {
    if (!exit_code_) end(exit_code);
  }

  void end(int exit_code) {
    exit_code_ = exit_code;
    std::error_code ignored;
    acceptor_.close(ignored);
    // The last answers are on their way; a peer that does not close its side loses them at the deadline.
    std::vector<ConnectionId> all;
    for (const auto& [id, connection] : connections_) all.push_back(id);
    for (const ConnectionId id : all) close(id, kLastLingerMs);
    end_if_sent();
  }

  void end_if_sent() {
    if (exit_code_ && connections_.empty()) io_.stop();
  }

  const Options options_;
  const std::unique_ptr<Listener::Socket> socket_;
  asio::io_context& io_;
  tcp::acceptor& acceptor_;
  storage::Journal& journal_;
  std::optional<service::State> state_;  // until the engine has it
  std::optional<protocol::Engine> engine_;
  asio::thread_pool readers_{1}, verifier_{1};

  asio::steady_timer tick_timer_, accept_timer_;
  asio::signal_set signals_;
  std::unordered_map<ConnectionId, std::shared_ptr<Connection>> connections_;
  ConnectionId last_connection_{};
  std::deque<Write> writes_;     // that are not durable yet, and behind them groups that are not synced
  std::size_t synced_writes_{};  // of them
  Sequence durable_{};           // as last told, ...
  Clock::time_point durable_at_;
  bool start_to_sync_{};  // the group that begins this life of the log, of which the engine does not know
  std::optional<SnapshotTaker> snapshots_;
  struct Noted {
    service::NotedDigest digest;
    std::uint64_t live_entities{};
  };
  std::deque<Noted> noted_;  // likewise
  bool turn_posted_{}, rest_posted_{}, stopping_{};
  std::atomic<bool> ending_{};  // for the threads of the background
  std::thread checker_;
  std::optional<int> exit_code_;
};

Server::Server(Options options, Listener listener, storage::Journal& journal, service::State state)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(listener), journal, std::move(state))) {}
Server::~Server() = default;
int Server::run() { return impl_->run(); }
void Server::stop() { impl_->stop(); }

}  // namespace tensorforge::server
