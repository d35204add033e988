#include "crashtest/world.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "crashtest/recovery.h"
#include "service/fold.h"
#include "service/log_reader.h"
#include "service/recover.h"

namespace tensorforge::crashtest {
namespace {

constexpr std::uint64_t kStart = 1'700'000'000'000;  ///< ms since the Unix epoch
constexpr std::uint64_t kNever = std::uint64_t{1} << 40U;
constexpr std::size_t kMaxInFlight = 8;     ///< of one client
constexpr std::uint64_t kOneSnapshot = 40;  ///< one turn of so many thinks of it
constexpr int kMaxIdleSteps = 20'000;       ///< in which nobody is answered

using SteadyClock = std::chrono::steady_clock;

}  // namespace

/// The engine and its journal, from when the log was recovered.
class World::Service {
 public:
  Service(World& world, const Plan& plan, const std::shared_ptr<SimulatedDisk>& disk, storage::OpenedDirectory opened,
          JournalDriver& driver)
      : world_(world), plan_(plan), snapshots_(disk, kDataDir), opened_(std::move(opened)), driver_(driver) {}
  ~Service() {
    driver_.let_all_through();
    opened_.journal->close().IgnoreError();
  }

  /// kStopped: it goes on with run().
  Life begin(service::State state) {
    storage::Journal& journal = *opened_.journal;
    driver_.start(journal);
    if (opened_.to_start) {
      driver_.submit(service::start_incarnation(state, opened_.to_start->cause, journal.durable_head().root,
                                                opened_.to_start->incarnation, world_.now_.wall_ms));
      while (driver_.busy()) {
        for (const JournalDriver::Event& event : disk_step()) {
          if (event.kind == JournalDriver::Event::Kind::kFailed) return {End::kDiskFailed, event.why, 0};
        }
        if (plan_.is_cut()) return {End::kCut, {}, 0};
      }
    }
    if (plan_.ack == storage::Ack::kWal) driver_.expect_durable_when_synced();
    engine_.emplace(
        protocol::Config{}, world_.config_,
        protocol::Identity{journal.log_id(), "0.1.0", "anchor", world_.now_.wall_ms}, std::move(state),
        journal.durable_head(),
        [this](std::span<std::uint8_t> out) {
          for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>(world_.random_());
        },
        world_.now_);
    engine_->on_free_bytes(journal.free_bytes());
    return {};
  }

  Life run() {
    std::size_t begun = 0;
    int idle = 0;
    for (;;) {
      if (begun < plan_.requests && below(3) == 0) {
        Client& client = world_.clients_[below(world_.clients_.size())];
        if (client.core->open_requests() < kMaxInFlight) {
          world_.begin_request(client);
          ++begun;
        }
      }
      const std::size_t open_before = world_.open_;
      carry();
      if (plan_.is_cut()) return {End::kCut, {}, 0};
      if (driver_.busy()) {
        if (below(4) != 0) take(disk_step());
      } else if (below(2) == 0) {
        world_.pass_time(1 + below(30));
      }
      if (plan_.is_cut()) return {End::kCut, {}, 0};
      if (below(2) == 0) run_a_read();
      if (plan_.takes_snapshots && below(kOneSnapshot) == 0) take_snapshot_while_serving();
      opened_.journal->refresh_free_bytes();
      engine_->on_free_bytes(opened_.journal->free_bytes());
      engine_->on_tick(world_.now_);
      for (Client& client : world_.clients_) client.core->on_tick(world_.now_.boot_ms);
      carry();
      if (exit_code_ == 3) return {End::kDiskFailed, failure_, 0};
      if (exit_code_ == 0) return {End::kStopped, {}, 0};
      if (begun == plan_.requests && world_.open_ == 0 && !stopping_) {
        stopping_ = true;
        engine_->begin_shutdown();
      }
      idle = world_.open_ == open_before ? idle + 1 : 0;
      if (idle > kMaxIdleSteps) return {End::kStuck, {}, 0};
    }
  }

  /// Of where the digests were noted last, unless there is one. kUnavailable: the disk fails.
  absl::Status take_snapshot() {
    const storage::Journal& journal = *opened_.journal;
    const Result<std::optional<storage::NotedAt>> noted = journal.newest_noted_digest();
    if (!noted.ok()) return noted.status();
    if (!*noted || (*noted)->sequence == last_snapshot_) return absl::OkStatus();
    const Result<service::NotedDigest> digest = service::decode_noted_digest((*noted)->digest);
    const Result<service::Folded> folded = digest.ok() ? fold(journal, snapshots_, *digest) : digest.status();
    if (folded.ok()) {
      last_snapshot_ = folded->sequence;
    } else if (!absl::IsUnavailable(folded.status())) {
      world_.complaints_.push_back("no snapshot could be taken: " + folded.status().ToString());
    }
    return folded.status();
  }

  absl::Status close() { return opened_.journal->close(); }

 private:
  std::uint64_t below(std::uint64_t limit) { return world_.random_() % limit; }

  std::vector<JournalDriver::Event> disk_step() {
    if (const std::uint64_t delay = plan_.disk_delay_ms(); delay > 0) wait_for_disk(delay);
    return driver_.step(world_.random_);
  }
  /// The disk is slow: the service and its clients go on, on the virtual clock.
  void wait_for_disk(std::uint64_t ms) {
    constexpr std::uint64_t kTick = 500;
    for (std::uint64_t waited = 0; waited < ms; waited += kTick) {
      world_.pass_time(std::min(kTick, ms - waited));
      if (engine_) {
        engine_->on_tick(world_.now_);
        carry();
      }
    }
  }

  void take(const std::vector<JournalDriver::Event>& events) {
    for (const JournalDriver::Event& event : events) {
      switch (event.kind) {
        case JournalDriver::Event::Kind::kSynced:
          engine_->on_synced(event.groups);
          break;
        case JournalDriver::Event::Kind::kDurable:
          engine_->on_durable(opened_.journal->durable_head());
          break;
        case JournalDriver::Event::Kind::kFailed:
          failure_ = event.why;
          engine_->on_journal_failed(event.why);
          break;
      }
    }
  }

  void take_snapshot_while_serving() {
    const absl::Status taken = take_snapshot();
    if (absl::IsUnavailable(taken)) take({{JournalDriver::Event::Kind::kFailed, 0, 0, taken}});
  }

  void run_a_read() {
    if (reads_.empty()) return;
    const protocol::Effects::Read read = std::move(reads_.front());
    reads_.erase(reads_.begin());
    engine_->on_read_done(read.id, service::run_read(*opened_.journal, read.what, world_.config_.max_reply_bytes));
  }

  void carry() {
    for (Client& client : world_.clients_) act(client);
    protocol::Effects effects = engine_->take_effects();
    for (const auto& [id, given] : effects.sends) {
      Client* client = owner_of(id);
      if (client == nullptr) continue;
      const std::string bytes(given);  // the engine is called before they are used
      engine_->on_sent(id, bytes.size());
      client->core->on_bytes(std::as_bytes(std::span(bytes)), world_.now_.boot_ms);
    }
    for (const protocol::ConnectionId id : effects.closes) {
      if (Client* client = owner_of(id)) lose(*client);
    }
    for (protocol::Effects::Read& read : effects.reads) reads_.push_back(std::move(read));
    for (storage::Group& group : effects.groups) driver_.submit(std::move(group));
    if (effects.exit_code) exit_code_ = effects.exit_code;
    if (effects.more_work) engine_->on_turn();
    for (Client& client : world_.clients_) {
      for (auto& completion : client.core->take_completions()) completion.callback(std::move(completion.answer));
    }
  }

  void act(Client& client) {
    switch (client.core->take_action(world_.now_.boot_ms)) {
      case client::Core::Action::Connect:
        if (stopping_) return lose(client);
        client.connection = ++world_.last_connection_;
        engine_->on_connect(*client.connection, fmt::format("10.0.0.1:{}", *client.connection));
        client.core->on_connected(world_.now_.boot_ms);
        break;
      case client::Core::Action::Disconnect:
        if (client.connection) engine_->on_disconnect(*client.connection);
        client.connection.reset();
        break;
      case client::Core::Action::None:
        break;
    }
    if (!client.connection) return;
    const std::string output = client.core->take_output(world_.now_.boot_ms);
    if (!output.empty()) engine_->on_bytes(*client.connection, std::as_bytes(std::span(output)));
  }
  void lose(Client& client) {
    client.connection.reset();
    client.core->on_disconnected(absl::UnavailableError("the connection is gone"), world_.now_.boot_ms);
  }
  Client* owner_of(protocol::ConnectionId id) {
    const auto found = std::find_if(world_.clients_.begin(), world_.clients_.end(),
                                    [&](const Client& client) { return client.connection == id; });
    return found == world_.clients_.end() ? nullptr : &*found;
  }

  World& world_;
  const Plan& plan_;
  const storage::SnapshotStore snapshots_;
  Sequence last_snapshot_{};
  storage::OpenedDirectory opened_;
  JournalDriver& driver_;
  std::optional<protocol::Engine> engine_;
  std::vector<protocol::Effects::Read> reads_;
  std::optional<int> exit_code_;
  absl::Status failure_;
  bool stopping_{};
};

World::World(std::uint64_t seed, std::size_t clients) : random_(seed), now_{kStart, 5'000'000}, clients_(clients) {
  config_.touch_granularity_ms = 50;
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    Client& client = clients_[i];
    for (std::uint8_t& byte : client.session) byte = static_cast<std::uint8_t>(random_());
    client.actor = fmt::format("client-{}", i + 1);
    client::Core::Options options;
    options.actor = client.actor;
    options.connect_timeout_ms = options.request_timeout_ms = kNever;
    client.core.emplace(options, client.session, [this] { return random_(); });
  }
}

World::~World() = default;

World::Life World::live(const std::shared_ptr<SimulatedDisk>& disk, const Plan& plan) {
  JournalDriver driver;
  disk->set_hook([&](const SimulatedDisk::Call& call) { return driver.pass(call, plan.hook); });
  Life life;
  std::chrono::duration<double, std::milli> recovered{};
  const auto begin = SteadyClock::now();
  storage::OpenOptions options;
  options.data_dir = kDataDir;
  options.ack = plan.ack;
  options.file_system = disk;
  options.check_in_process = true;
  options.random = [this](std::span<std::uint8_t> out) {
    for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>(random_());
  };
  Result<Recovery> recovery = open_and_recover(options);
  if (recovery.ok()) recovered = SteadyClock::now() - begin;
  if (plan.is_cut()) {
    life.end = End::kCut;
  } else if (!recovery.ok()) {
    life = {End::kRefused, recovery.status(), 0};
  } else {
    plan.on_recovered({*recovery->directory.journal, recovery->state.digest(), config_, disk_was_full_,
                       digest_of_everything(recovery->state)});
    Service service(*this, plan, disk, std::move(recovery->directory), driver);
    life = service.begin(std::move(recovery->state));
    if (life.end == End::kStopped) life = service.run();
    if (life.end == End::kStopped) {
      driver.let_all_through();
      absl::Status ended = plan.takes_snapshots ? service.take_snapshot() : absl::OkStatus();
      ended.Update(service.close());
      if (!ended.ok()) life = {End::kDiskFailed, ended, 0};
    }
  }
  life.recovery_ms = recovered.count();
  disconnect_all();
  disk->set_hook({});
  return life;
}

void World::begin_request(Client& client) {
  Call call;
  call.session = client.session;
  call.actor = client.actor;
  const bool is_query = random_() % 4 == 0;
  if (is_query) {
    call.body = workload_.query(random_);
  } else {
    call.number = ++client.commands;
    call.body = workload_.command(random_);
    if (random_() % 8 == 0) call.reason = fmt::format("reason {}", random_() % 100);
    if (random_() % 12 == 0) call.if_sequence = random_() % 200;
  }
  const std::size_t handle = calls_.begin(call);
  ++open_;
  const auto done = [this, handle](const client::Answer& answer) { on_answer(handle, answer); };
  if (is_query) {
    client.core->submit(std::get<Query>(call.body), done, now_.boot_ms);
  } else {
    client.core->submit(std::get<Command>(call.body), {call.if_sequence, call.reason}, done, now_.boot_ms);
  }
}

void World::on_answer(std::size_t handle, const client::Answer& answer) {
  --open_;
  const Call& call = calls_.calls()[handle];
  if (answer.reply.incarnation == 0) {
    // The client itself gave up, and here it has no reason to.
    complaints_.push_back(fmt::format("request {} of {}: {}", handle, call.actor, answer.status.ToString()));
    return;
  }
  if (call.number != 0 && answer.request_id != fmt::format("{}-{}", format_session(call.session), call.number)) {
    complaints_.push_back(
        fmt::format("command {} of {} was answered as {}", call.number, call.actor, answer.request_id));
  }
  if (absl::IsDataLoss(answer.status) || absl::IsInternal(answer.status)) {
    complaints_.push_back(fmt::format("request {} of {}: {}", handle, call.actor, answer.status.ToString()));
  }
  workload_.learn(answer.reply);
  calls_.answer(handle, answer.reply);
}

void World::disconnect_all() {
  for (Client& client : clients_) {
    client.connection.reset();
    client.core->on_disconnected(absl::UnavailableError("the service ended"), now_.boot_ms);
    for (auto& completion : client.core->take_completions()) completion.callback(std::move(completion.answer));
  }
}

void World::pass_time(std::uint64_t ms) {
  now_.wall_ms += ms;
  now_.boot_ms += ms;
}

}  // namespace tensorforge::crashtest
