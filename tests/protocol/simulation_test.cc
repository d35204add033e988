// Two clients against the whole service on a virtual clock: the client's core, the engine and the memory journal,
// joined by pipes that deliver when and as much as they like, with lost connections, crashes and a failing disk. One
// number makes the whole history.
#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "client/core.h"
#include "platform/digest.h"
#include "protocol/engine.h"
#include "service/queries.h"
#include "service/recover.h"
#include "service/replies.h"
#include "storage/memory_journal.h"
#include "tests/support/commands.h"
#include "tests/support/service_fixture.h"

namespace tensorforge::test {
namespace {

using protocol::ConnectionId;

constexpr int kRequestsOfEach = 60;
constexpr std::size_t kClients = 2;

class Simulation {
 public:
  explicit Simulation(std::uint64_t seed) : random_(seed), journal_(kLogId) {
    write_first_record();
    start_service();
    for (std::size_t i = 0; i < kClients; ++i) {
      client::Core::Options options;
      options.actor = "client" + std::to_string(i);
      options.connect_timeout_ms = 3'000;
      options.request_timeout_ms = 1'000'000'000;
      SessionId session{static_cast<std::uint8_t>(i + 1)};
      clients_[i].core.emplace(options, session, [this] { return random_(); });
    }
  }

  /// Everything that clients asked for is answered; the service has stopped cleanly.
  void run() {
    constexpr int kMaxSteps = 200'000;
    int steps = 0;
    for (; !all_answered(); ++steps) {
      ASSERT_LT(steps, kMaxSteps) << "no end in sight";
      step(steps < 4'000);
    }
    engine_->begin_shutdown();
    carry();
    for (; !exit_code_; ++steps) {
      ASSERT_LT(steps, kMaxSteps) << "the service does not stop";
      step(false);
    }
    EXPECT_EQ(exit_code_, 0);
    note("end", state_digest());
  }

  /// What the clients were told against what the log says.
  void check() {
    const std::vector<Record> log = read_log();
    Commands commands;
    for (const Record& record : log) {
      if (!record.session) continue;
      std::vector<Record>& records = commands[{*record.session, record.command_number}];
      ASSERT_EQ(record.part, records.size()) << "a command is in the log twice";
      records.push_back(record);
    }
    for (const Told& told : told_) {
      if (told.command) check_command(told, commands);
    }
    check_reads();
    EXPECT_EQ(service::recover(journal_).value().digest(), engine_->state().digest());
  }

  std::string trace_digest() const { return format_digest(CanonicalBytes("trace").text(trace_).digest()); }
  const std::map<std::string, int>& counts() const { return counts_; }

 private:
  using Commands = std::map<std::pair<SessionId, std::uint64_t>, std::vector<Record>>;
  struct Client {
    std::optional<client::Core> core;
    std::optional<ConnectionId> connection;
    std::string to_service, to_client;
    int submitted{}, answered{};
  };
  struct Told {
    std::optional<Command> command;
    std::optional<Query> query;
    std::optional<Sequence> if_sequence;
    SessionId session{};
    client::Answer answer;
  };

  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

  void note(std::string_view what, std::string_view detail) {
    trace_ += what;
    trace_ += ' ';
    trace_ += detail;
    trace_ += '\n';
    ++counts_[std::string(what)];
  }
  std::string state_digest() const {
    return std::to_string(engine_->state().sequence) + ' ' + format_digest(engine_->state().digest());
  }

  // ---- the service

  void write_first_record() {
    journal_.start({[](Sequence) {}, [](Sequence) {}, [](const absl::Status&) {}});
    service::State state;
    journal_.submit(service::start_incarnation(state, IncarnationCause::FirstStart, journal_.durable_head().root,
                                               kIncarnation, now_.wall_ms));
    journal_.restart(true);
  }
  void start_service() {
    auto state = service::recover(journal_);
    ASSERT_TRUE(state.ok()) << state.status();
    protocol::Config config;
    config.frames_per_turn = 3;
    config.max_requests_in_flight = 6;
    exit_code_.reset();
    reads_.clear();
    engine_.emplace(config, service::Config{}, protocol::Identity{kLogId, "0.1.0", "anchor", now_.wall_ms},
                    *std::move(state), journal_.durable_head(), counting_bytes(), now_);
    journal_.start({[this](Sequence last) { engine_->on_synced(last); },
                    [this](Sequence) { engine_->on_durable(journal_.durable_head()); },
                    [this](const absl::Status& why) { engine_->on_journal_failed(why); }});
  }
  void restart_service() {
    const bool kept = one_in(2);
    journal_.restart(kept);
    note("restart", kept ? "kept" : "lost");
    for (Client& client : clients_) lose(client, "the service ended");
    start_service();
  }
  Client* owner_of(ConnectionId id) {
    const auto found =
        std::find_if(clients_.begin(), clients_.end(), [&](const Client& client) { return client.connection == id; });
    return found == clients_.end() ? nullptr : &*found;
  }
  void carry() {
    protocol::Effects effects = engine_->take_effects();
    for (const auto& [id, bytes] : effects.sends) {
      if (Client* client = owner_of(id)) client->to_client += bytes;
    }
    for (const ConnectionId id : effects.closes) {
      // What is on its way still arrives; the end behind it is seen when the client asks again.
      if (Client* client = owner_of(id)) lose(*client, "closed");
    }
    for (protocol::Effects::Read& read : effects.reads) reads_.push_back(std::move(read));
    if (effects.group) journal_.submit(*std::move(effects.group));
    if (effects.exit_code) exit_code_ = effects.exit_code;
    more_work_ = effects.more_work;
  }

  // ---- the clients

  void lose(Client& client, const char* why) {
    if (!client.connection) return;
    client.connection.reset();
    client.to_service.clear();
    client.to_client.clear();
    client.core->on_disconnected(absl::UnavailableError(why), now_.boot_ms);
  }
  void submit(Client& client) {
    Told told;
    told.session = SessionId{static_cast<std::uint8_t>(&client - clients_.data() + 1)};
    ++client.submitted;
    if (one_in(3)) {
      told.query = random_query();
      return client.core->submit(*told.query, callback(client, told), now_.boot_ms);
    }
    told.command = random_command();
    if (one_in(6)) told.if_sequence = below(engine_->state().sequence + 1);
    client::CommandOptions options{told.if_sequence, one_in(5) ? "because" : ""};
    client.core->submit(*told.command, std::move(options), callback(client, told), now_.boot_ms);
  }
  client::Callback callback(Client& client, const Told& asked) {
    return [this, &client, told = asked](client::Answer answer) mutable {
      told.answer = std::move(answer);
      ++client.answered;
      const Reply& reply = told.answer.reply;
      note(told.answer.status.ok() ? "done" : "refused",
           told.answer.request_id + ' ' + told.answer.status.ToString() + ' ' + std::to_string(reply.sequence));
      EXPECT_LE(reply.sequence, journal_.durable_head().sequence) << "told before it was durable";
      told_.push_back(std::move(told));
    };
  }

  SingleCommand random_single() {
    const std::string model = "m" + std::to_string(below(3));
    const registry::ModelVersion version{static_cast<std::uint32_t>(below(4)), 0, 0};
    const std::string block = "b-0a1b2c3d-" + std::to_string(1 + below(20));
    const std::string saved = "ck-0a1b2c3d-" + std::to_string(1 + below(12));
    switch (below(11)) {
      case 0:
      case 1:
        return register_model(model, version);
      case 2:
        return transition(model, static_cast<registry::DeploymentState>(below(7)), version);
      case 3:
        return create_pool("gpu0", 4'096);
      case 4:
      case 5:
        return allocate("gpu0", 1 + below(1'500), "t" + std::to_string(below(3)));
      case 6:
        return cache("gpu0", block);
      case 7:
        return free_block("gpu0", block);
      case 8:
        return create_checkpoint("run", below(30), static_cast<checkpoint::CheckpointType>(below(3)));
      case 9:
        return complete(saved);
      default:
        return corrupt(saved);
    }
  }
  Command random_command() {
    switch (below(12)) {
      case 0:
        return batch({random_single(), random_single()});
      case 1:
        return evict("gpu0", below(3'000));
      case 2:
        return defragment("gpu0");
      case 3:
        return collect_garbage();
      default:
        return random_single();
    }
  }
  Query random_query() {
    switch (below(4)) {
      case 0:
        return query::ListModels{{5, {}}};
      case 1:
        return query::ListBlocks{"gpu0", {}};
      case 2:
        return query::ListCheckpoints{"run", {}};
      default:
        return query::GetModel{"m" + std::to_string(below(3)), std::nullopt};
    }
  }
  bool all_answered() const {
    return std::all_of(clients_.begin(), clients_.end(),
                       [](const Client& client) { return client.answered == kRequestsOfEach; });
  }

  // ---- one thing happens

  void step(bool faults) {
    Client& client = clients_[below(kClients)];
    switch (below(12)) {
      case 0:
      case 1:
        if (client.submitted < kRequestsOfEach && client.core->open_requests() < 9) submit(client);
        break;
      case 2:
        act(client);
        break;
      case 3:
      case 4:
        deliver_to_service(client);
        break;
      case 5:
      case 6:
        deliver_to_client(client);
        break;
      case 7:
        journal_.complete_sync();
        break;
      case 8:
        journal_.complete_anchor();
        break;
      case 9:
        run_a_read();
        break;
      case 10:
        pass_time();
        break;
      default:
        if (more_work_) engine_->on_turn();
        if (faults && one_in(25)) fault(client);
    }
    carry();
    if (exit_code_ == 3) restart_service();
  }
  void act(Client& client) {
    switch (client.core->take_action(now_.boot_ms)) {
      case client::Core::Action::Connect:
        client.connection = ++last_connection_;
        engine_->on_connect(*client.connection, "10.0.0.1:99");
        client.core->on_connected(now_.boot_ms);
        note("connect", std::to_string(*client.connection));
        break;
      case client::Core::Action::Disconnect:
        if (client.connection) engine_->on_disconnect(*client.connection);
        client.connection.reset();
        client.to_service.clear();
        client.to_client.clear();
        break;
      case client::Core::Action::None:
        break;
    }
    if (client.connection) client.to_service += client.core->take_output(now_.boot_ms);
  }
  std::string some_of(std::string& pipe) {
    std::string some = pipe.substr(0, one_in(3) ? pipe.size() : below(pipe.size() + 1));
    pipe.erase(0, some.size());
    return some;
  }
  void deliver_to_service(Client& client) {
    const std::string some = some_of(client.to_service);
    if (!some.empty()) engine_->on_bytes(*client.connection, std::as_bytes(std::span(some)));
  }
  void deliver_to_client(Client& client) {
    const std::string some = some_of(client.to_client);
    if (some.empty()) return;
    engine_->on_sent(*client.connection, some.size());
    client.core->on_bytes(std::as_bytes(std::span(some)), now_.boot_ms);
    for (auto& completion : client.core->take_completions()) completion.callback(std::move(completion.answer));
  }
  void run_a_read() {
    if (reads_.empty()) return;
    const protocol::Effects::Read read = std::move(reads_.front());
    reads_.erase(reads_.begin());
    note("read", std::to_string(read.id));
    engine_->on_read_done(read.id, service::run_read(journal_, read.what, service::Config{}.max_reply_bytes));
  }
  void pass_time() {
    const std::uint64_t ms = 1 + below(40);
    now_.wall_ms += ms;
    now_.boot_ms += ms;
    engine_->on_tick(now_);
    for (Client& client : clients_) client.core->on_tick(now_.boot_ms);
  }
  void fault(Client& client) {
    switch (below(4)) {
      case 0:
        return restart_service();
      case 1:
        note("disk", "fails");
        return journal_.fail(absl::UnavailableError("injected"));
      default:
        if (!client.connection) return;
        note("cut", std::to_string(*client.connection));
        engine_->on_disconnect(*client.connection);
        lose(client, "cut");
    }
  }

  // ---- what is checked

  std::vector<Record> read_log() const {
    std::vector<Record> log;
    const auto read = journal_.read(1, 100'000, std::size_t{1} << 30U);
    EXPECT_TRUE(read.ok()) << read.status();
    for (const std::string& bytes : read->records) {
      log.push_back(codec::decode_record(std::as_bytes(std::span(bytes))).value());
    }
    return log;
  }
  void check_command(const Told& told, const Commands& commands) {
    const std::string& id = told.answer.request_id;
    const auto number = std::stoull(id.substr(id.find('-') + 1));
    const auto found = commands.find({told.session, number});
    const Reply& reply = told.answer.reply;
    if (found != commands.end()) {
      Reply expected = service::reply_from_records(found->second);
      expected.correlation_id = reply.correlation_id;
      EXPECT_EQ(reply, expected) << id;
      return;
    }
    // It is not in the log, so it changed nothing: the state that it was decided against does the same again.
    service::Service again({}, state_at(reply.sequence), counting_bytes(), now_);
    Request request;
    request.command_number = 1;
    request.if_sequence = told.if_sequence;
    service::Caller caller;
    caller.session = SessionId{99};
    caller.opened_at = 1;
    const Reply expected = again.execute(caller, request, *told.command).reply;
    EXPECT_EQ(reply.status, expected.status) << id;
    EXPECT_EQ(again.state().sequence, reply.sequence) << id << " did something";
  }
  void check_reads() {
    for (const Told& told : told_) {
      if (!told.query) continue;
      const service::State state = state_at(told.answer.reply.sequence);
      const service::Config config;
      Reply expected = service::answer({state, config, [](std::string_view) { return 0.0; }}, *told.query);
      expected.correlation_id = told.answer.reply.correlation_id;
      EXPECT_EQ(told.answer.reply, expected);
    }
  }
  service::State state_at(Sequence sequence) const {
    service::Replay replay(sequence);
    const auto read = journal_.read(1, static_cast<std::size_t>(sequence), std::size_t{1} << 30U);
    for (const std::string& bytes : read->records) {
      const absl::Status added = replay.add(std::as_bytes(std::span(bytes)));
      EXPECT_TRUE(added.ok()) << added;
    }
    EXPECT_EQ(replay.state().sequence, sequence) << "an answer told the middle of a command";
    return replay.take();
  }

  std::mt19937_64 random_;
  service::Now now_{kStart, 5'000'000};
  storage::MemoryJournal journal_;
  std::optional<protocol::Engine> engine_;
  std::array<Client, kClients> clients_;
  ConnectionId last_connection_{};
  std::vector<protocol::Effects::Read> reads_;
  bool more_work_{};
  std::optional<int> exit_code_;
  std::vector<Told> told_;
  std::string trace_;
  std::map<std::string, int> counts_;
};

TEST(Simulation, WhatIsToldIsInTheLogOnceAndTheSameSeedMakesTheSameHistory) {
  std::map<std::string, int> counts;
  std::set<std::string> traces;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Simulation first(seed);
    first.run();
    first.check();
    Simulation second(seed);
    second.run();
    ASSERT_EQ(first.trace_digest(), second.trace_digest());
    ASSERT_FALSE(testing::Test::HasFailure());
    traces.insert(first.trace_digest());
    for (const auto& [what, count] : first.counts()) counts[what] += count;
  }
  EXPECT_EQ(traces.size(), 100u);
  for (const char* what : {"done", "refused", "read", "restart", "disk", "cut"}) {
    EXPECT_GT(counts[what], 50) << what << " hardly ever happened: the histories are too tame";
  }
}

}  // namespace
}  // namespace tensorforge::test
