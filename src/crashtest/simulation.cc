#include "crashtest/simulation.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <memory>
#include <queue>
#include <random>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "client/core.h"
#include "crashtest/random.h"
#include "crashtest/simulated_connection.h"
#include "crashtest/simulated_disk.h"
#include "crashtest/workload.h"
#include "protocol/engine.h"
#include "service/fold.h"
#include "service/recover.h"
#include "storage/memory_journal.h"
#include "storage/snapshot_file.h"

namespace tensorforge::crashtest {
namespace {

using protocol::ConnectionId;
using Random = std::mt19937_64;

constexpr std::uint64_t kMs = 1'000, kSecond = 1'000 * kMs;  // the virtual clock counts microseconds
constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t kWallStart = 1'700'000'000'000, kBootStart = 5'000'000;  // ms
constexpr std::uint64_t kTickUs = 500 * kMs;                                     // of the server
constexpr std::uint64_t kMostHappenings = 3'000'000;
constexpr std::size_t kMostFaults = 6;
constexpr std::uint64_t kUnsentBytes = std::uint64_t{64} * 1024;  // a client's socket takes no more at once

struct FaultPlan {
  SimulatedFault kind{};
  std::uint64_t after_operation{};  ///< of all clients together
  std::uint64_t seed{};             ///< of what the fault decides
};

std::vector<FaultPlan> faults_of(const SimulationPlan& plan) {
  Random random(plan.seed * 2 + 1);
  std::vector<FaultPlan> faults(below(random, kMostFaults + 1));
  for (FaultPlan& fault : faults) {
    fault.kind = static_cast<SimulatedFault>(below(random, kSimulatedFaults));
    fault.after_operation = between(random, 1, std::max<std::size_t>(plan.clients * plan.operations, 1));
    fault.seed = random();
  }
  return faults;
}

/// Everything that happened, for the digest of it.
class Trace {
 public:
  void number(std::uint64_t value) { bytes_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void text(std::string_view value) {
    number(value.size());
    bytes_ += value;
  }
  Digest digest() const { return CanonicalBytes("trace").text(bytes_).digest(); }

 private:
  std::string bytes_;
};

class SimulatedWorld {
 public:
  explicit SimulatedWorld(const SimulationPlan& plan)
      : plan_(plan),
        random_(plan.seed * 2),
        faults_(faults_of(plan)),
        journal_(kLogId, one_in(random_, 8)),
        takes_snapshots_(plan.seed % 4 != 0) {
    draw_character();
    write_first_record();
    start_service();
    for (std::size_t i = 0; i < plan.clients; ++i) {
      clients_.emplace_back().random.seed(plan.seed * 1'000 + i);
      begin_client(i);
    }
  }

  SimulationOutcome run() {
    for (; !finished_ && outcome_.problems.empty(); ++outcome_.happenings) {
      if (outcome_.happenings == kMostHappenings) {
        problem("the history has no end");
        break;
      }
      const Happening next = queue_.top();
      queue_.pop();
      now_us_ = next.at_us;
      trace_.number(now_us_);
      trace_.number(static_cast<std::uint64_t>(next.what));
      trace_.number(next.subject);
      happen(next);
    }
    outcome_.virtual_ms = now_us_ / kMs;
    outcome_.connections = connections_.size();
    outcome_.trace = trace_.digest();
    if (outcome_.problems.empty()) check();
    return std::move(outcome_);
  }

 private:
  static constexpr LogId kLogId{1, 2, 3};

  enum class What : std::uint8_t {
    kClientTurn,
    kConnected,
    kToService,
    kToClient,
    kServiceHears,  // that the connection is closed
    kClientHears,
    kEndTurn,
    kRest,
    kMoreWork,
    kTick,
    kSynced,
    kAnchored,
    kRead,
    kServiceStarts,
    kFault,
    kDiskHasRoom,
  };
  struct Happening {
    std::uint64_t at_us{}, order{};
    What what{};
    std::uint64_t subject{};
    std::uint64_t life{};  // of the service; kAnyLife: whichever is there
    bool operator>(const Happening& other) const {
      return std::pair(at_us, order) > std::pair(other.at_us, other.order);
    }
  };
  static constexpr std::uint64_t kAnyLife = 0;

  struct Client {
    Random random;
    Workload workload;
    std::optional<client::Core> core;
    SessionId session{};
    std::uint8_t lives{};
    ConnectionId connection{};  // 0: none
    std::size_t submitted{}, answered{}, depth{1};
    std::uint64_t submit_at_us{}, turn_at_us{kNever};
  };

  // ---- the clock

  void at(std::uint64_t at_us, What what, std::uint64_t subject = 0, std::uint64_t life = kAnyLife) {
    queue_.push({at_us, ++order_, what, subject, life});
  }
  void soon(std::uint64_t within_us, What what, std::uint64_t subject = 0, std::uint64_t life = kAnyLife) {
    at(now_us_ + 1 + below(random_, within_us), what, subject, life);
  }
  std::uint64_t now_ms() const { return kBootStart + now_us_ / kMs; }
  service::Now clocks() const { return {kWallStart + now_us_ / kMs + wall_offset_ms_, now_ms()}; }

  void happen(const Happening& next) {
    if (next.life != kAnyLife && (next.life != life_ || !engine_)) return;
    switch (next.what) {
      case What::kClientTurn:
        if (clients_[next.subject].turn_at_us == next.at_us) client_turn(next.subject);
        return;
      case What::kConnected:
        return connected(next.subject);
      case What::kToService:
        return deliver_to_service(next.subject);
      case What::kToClient:
        return deliver_to_client(next.subject);
      case What::kServiceHears:
        return service_hears(next.subject);
      case What::kClientHears:
        return client_hears(next.subject);
      case What::kEndTurn:
        turn_due_ = false;
        return end_turn(true);
      case What::kRest:
        if (turn_due_) return;  // which asks again
        engine_->on_tick(clocks());
        return end_turn(false);
      case What::kMoreWork:
        begin_turn();
        return engine_->on_turn();
      case What::kTick:
        return tick();
      case What::kSynced:
        return synced();
      case What::kAnchored:
        return anchored();
      case What::kRead:
        return read();
      case What::kServiceStarts:
        return start_service();
      case What::kFault:
        if (!ending_) fault(faults_[next.subject]);
        return;
      case What::kDiskHasRoom:
        return journal_.set_free_bytes(kNever);
    }
  }

  void problem(std::string what) { outcome_.problems.push_back(std::move(what)); }

  // ---- what this world is like

  void draw_character() {
    const std::size_t few[] = {1, 2, 6, 1'024};
    protocol_.frames_per_turn = few[below(random_, 4)];
    if (one_in(random_, 4)) protocol_.max_frames_per_turn = between(random_, 1, 64);
    protocol_.max_requests_in_flight = few[between(random_, 1, 3)];
    if (one_in(random_, 4)) protocol_.max_output_bytes = between(random_, 1, 4'096);
    if (one_in(random_, 4)) protocol_.max_gathered_bytes = between(random_, 1, 4'096);
    if (one_in(random_, 4)) service_.max_changes = service_.max_evictions = between(random_, 1, 4);
    latency_us_ = std::uint64_t{20} << below(random_, 12);  // 20 us to 40 ms
    disk_us_ = std::uint64_t{50} << below(random_, 9);      // 50 us to 12 ms
    think_us_ = std::uint64_t{10} << below(random_, 14);    // 10 us to 80 ms
    request_timeout_ms_ = std::uint64_t{500} << below(random_, 8);
  }
  std::size_t draw_grain() {
    switch (below(random_, 8)) {
      case 0:
        return 1;
      case 1:
        return 16;
      case 2:
        return 512;
      default:
        return 0;
    }
  }

  // ---- the service

  void write_first_record() {
    journal_.start({[](Sequence, std::size_t) {}, [](Sequence) {}, [](const absl::Status&) {}});
    service::State state;
    journal_.submit(service::start_incarnation(state, IncarnationCause::FirstStart, journal_.durable_head().root,
                                               0x0a1b2c3d, clocks().wall_ms));
    journal_.restart(true);
  }

  /// From the newest snapshot, as the real one.
  Result<service::State> recover() const {
    const Result<std::vector<Sequence>> all = snapshots_.list();
    service::State from;
    if (all.ok() && !all->empty()) {
      const Result<std::unique_ptr<storage::SnapshotReader>> reader = snapshots_.open(all->back());
      Result<service::State> loaded = reader.ok() ? service::load_snapshot(**reader) : reader.status();
      if (!loaded.ok()) return loaded;
      from = *std::move(loaded);
    }
    return service::recover_from(std::move(from), journal_);
  }
  /// Of where the digests were noted last.
  void take_snapshot() {
    const Result<std::optional<storage::NotedAt>> noted = journal_.newest_noted_digest();
    if (!takes_snapshots_ || !noted.ok() || !*noted) return;
    const Result<service::NotedDigest> digest = service::decode_noted_digest((*noted)->digest);
    const Result<service::Folded> folded = digest.ok() ? fold(journal_, snapshots_, *digest) : digest.status();
    if (!folded.ok()) problem("no snapshot could be taken: " + std::string(folded.status().message()));
  }

  void start_service() {
    Result<service::State> state = recover();
    if (!state.ok()) return problem("the service does not start: " + std::string(state.status().message()));
    ++life_;
    turn_due_ = sync_due_ = anchor_due_ = false;
    service::RandomBytes bytes = [this](std::span<std::uint8_t> out) {
      for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>(random_());
    };
    engine_ = std::make_unique<protocol::Engine>(
        protocol_, service_, protocol::Identity{kLogId, "0.1.0", "anchor", clocks().wall_ms}, *std::move(state),
        journal_.durable_head(), std::move(bytes), clocks());
    journal_.start({[this](Sequence, std::size_t groups) { engine_->on_synced(groups); },
                    [this](Sequence) { engine_->on_durable(journal_.durable_head()); },
                    [this](const absl::Status& why) { engine_->on_journal_failed(why); }});
    tick();
    if (ending_) stop_service();
  }
  void stop_service() {
    begin_turn();
    engine_->begin_shutdown();
  }

  void begin_turn() {
    if (turn_due_) return;
    turn_due_ = true;
    engine_->on_tick(clocks());
    soon(100, What::kEndTurn, 0, life_);
  }
  void end_turn(bool input_ready) {
    protocol::Effects effects = engine_->take_effects(input_ready);
    for (storage::Group& group : effects.groups) journal_.submit(std::move(group));
    expect_sync();
    for (protocol::Effects::Read& what : effects.reads) {
      reads_.push_back(std::move(what));
      soon(disk_us_, What::kRead, 0, life_);
    }
    const Sequence durable = journal_.durable_head().sequence;
    for (const auto& [id, bytes] : effects.sends) {
      SimulatedConnection& connection = connection_of(id);
      if (connection.cut) continue;
      connection.send_to_client(bytes, durable);
      expect_to_client(id);
    }
    for (const ConnectionId id : effects.pauses) connection_of(id).paused = true;
    for (const ConnectionId id : effects.resumes) {
      connection_of(id).paused = false;
      expect_to_service(id);
    }
    for (const ConnectionId id : effects.closes) service_closes(id);
    if (effects.more_work) soon(20, What::kMoreWork, 0, life_);
    if (effects.gathers) soon(100, What::kRest, 0, life_);
    if (effects.exit_code) service_ended(*effects.exit_code);
  }
  void tick() {
    begin_turn();
    engine_->on_free_bytes(journal_.free_bytes());
    at(now_us_ + kTickUs, What::kTick, 0, life_);
  }
  void service_closes(ConnectionId id) {
    SimulatedConnection& connection = connection_of(id);
    connection.service_open = false;
    connection.to_service.clear();
    if (!connection.cut) soon(latency_us_, What::kClientHears, id);
  }

  void service_ended(int exit_code) {
    if (exit_code == 0 && (journal_.sync_waits() || journal_.anchor_waits())) {
      problem("the service stopped cleanly, and not all was durable");
    }
    if (ending_ && exit_code == 0) {
      finished_ = true;
      end_digest_ = digest_of_everything(engine_->state());
      return;
    }
    const bool kept = one_in(random_, 2);
    service_dies(kept, kSecond);
  }
  void service_dies(bool keep_waiting, std::uint64_t down_us) {
    engine_.reset();
    reads_.clear();
    journal_.restart(keep_waiting);
    take_snapshot();
    for (ConnectionId id = 1; id <= connections_.size(); ++id) {
      SimulatedConnection& connection = connection_of(id);
      if (!connection.service_open) continue;
      if (one_in(random_, 2)) connection.to_client.clear();
      service_closes(id);
    }
    ++outcome_.restarts;
    soon(down_us, What::kServiceStarts);
  }

  // ---- the disk

  std::uint64_t disk_latency() const { return now_us_ < disk_slow_until_us_ ? slow_disk_us_ : disk_us_; }
  void expect_sync() {
    if (sync_due_ || !journal_.sync_waits()) return;
    sync_due_ = true;
    soon(disk_latency(), What::kSynced, 0, life_);
  }
  void synced() {
    sync_due_ = false;
    begin_turn();
    engine_->on_free_bytes(journal_.free_bytes());
    journal_.complete_sync();
    expect_sync();
    expect_anchor();
  }
  void expect_anchor() {
    if (anchor_due_ || !journal_.anchor_waits()) return;
    anchor_due_ = true;
    soon(disk_latency(), What::kAnchored, 0, life_);
  }
  void anchored() {
    anchor_due_ = false;
    begin_turn();
    journal_.complete_anchor();
    expect_anchor();
  }
  void read() {
    if (reads_.empty()) return;
    const protocol::Effects::Read what = std::move(reads_.front());
    reads_.pop_front();
    begin_turn();
    engine_->on_read_done(what.id, service::run_read(journal_, what.what, service_.max_reply_bytes));
  }

  // ---- the network

  SimulatedConnection& connection_of(ConnectionId id) { return connections_[static_cast<std::size_t>(id - 1)]; }

  void expect_to_service(ConnectionId id) {
    SimulatedConnection& connection = connection_of(id);
    if (connection.to_service_due || connection.to_service.empty() || connection.paused || !connection.service_open) {
      return;
    }
    connection.to_service_due = true;
    at(std::max(now_us_ + 1 + below(random_, latency_us_), connection.to_service_from_us), What::kToService, id);
  }
  void expect_to_client(ConnectionId id) {
    SimulatedConnection& connection = connection_of(id);
    if (connection.to_client_due || connection.to_client.empty() || !connection.client_open) return;
    connection.to_client_due = true;
    at(std::max(now_us_ + 1 + below(random_, latency_us_), connection.to_client_from_us), What::kToClient, id);
  }
  void deliver_to_service(ConnectionId id) {
    SimulatedConnection& connection = connection_of(id);
    connection.to_service_due = false;
    if (!connection.service_open || connection.paused || connection.to_service.empty()) return;
    begin_turn();
    // Where only a byte arrives at a time, some of them do so before the service looks again.
    for (std::uint64_t more = between(random_, 1, 4); more > 0 && !connection.to_service.empty(); --more) {
      const std::string some = connection.to_service.take(random_, connection.grain);
      trace_.text(some);
      engine_->on_bytes(id, std::as_bytes(std::span(some)));
    }
    expect_to_service(id);
    if (connection.client_open) expect_turn(connection.client, now_us_ + 1);
  }
  void deliver_to_client(ConnectionId id) {
    SimulatedConnection& connection = connection_of(id);
    connection.to_client_due = false;
    if (!connection.client_open || connection.to_client.empty()) return;
    receive(id, connection.to_client.take(random_, connection.grain));
    expect_to_client(id);
  }
  void receive(ConnectionId id, const std::string& some) {
    SimulatedConnection& connection = connection_of(id);
    trace_.text(some);
    if (connection.service_open && engine_) {
      begin_turn();
      engine_->on_sent(id, some.size());
    }
    durable_when_sent_ = connection.deliver_to_client(some.size());
    clients_[connection.client].core->on_bytes(std::as_bytes(std::span(some)), now_ms());
    client_turn(connection.client);
  }

  /// A client gave its end up.
  void client_closes(Client& client) {
    const ConnectionId id = std::exchange(client.connection, 0);
    if (id == 0) return;
    SimulatedConnection& connection = connection_of(id);
    connection.client_open = false;
    connection.to_client.clear();
    if (connection.service_open && !connection.service_unaware) soon(latency_us_, What::kServiceHears, id);
  }
  void service_hears(ConnectionId id) {
    SimulatedConnection& connection = connection_of(id);
    if (!connection.service_open) return;
    connection.service_open = false;
    connection.to_service.clear();
    begin_turn();
    engine_->on_disconnect(id);
  }
  void client_hears(ConnectionId id) {
    SimulatedConnection& connection = connection_of(id);
    if (!connection.client_open) return;
    if (!connection.to_client.empty()) {
      connection.grain = 0;
      receive(id, connection.to_client.take(random_, 0));
      if (!connection.client_open) return;
    }
    Client& client = clients_[connection.client];
    connection.client_open = false;
    client.connection = 0;
    client.core->on_disconnected(absl::UnavailableError("the connection is closed"), now_ms());
    client_turn(connection.client);
  }

  void connect(std::size_t index) {
    SimulatedConnection& connection = connections_.emplace_back();
    connection.client = index;
    connection.service_open = false;
    connection.grain = draw_grain();
    clients_[index].connection = connections_.size();
    if (!engine_ && one_in(random_, 4)) return;  // nobody says a word
    soon(latency_us_, What::kConnected, connections_.size());
  }
  void connected(ConnectionId id) {
    SimulatedConnection& connection = connection_of(id);
    if (!connection.client_open) return;
    Client& client = clients_[connection.client];
    if (!engine_) {
      connection.client_open = false;
      client.connection = 0;
      client.core->on_disconnected(absl::UnavailableError("refused"), now_ms());
    } else {
      connection.service_open = true;
      begin_turn();
      engine_->on_connect(id, "10.0.0.1:99");
      client.core->on_connected(now_ms());
    }
    client_turn(connection.client);
  }

  // ---- the clients

  void begin_client(std::size_t index) {
    Client& client = clients_[index];
    client::Core::Options options;
    options.actor = "client" + std::to_string(index);
    options.request_timeout_ms = request_timeout_ms_;
    if (one_in(client.random, 3)) options.max_in_flight = between(client.random, 1, 3);
    client.depth = between(client.random, 1, 8);
    client.session = {static_cast<std::uint8_t>(index + 1), ++client.lives};
    client.core.emplace(options, client.session, [&client] { return client.random(); });
    expect_turn(index, now_us_ + 1 + below(client.random, think_us_));
  }

  void expect_turn(std::size_t index, std::uint64_t at_us) {
    Client& client = clients_[index];
    if (at_us >= client.turn_at_us) return;
    client.turn_at_us = at_us;
    at(at_us, What::kClientTurn, index);
  }

  void client_turn(std::size_t index) {
    Client& client = clients_[index];
    client.turn_at_us = kNever;
    client.core->on_tick(now_ms());
    submit(index);
    act(index);
    send(client);
    hand_out(client);
    const std::uint64_t next_ms = client.core->next_tick();
    if (next_ms != kNever) expect_turn(index, std::max(now_us_ + 100, (next_ms - std::min(next_ms, kBootStart)) * kMs));
    const bool submits_more = client.submitted < plan_.operations && client.core->open_requests() < client.depth;
    if (submits_more) expect_turn(index, std::max(now_us_ + 1, client.submit_at_us));
    if (!ending_ && all_answered()) end();
  }
  void act(std::size_t index) {
    Client& client = clients_[index];
    for (;;) {
      switch (client.core->take_action(now_ms())) {
        case client::Core::Action::None:
          return;
        case client::Core::Action::Disconnect:
          client_closes(client);
          break;
        case client::Core::Action::Connect:
          connect(index);
          break;
      }
    }
  }
  void send(Client& client) {
    if (client.connection == 0) return;
    SimulatedConnection& connection = connection_of(client.connection);
    if (connection.to_service.size() >= kUnsentBytes) return;
    const std::string output = client.core->take_output(now_ms());
    if (connection.cut) return;
    connection.to_service.put(output);
    expect_to_service(client.connection);
  }
  void hand_out(Client& client) {
    for (auto& [callback, answer] : client.core->take_completions()) callback(std::move(answer));
  }

  void submit(std::size_t index) {
    Client& client = clients_[index];
    while (client.submitted < plan_.operations && client.core->open_requests() < client.depth &&
           now_us_ >= client.submit_at_us) {
      client.submit_at_us = now_us_ + below(client.random, think_us_);
      ++client.submitted;
      submit_one(index);
      for (std::size_t i = 0; i < faults_.size(); ++i) plan_fault(i);
      ++submitted_;
    }
  }
  void submit_one(std::size_t index) {
    Client& client = clients_[index];
    Call call;
    call.actor = "client" + std::to_string(index);
    call.session = client.session;
    if (one_in(client.random, 4)) {
      const Query query = client.workload.query(client.random);
      call.body = query;
      return client.core->submit(query, callback(index, std::move(call)), now_ms());
    }
    const Command command = client.workload.command(client.random);
    call.body = command;
    if (one_in(client.random, 8)) call.if_sequence = below(client.random, seen_ + 1);
    if (one_in(client.random, 6)) call.reason = "because";
    client::CommandOptions options{call.if_sequence, call.reason};
    client.core->submit(command, std::move(options), callback(index, std::move(call)), now_ms());
  }
  client::Callback callback(std::size_t index, Call call) {
    const std::size_t handle = calls_.begin(std::move(call));
    return [this, index, handle](client::Answer answer) { answered(index, handle, std::move(answer)); };
  }
  void answered(std::size_t index, std::size_t handle, client::Answer answer) {
    Client& client = clients_[index];
    ++client.answered;
    trace_.number(handle);
    trace_.text(answer.request_id);
    trace_.number(static_cast<std::uint64_t>(answer.status.code()));
    trace_.number(answer.reply.sequence);
    if (!answer.request_id.empty()) {
      calls_.sent_as(handle, client.session, std::stoull(answer.request_id.substr(answer.request_id.find('-') + 1)));
    }
    const bool by_service = answer.reply.correlation_id != 0 && !absl::IsUnavailable(answer.status);
    if (!by_service) return note_unknown(answer.status);
    if (answer.reply.sequence > durable_when_sent_) {
      problem(fmt::format("client {} was told of sequence {}, and {} was durable when that was sent", index,
                          answer.reply.sequence, durable_when_sent_));
    }
    seen_ = std::max(seen_, answer.reply.sequence);
    client.workload.learn(answer.reply);
    calls_.answer(handle, std::move(answer.reply));
  }
  /// The client's own answer: the outcome is unknown.
  void note_unknown(const absl::Status& status) {
    if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsCancelled(status)) return;
    problem("a session ended: " + status.ToString());
  }

  bool all_answered() const {
    return std::all_of(clients_.begin(), clients_.end(),
                       [this](const Client& client) { return client.answered == plan_.operations; });
  }
  void end() {
    ending_ = true;
    disk_slow_until_us_ = 0;
    if (engine_) stop_service();
  }

  // ---- faults

  void plan_fault(std::size_t number) {
    if (faults_[number].after_operation != submitted_ + 1) return;
    const auto& kept = plan_.faults;
    if (kept && std::find(kept->begin(), kept->end(), number) == kept->end()) return;
    at(now_us_ + faults_[number].seed % (2 * (latency_us_ + disk_us_)), What::kFault, number);
  }

  void fault(const FaultPlan& plan) {
    Random random(plan.seed);
    if (carry_out(plan.kind, random)) ++outcome_.faults[static_cast<std::size_t>(plan.kind)];
  }
  bool carry_out(SimulatedFault kind, Random& random) {
    switch (kind) {
      case SimulatedFault::kCrash:
        if (!engine_) return false;
        service_dies(one_in(random, 2), one_in(random, 2) ? 10 * kMs : 10 * kSecond);
        return true;
      case SimulatedFault::kStop:
        if (!engine_) return false;
        stop_service();
        return true;
      case SimulatedFault::kDiskFails:
        if (!engine_) return false;
        begin_turn();
        journal_.fail(absl::UnavailableError("injected"));
        return true;
      case SimulatedFault::kDiskSlow:
        slow_disk_us_ = (10 * kMs) << below(random, 12);  // 10 ms to 20 s
        disk_slow_until_us_ = now_us_ + 3 * slow_disk_us_;
        return true;
      case SimulatedFault::kDiskFull:
        disk_was_full_ = true;
        journal_.set_free_bytes(below(random, service_.reserve_bytes));
        at(now_us_ + between(random, kMs, 5 * kSecond), What::kDiskHasRoom);
        return true;
      case SimulatedFault::kClientDies:
        client_dies(below(random, clients_.size()));
        return true;
      case SimulatedFault::kClockSteps:
        wall_offset_ms_ = between(random, 0, std::uint64_t{2} * 3'600'000);
        return true;
      default:
        return break_connection(kind, random);
    }
  }

  bool break_connection(SimulatedFault kind, Random& random) {
    const std::size_t index = below(random, clients_.size());
    const ConnectionId id = clients_[index].connection;
    if (id == 0 || !connection_of(id).service_open || !engine_) return false;
    SimulatedConnection& connection = connection_of(id);
    if (kind == SimulatedFault::kStall) {
      const std::uint64_t until = now_us_ + (kMs << below(random, 16));  // 1 ms to 32 s
      const std::uint64_t which = below(random, 3);
      if (which != 0) connection.to_service_from_us = until;
      if (which != 1) connection.to_client_from_us = until;
      return true;
    }
    connection.cut = true;
    if (one_in(random, 2)) connection.to_service.clear();
    connection.to_client.clear();
    const std::uint64_t late = now_us_ + between(random, kSecond, 120 * kSecond);
    connection.service_unaware = kind == SimulatedFault::kServiceUnaware;
    at(kind == SimulatedFault::kServiceUnaware ? late : now_us_ + below(random, 5 * latency_us_), What::kServiceHears,
       id, life_);
    at(kind == SimulatedFault::kClientUnaware ? late : now_us_ + below(random, 5 * latency_us_), What::kClientHears,
       id);
    return true;
  }

  void client_dies(std::size_t index) {
    Client& client = clients_[index];
    client.core->close();
    hand_out(client);
    client_closes(client);
    begin_client(index);
  }

  // ---- what came of it

  void check() {
    const Result<service::State> recovered = recover();
    if (!recovered.ok()) return problem("the log cannot be replayed: " + std::string(recovered.status().message()));
    const Digest everything = digest_of_everything(*recovered);
    if (everything != end_digest_) problem("the state that was served is not the one that is recovered");
    outcome_.verdict =
        check_history(calls_, calls_.now(), {journal_, recovered->digest(), service_, disk_was_full_, everything}, {});
  }

  const SimulationPlan plan_;
  Random random_;
  const std::vector<FaultPlan> faults_;
  SimulationOutcome outcome_;
  bool disk_was_full_{};

  std::uint64_t now_us_{}, order_{}, wall_offset_ms_{};
  std::priority_queue<Happening, std::vector<Happening>, std::greater<>> queue_;
  Trace trace_;

  protocol::Config protocol_;
  service::Config service_;
  std::uint64_t latency_us_{}, disk_us_{}, think_us_{}, request_timeout_ms_{};

  storage::MemoryJournal journal_;
  const bool takes_snapshots_;
  const std::shared_ptr<SimulatedDisk> disk_ = std::make_shared<SimulatedDisk>();  // of the snapshots alone
  const storage::SnapshotStore snapshots_{disk_, ""};
  std::unique_ptr<protocol::Engine> engine_;  // nullptr: the service is down
  std::uint64_t life_{};
  bool turn_due_{}, sync_due_{}, anchor_due_{};
  std::deque<protocol::Effects::Read> reads_;
  std::uint64_t disk_slow_until_us_{}, slow_disk_us_{};

  std::deque<SimulatedConnection> connections_;  // by id, from 1
  std::deque<Client> clients_;                   // these stay where they are
  CallJournal calls_;
  std::uint64_t submitted_{};
  Sequence seen_{}, durable_when_sent_{};
  bool ending_{}, finished_{};
  Digest end_digest_;
};

}  // namespace

std::string_view to_string(SimulatedFault fault) {
  constexpr std::string_view kNames[kSimulatedFaults] = {
      "crash",           "stop",           "disk fails", "disk slow",   "disk full",  "connection reset",
      "service unaware", "client unaware", "stall",      "client dies", "clock steps"};
  return kNames[static_cast<std::size_t>(fault)];
}

std::string describe(const SimulationPlan& plan) {
  std::string text = fmt::format("{} clients, {} operations of each", plan.clients, plan.operations);
  const std::vector<FaultPlan> faults = faults_of(plan);
  for (std::size_t i = 0; i < faults.size(); ++i) {
    const bool kept = !plan.faults || std::find(plan.faults->begin(), plan.faults->end(), i) != plan.faults->end();
    if (kept) text += fmt::format(", fault {} ({})", i, to_string(faults[i].kind));
  }
  return text;
}

std::size_t fault_count(const SimulationPlan& plan) { return faults_of(plan).size(); }

SimulationOutcome simulate(const SimulationPlan& plan) { return SimulatedWorld(plan).run(); }

}  // namespace tensorforge::crashtest
