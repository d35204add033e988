#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "codec/frame_reader.h"
#include "protocol/engine.h"
#include "service/recover.h"
#include "storage/memory_journal.h"
#include "tests/support/commands.h"
#include "tests/support/service_fixture.h"

namespace tensorforge::test {

using protocol::ConnectionId;

inline Hello session_hello(SessionId session = kSession) {
  Hello hello;
  hello.session = session;
  hello.actor = "ann";
  return hello;
}

/// The engine with everything around it: a memory journal whose disk works when it is told to, and peers that take what
/// they are sent unless they are told not to.
class EngineBench {
 public:
  explicit EngineBench(protocol::Config config = {}, service::Config service_config = {})
      : config_(config), service_config_(service_config), journal_(kLogId) {
    write_first_record();
    begin();
  }

  /// The process ends without a word, and begins again from what the disk holds.
  void crash(bool keep_waiting) {
    journal_.restart(keep_waiting);
    peers_.clear();
    reads_.clear();
    begin();
  }

  // ---- peers

  struct Peer {
    codec::FrameReader input;
    std::vector<ServerMessage> got;  ///< decoded, in the order of arrival
    std::size_t untaken{};           ///< bytes that were sent and not taken
    bool takes{true}, open{true}, read_from{true};
  };

  void connect(ConnectionId id) {
    peers_.insert_or_assign(id, Peer{});
    engine_->on_connect(id, "10.0.0.1:99");
    carry();
  }
  void disconnect(ConnectionId id) {
    peers_.at(id).open = false;
    engine_->on_disconnect(id);
    carry();
  }
  void send_bytes(ConnectionId id, std::string_view bytes) {
    if (!peers_.at(id).open) return;
    engine_->on_bytes(id, std::as_bytes(std::span(bytes)));
    carry();
  }
  void send(ConnectionId id, const ClientMessage& message) {
    send_bytes(id, codec::encode_client_frame(message).value());
  }
  void hello(ConnectionId id, const Hello& hello = session_hello()) {
    connect(id);
    send(id, hello);
  }
  /// A command under the number of its correlation id.
  void command(ConnectionId id, std::uint64_t number, Command command) {
    Request request;
    request.correlation_id = number;
    request.command_number = number;
    request.body = std::move(command);
    send(id, request);
  }
  void query(ConnectionId id, std::uint64_t correlation_id, Query query) {
    Request request;
    request.correlation_id = correlation_id;
    request.body = std::move(query);
    send(id, request);
  }
  void take(ConnectionId id) {
    Peer& peer = peers_.at(id);
    engine_->on_sent(id, std::exchange(peer.untaken, 0));
    carry();
  }

  Peer& peer(ConnectionId id) { return peers_.at(id); }
  std::vector<Reply> replies(ConnectionId id) {
    std::vector<Reply> all;
    for (const ServerMessage& message : peers_.at(id).got) {
      if (const auto* reply = std::get_if<Reply>(&message)) all.push_back(*reply);
    }
    return all;
  }
  const Welcome* welcome(ConnectionId id) {
    for (const ServerMessage& message : peers_.at(id).got) {
      if (const auto* welcome = std::get_if<Welcome>(&message)) return welcome;
    }
    return nullptr;
  }

  // ---- disk, reader and clock

  bool sync() {
    const bool done = journal_.complete_sync();
    if (done) ++syncs_;
    return then_carry(done);
  }
  bool anchor() { return then_carry(journal_.complete_anchor()); }
  /// Until nothing waits for the disk.
  void settle() {
    while (sync() || anchor()) {
    }
  }
  void fail_disk() {
    journal_.fail(absl::UnavailableError("injected"));
    carry();
  }
  /// Runs the reads of the log that wait.
  void run_reads() {
    for (const protocol::Effects::Read& read : std::exchange(reads_, {})) {
      engine_->on_read_done(read.id, service::run_read(journal_, read.what, read.max_reply_bytes));
    }
    carry();
  }
  std::size_t waiting_reads() const { return reads_.size(); }
  void tick(std::uint64_t ms) {
    now_.wall_ms += ms;
    now_.boot_ms += ms;
    engine_->on_tick(now_);
    carry();
  }
  void turn() {
    engine_->on_turn();
    carry();
  }

  protocol::Engine& engine() { return *engine_; }
  storage::MemoryJournal& journal() { return journal_; }
  const service::State& state() const { return engine_->state(); }
  bool more_work() const { return more_work_; }
  std::optional<int> exit_code() const { return exit_code_; }
  std::size_t syncs() const { return syncs_; }
  service::State replayed() const {
    auto state = service::recover(journal_);
    EXPECT_TRUE(state.ok()) << state.status();
    return *std::move(state);
  }

  void carry() {
    protocol::Effects effects = engine_->take_effects();
    for (const auto& [id, bytes] : effects.sends) deliver(id, bytes);
    for (const ConnectionId id : effects.pauses) peers_.at(id).read_from = false;
    for (const ConnectionId id : effects.resumes) peers_.at(id).read_from = true;
    for (const ConnectionId id : effects.closes) peers_.at(id).open = false;
    for (protocol::Effects::Read& read : effects.reads) reads_.push_back(std::move(read));
    more_work_ = effects.more_work;
    if (effects.exit_code) exit_code_ = effects.exit_code;
    for (storage::Group& group : effects.groups) journal_.submit(std::move(group));
    // A peer that takes everything says so, which may give more to do.
    for (auto& [id, peer] : peers_) {
      if (peer.open && peer.takes && peer.untaken > 0) return take(id);
    }
  }

 private:
  void write_first_record() {
    journal_.start({[](Sequence, std::size_t) {}, [](Sequence) {}, [](const absl::Status&) {}});
    service::State state;
    journal_.submit(service::start_incarnation(state, IncarnationCause::FirstStart, journal_.durable_head().root,
                                               kIncarnation, now_.wall_ms));
    journal_.restart(true);
  }
  void begin() {
    exit_code_.reset();
    more_work_ = false;
    engine_.emplace(config_, service_config_, protocol::Identity{kLogId, "0.1.0", "anchor", now_.wall_ms}, replayed(),
                    journal_.durable_head(), counting_bytes(), now_);
    journal_.start({[this](Sequence, std::size_t groups) { engine_->on_synced(groups); },
                    [this](Sequence) { engine_->on_durable(journal_.durable_head()); },
                    [this](const absl::Status& why) { engine_->on_journal_failed(why); }});
  }
  bool then_carry(bool done) {
    carry();
    return done;
  }
  void deliver(ConnectionId id, std::string_view bytes) {
    Peer& peer = peers_.at(id);
    peer.untaken += bytes.size();
    peer.input.append(std::as_bytes(std::span(bytes)));
    for (;;) {
      const auto frame = peer.input.next();
      ASSERT_TRUE(frame.ok()) << frame.status();
      if (!*frame) return;
      auto message = codec::decode_server_frame(**frame);
      ASSERT_TRUE(message.ok()) << message.status();
      peer.got.push_back(*std::move(message));
    }
  }

  protocol::Config config_;
  service::Config service_config_;
  service::Now now_{kStart, 5'000'000};
  storage::MemoryJournal journal_;
  std::optional<protocol::Engine> engine_;
  std::map<ConnectionId, Peer> peers_;
  std::vector<protocol::Effects::Read> reads_;
  std::optional<int> exit_code_;
  bool more_work_{};
  std::size_t syncs_{};
};

}  // namespace tensorforge::test
