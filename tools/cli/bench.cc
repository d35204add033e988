// tensorforge bench: how fast the service answers, with every answer checked.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <iterator>
#include <optional>
#include <random>
#include <span>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <fmt/compile.h>
#include <fmt/format.h>

#include "codec/version_request_frame.h"
#include "load_connection.h"
#include "model_table.h"
#include "pipeline.h"
#include "platform/endpoint.h"
#include "platform/prefetch.h"
#include "program.h"

namespace tensorforge::cli {
namespace {

using SteadyClock = std::chrono::steady_clock;

enum class Operation { Register, Get, Alloc, Checkpoint, Mixed };
std::string_view to_string(Operation operation) {
  switch (operation) {
    case Operation::Register:
      return "register";
    case Operation::Get:
      return "get";
    case Operation::Alloc:
      return "alloc";
    case Operation::Checkpoint:
      return "checkpoint";
    case Operation::Mixed:
      return "mixed";
  }
  return "?";
}

struct Plan {
  Operation operation{};
  std::uint64_t clients{1}, depth{1}, seconds{10}, keys{1'000};
  std::uint64_t live{};         ///< versions, blocks or checkpoints that are there before the clock starts
  std::uint64_t timeout_s{30};  ///< a connection that is silent for so long, with requests in flight, is lost
};

constexpr std::uint64_t kMaxClients = 10'000, kMaxDepth = 1'024, kMaxSeconds = 86'400, kMaxKeys = 1'000'000,
                        kMaxLive = 10'000'000;
static_assert(kMaxKeys <= 1'000'000, "a key has six digits in an id");
constexpr std::chrono::milliseconds kLookInterval{100};  // for connections that are silent
constexpr std::size_t kSetUpWindow = 512;
constexpr std::size_t kBlocksHeld = 64;  // by one connection
constexpr std::size_t kTensors = 4'096;  // whose blocks they are
constexpr std::uint64_t kMaxBlockBytes = std::uint64_t{4} << 20U;
constexpr std::uint64_t kPoolBytes = std::uint64_t{1} << 40U;

/// What all connections share. One thread.
struct Run {
  Plan plan;
  std::string prefix;  ///< of everything that this run makes: nothing is met twice
  std::vector<registry::PackedModel> table;
  std::vector<std::string> id_starts;                     ///< of the models of each row, up to the number of the key
  std::vector<codec::VersionRequestFrame> registrations;  ///< one for each row of `table`
  std::vector<std::pair<std::string, registry::ModelVersion>> models;  ///< that `get` reads
  std::vector<std::optional<codec::VersionRequestFrame>> gets;         ///< by the bytes of the id
  /// Of `models`, what `get` asks for next; so the memory has brought each when it is its turn.
  std::array<std::uint32_t, 16> picks{};
  std::size_t next_pick{};
  std::uint64_t versions_made{};
  std::mt19937_64 random;

  SteadyClock::time_point end;
  SteadyClock::time_point last_answer;
  std::uint64_t connections{};  ///< that are not done
  std::uint64_t lost_connections{};
  absl::Status first_loss;
  std::uint64_t operations{};  ///< that were answered
  std::uint64_t errors{};      ///< answers that are wrong, and those that will not come
  absl::Status first_error;
  std::vector<float> latencies_us;
  asio::io_context io{1};

  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(random() % bound); }

  using IdBuffer = fmt::basic_memory_buffer<char, 128>;
  /// The ids of a row's models are equally long.
  IdBuffer model_id(std::size_t row, std::uint64_t key) const {
    IdBuffer id;
    fmt::format_to(std::back_inserter(id), FMT_COMPILE("{}{:06}"), id_starts[row], key);
    return id;
  }
  struct NextVersion {
    std::size_t row{};  ///< of the table: the fields that it gets
    IdBuffer model_id;
    registry::ModelVersion version;
    std::string_view id() const { return {model_id.data(), model_id.size()}; }
  };
  /// The next version to make, of `keys` models in turn.
  NextVersion next_version() {
    const std::uint64_t number = versions_made++;
    const std::uint64_t key = number % plan.keys;
    const std::uint64_t release = number / plan.keys;  // 64 bits of it do not fit one of the three numbers
    const std::size_t row = key % table.size();
    return {
        row, model_id(row, key), {1, static_cast<std::uint32_t>(release >> 32U), static_cast<std::uint32_t>(release)}};
  }
  registry::PackedModel next_model() {
    const NextVersion next = next_version();
    registry::ModelView model = table[next.row].view();
    model.model_id = next.id();
    model.version = next.version;
    return registry::PackedModel(model);
  }
  /// A random one of `models`.
  const std::pair<std::string, registry::ModelVersion>& next_to_read() {
    const auto& next = models[picks[next_pick]];
    picks[next_pick] = static_cast<std::uint32_t>(below(models.size()));
    prefetch_object(&models[picks[next_pick]]);
    next_pick = (next_pick + 1) % picks.size();
    prefetch_bytes(models[picks[(next_pick + picks.size() / 2) % picks.size()]].first.data(), kCacheLineBytes);
    return next;
  }
  gpu_memory::Allocate next_block(std::size_t client) {
    return {device(client), {fmt::format("layer{}", below(kTensors)), 1 + below(kMaxBlockBytes), 256, false, 0}};
  }
  checkpoint::CreateCheckpoint next_checkpoint(std::size_t client, std::uint64_t step) const {
    checkpoint::CreateCheckpointRequest request;
    request.training_run_id = fmt::format("{}/run{}", prefix, client % plan.keys);
    request.step = step;
    request.epoch = static_cast<std::uint32_t>(step / 1'000);
    request.metrics["loss"] = 1.0 / static_cast<double>(step);
    return {std::move(request)};
  }
  std::string device(std::size_t client) const { return fmt::format("{}/gpu{}", prefix, client % plan.keys); }
};

checkpoint::CompleteCheckpoint completion_of(std::string checkpoint_id) {
  return {std::move(checkpoint_id), 1 << 20U, "bench://checkpoint"};
}

/// What one connection has of what is there before the clock starts.
struct Share {
  std::vector<std::string> blocks;
  std::uint64_t steps{};  ///< of its training run, which others may share
};

/// One connection: keeps `depth` requests in flight until the time is over.
class Load final : public LoadConnection::User {
 public:
  Load(Run& run, std::size_t number, Share share)
      : run_(run),
        number_(number),
        asked_(run.plan.depth),
        blocks_(std::move(share.blocks)),
        blocks_held_(std::max(kBlocksHeld, blocks_.size())),
        steps_(share.steps),
        connection_(run.io, *this) {
    ++run_.connections;
  }

  void start(const std::string& service, const std::vector<asio::ip::tcp::endpoint>& endpoints,
             const std::string& actor) {
    last_frame_ = SteadyClock::now();
    const Result<SessionId> session = client::new_session();
    if (!session.ok()) throw refusal(session.status());
    Hello hello;
    hello.session = *session;
    hello.actor = actor;
    hello.client = "tensorforge-bench/" TENSORFORGE_VERSION;
    connection_.connect(service, endpoints, hello);
  }

  void look(SteadyClock::time_point now) {
    const std::chrono::seconds timeout(run_.plan.timeout_s);
    if (now - last_frame_ < timeout) return;
    on_lost(absl::DeadlineExceededError(fmt::format("a connection was silent for {} s", timeout.count())));
  }

  /// Each request that is in flight is an error, and where none is the loss.
  void on_lost(const absl::Status& why) override {
    if (done_) return;
    connection_.close();
    if (run_.lost_connections++ == 0) run_.first_loss = why;
    note_errors(std::max<std::uint64_t>(in_flight(), 1), why);
    finish();
  }

  void on_frame(std::span<const std::byte> frame, LoadConnection::Time arrived) override {
    last_frame_ = arrived;
    if (!greeted_) {
      on_welcome(frame);
      for (std::uint64_t i = 0; i < run_.plan.depth && !done_; ++i) next(arrived);
      return;
    }
    if (done_) return;  // nobody asked
    Asked& asked = asked_[answered_++ % asked_.size()];
    if (asked.is_command) ++answered_commands_;
    const std::chrono::duration<float, std::micro> took = arrived - asked.started;
    ++run_.operations;
    run_.last_answer = arrived;
    run_.latencies_us.push_back(took.count());
    if (!(asked.check ? is_good(asked, frame) : names_version(asked, frame))) {
      note_errors(1, problem_in(frame, "an answer that does not belong to its request"));
    }
    next(arrived);
  }

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

  void on_welcome(std::span<const std::byte> frame) {
    const Result<ServerMessage> message = codec::decode_server_frame(frame);
    greeted_ = message.ok() && std::holds_alternative<Welcome>(*message);
    if (!greeted_) on_lost(problem_in(frame, "the service did not answer the hello"));
  }

  /// Of an answer that is not what it should be: why the service refused, or `else_what`.
  static absl::Status problem_in(std::span<const std::byte> frame, std::string_view else_what) {
    const Result<ServerMessage> message = codec::decode_server_frame(frame);
    if (!message.ok()) return message.status();
    const auto* reply = std::get_if<Reply>(&*message);
    return reply == nullptr || reply->status.ok() ? absl::InternalError(std::string(else_what)) : reply->status;
  }

  void note_errors(std::uint64_t count, const absl::Status& what) {
    run_.errors += count;
    if (run_.first_error.ok()) run_.first_error = what;
  }

  void finish() {
    done_ = true;
    --run_.connections;
  }

  void next(LoadConnection::Time now) {
    if (now >= run_.end) {
      if (in_flight() == 0 && !done_) finish();
      return;
    }
    Operation operation = run_.plan.operation;
    if (operation == Operation::Mixed) {  // half of them read
      constexpr std::array kChoices{Operation::Get,      Operation::Get,   Operation::Get,   Operation::Get,
                                    Operation::Register, Operation::Alloc, Operation::Alloc, Operation::Checkpoint};
      operation = kChoices[run_.below(kChoices.size())];
    }
    switch (operation) {
      case Operation::Register:
        return register_model(now);
      case Operation::Get:
        return get(now);
      case Operation::Alloc:
        return blocks_.size() >= blocks_held_ || (!blocks_.empty() && run_.below(2) == 0) ? free_block(now)
                                                                                          : alloc(now);
      case Operation::Checkpoint:
        return begun_.empty() ? begin_checkpoint(now) : complete_checkpoint(now);
      case Operation::Mixed:
        break;
    }
  }

  Asked& ask(LoadConnection::Time now, bool is_command) {
    Asked& asked = asked_[sent_++ % asked_.size()];
    asked.started = now;
    asked.is_command = is_command;
    asked.check = nullptr;
    if (is_command) ++sent_commands_;
    return asked;
  }

  void send(Asked& asked, codec::VersionRequestFrame& frame) {
    frame.set_version(asked.model_id, asked.version);
    frame.set_numbers(sent_, sent_commands_, answered_commands_ + 1);
    connection_.output().append(frame.bytes());
  }

  void register_model(LoadConnection::Time now) {
    const Run::NextVersion next = run_.next_version();
    Asked& asked = ask(now, true);
    asked.own_id = next.id();
    asked.model_id = asked.own_id;
    asked.version = next.version;
    send(asked, run_.registrations[next.row]);
  }

  void get(LoadConnection::Time now) {
    const auto& [model_id, version] = run_.next_to_read();
    Asked& asked = ask(now, false);
    asked.model_id = model_id;
    asked.version = version;
    send(asked, *run_.gets[model_id.size()]);
  }

  /// Compares the answer where it lies: the copies that a client makes of it would be measured too.
  bool names_version(const Asked& asked, std::span<const std::byte> frame) const {
    const auto reply = codec::view_reply(frame);
    if (!reply.ok() || !*reply) return false;
    const codec::ReplyView& view = **reply;
    return view.correlation_id == answered_ && view.code == absl::StatusCode::kOk && view.version &&
           view.version->model_id == asked.model_id && view.version->version == asked.version;
  }

  void send_command(LoadConnection::Time now, SingleCommand command, std::function<bool(const Reply&)> check) {
    Asked& asked = ask(now, true);
    asked.check = std::move(check);
    Request request;
    request.correlation_id = sent_;
    request.command_number = sent_commands_;
    request.answered_below = answered_commands_ + 1;
    request.body = Command(std::move(command));
    const absl::Status encoded = codec::append_client_frame(request, connection_.output());
    if (!encoded.ok()) throw refusal(encoded);
  }

  bool is_good(const Asked& asked, std::span<const std::byte> frame) const {
    const Result<ServerMessage> message = codec::decode_server_frame(frame);
    if (!message.ok()) return false;
    const auto* reply = std::get_if<Reply>(&*message);
    return reply != nullptr && reply->correlation_id == answered_ && reply->status.ok() && asked.check(*reply);
  }

  void alloc(LoadConnection::Time now) {
    gpu_memory::Allocate command = run_.next_block(number_);
    const std::size_t size = command.request.size;
    send_command(now, gpu_memory::Command(std::move(command)), [this, size](const Reply& reply) {
      const auto* allocated = std::get_if<result::Allocated>(&reply.result);
      if (allocated == nullptr || allocated->actual_size < size || allocated->offset % 256 != 0) return false;
      blocks_.push_back(allocated->block_id);
      return true;
    });
  }

  void free_block(LoadConnection::Time now) {
    std::swap(blocks_[run_.below(blocks_.size())], blocks_.back());
    gpu_memory::FreeBlock command{run_.device(number_), std::move(blocks_.back())};
    blocks_.pop_back();
    send_command(now, gpu_memory::Command(std::move(command)),
                 [](const Reply& reply) { return std::holds_alternative<result::Done>(reply.result); });
  }

  void begin_checkpoint(LoadConnection::Time now) {
    const std::uint64_t step = ++steps_;
    send_command(now, checkpoint::Command(run_.next_checkpoint(number_, step)), [this, step](const Reply& reply) {
      const auto* created = std::get_if<result::Checkpoints>(&reply.result);
      if (created == nullptr || created->checkpoints.size() != 1 || created->checkpoints[0].step != step) return false;
      begun_.push_back(created->checkpoints[0].checkpoint_id);
      return true;
    });
  }

  void complete_checkpoint(LoadConnection::Time now) {
    checkpoint::CompleteCheckpoint command = completion_of(std::move(begun_.back()));
    begun_.pop_back();
    send_command(now, checkpoint::Command(std::move(command)), [](const Reply&) { return true; });
  }

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

bool uses(Operation plan, Operation operation) { return plan == operation || plan == Operation::Mixed; }

/// Makes what is to be there before the clock starts. One thread, many requests in flight.
class SetUp {
 public:
  SetUp(Context& context, Run& run)
      : service_(context.service()), run_(run), pipeline_(service_.client(), kSetUpWindow), shares_(run.plan.clients) {}

  /// Each connection's share of it.
  std::vector<Share> make() {
    const Plan& plan = run_.plan;
    if (uses(plan.operation, Operation::Alloc)) make_pools();
    switch (plan.operation) {
      case Operation::Register:
        make_models(plan.live, "registered models:");
        break;
      case Operation::Get:
      case Operation::Mixed:
        find_models(std::max(plan.live, plan.keys));
        make_models(std::max(plan.live, plan.keys) - run_.models.size(), "registered models to read:");
        break;
      case Operation::Alloc:
        make_blocks();
        break;
      case Operation::Checkpoint:
        make_checkpoints();
        break;
    }
    pipeline_.drain();
    return std::move(shares_);
  }

 private:
  std::uint64_t pool_count() const { return std::min(run_.plan.clients, run_.plan.keys); }

  void make_pools() {
    const std::uint64_t bytes = std::max(kPoolBytes, run_.plan.live / pool_count() * kMaxBlockBytes);
    for (std::size_t i = 0; i < pool_count(); ++i) {
      service_.change(gpu_memory::CreatePool{{run_.device(i), bytes, 0, {}}}, {"bench", {}});
    }
  }

  void find_models(std::uint64_t wanted) {
    each_page(service_, query::ListModels{}, wanted, [&](Reply reply) {
      for (registry::ModelMetadata& model : Connection::result_as<result::Models>(std::move(reply)).models) {
        if (run_.models.size() < wanted) run_.models.emplace_back(std::move(model.model_id), model.version);
      }
      return run_.models.size() < wanted;
    });
  }

  void make_models(std::uint64_t count, const char* what) {
    Progress progress(what, count);
    for (std::uint64_t i = 0; i < count; ++i) {
      registry::PackedModel model = run_.next_model();
      if (run_.plan.operation != Operation::Register) {
        run_.models.emplace_back(model.view().model_id, model.view().version);
      }
      submit(registry::Command(registry::RegisterModel{std::move(model)}), [](const Reply&) {});
      progress.update(i);
    }
  }

  void make_blocks() {
    Progress progress("allocated blocks:", run_.plan.live);
    for (std::uint64_t i = 0; i < run_.plan.live; ++i) {
      const std::size_t client = i % shares_.size();
      submit(gpu_memory::Command(run_.next_block(client)), [this, client](const Reply& reply) {
        shares_[client].blocks.push_back(std::get<result::Allocated>(reply.result).block_id);
      });
      progress.update(i);
    }
  }

  void make_checkpoints() {
    Progress progress("created checkpoints:", run_.plan.live);
    for (std::uint64_t i = 0; i < run_.plan.live; ++i) {
      const std::size_t client = i % shares_.size();
      const std::uint64_t step = ++shares_[client].steps;
      submit(checkpoint::Command(run_.next_checkpoint(client, step)), [this](const Reply& reply) {
        created_.push_back(std::get<result::Checkpoints>(reply.result).checkpoints.at(0).checkpoint_id);
      });
      complete_created();
      progress.update(i);
    }
    pipeline_.drain();
    complete_created();
  }

  void complete_created() {
    for (std::string& id : std::exchange(created_, {})) {
      submit(checkpoint::Command(completion_of(std::move(id))), [](const Reply&) {});
    }
  }

  template <class Handler>
  void submit(SingleCommand command, Handler handler) {
    pipeline_.submit(std::move(command), {{}, "bench"}, [handler = std::move(handler)](const client::Answer& answer) {
      if (!answer.status.ok()) throw refusal(answer.status);
      handler(answer.reply);
    });
  }

  Connection& service_;
  Run& run_;
  Pipeline pipeline_;
  std::vector<Share> shares_;
  std::vector<std::string> created_;
};

double percentile(std::vector<float>& latencies_us, double p) {
  if (latencies_us.empty()) return 0;
  const auto rank = static_cast<std::ptrdiff_t>(p / 100 * static_cast<double>(latencies_us.size() - 1));
  std::nth_element(latencies_us.begin(), latencies_us.begin() + rank, latencies_us.end());
  return std::round(static_cast<double>(latencies_us[static_cast<std::size_t>(rank)]) * 10) / 10;
}

std::vector<asio::ip::tcp::endpoint> resolve(asio::io_context& io, const std::string& server) {
  const Result<Endpoint> endpoint = parse_endpoint(server);
  if (!endpoint.ok()) throw Failure{Exit::WrongUsage, endpoint.status()};
  std::error_code error;
  asio::ip::tcp::resolver resolver(io);
  const auto found = resolver.resolve(endpoint->host, std::to_string(endpoint->port), error);
  if (error) throw refusal(absl::UnavailableError(fmt::format("{}: {}", server, error.message())));
  return {found.begin(), found.end()};
}

/// Encodes what will be sent, all but the version that it is about.
void prepare_frames(Run& run) {
  const auto frame_of = [](auto request) {
    Result<codec::VersionRequestFrame> frame = codec::VersionRequestFrame::make(std::move(request));
    if (!frame.ok()) throw refusal(frame.status());
    return *std::move(frame);
  };
  for (std::size_t row = 0; row < run.table.size(); ++row) {
    registry::ModelView model = run.table[row].view();
    const Run::IdBuffer model_id = run.model_id(row, 0);
    model.model_id = {model_id.data(), model_id.size()};
    run.registrations.push_back(frame_of(registry::RegisterModel{registry::PackedModel(model)}));
  }
  for (const auto& [model_id, version] : run.models) {
    run.gets.resize(std::max(run.gets.size(), model_id.size() + 1));
    std::optional<codec::VersionRequestFrame>& frame = run.gets[model_id.size()];
    if (!frame) frame = frame_of(query::GetModel{model_id, version});
  }
}

std::string what_was_wrong(const Run& run) {
  const std::string first = describe(run.first_error);
  if (run.lost_connections == 0) {
    return fmt::format("{} of {} answers were wrong; the first: {}", run.errors, run.operations, first);
  }
  return fmt::format("{} of {} connections were lost, and {} answers were wrong or did not come; the first: {}",
                     run.lost_connections, run.plan.clients, run.errors, first);
}

void bench(Context& context, const Plan& plan) {
  Run run;
  run.plan = plan;
  run.random.seed(std::random_device{}());
  run.prefix = fmt::format("bench/{:08x}", static_cast<std::uint32_t>(run.random()));
  const Result<std::vector<registry::ModelMetadata>> table = parse_model_table(built_in_model_table());
  if (!table.ok()) throw refusal(table.status());
  run.table.assign(table->begin(), table->end());
  for (const registry::ModelMetadata& row : *table) {
    run.id_starts.push_back(fmt::format("{}/{}-", run.prefix, row.model_id));
  }
  std::vector<Share> shares = SetUp(context, run).make();
  prepare_frames(run);
  const std::vector<asio::ip::tcp::endpoint> endpoints = resolve(run.io, context.server());

  std::vector<std::unique_ptr<Load>> loads;
  for (std::size_t i = 0; i < plan.clients; ++i) {
    loads.push_back(std::make_unique<Load>(run, i, std::move(shares[i])));
  }
  const SteadyClock::time_point start = SteadyClock::now();
  run.end = start + std::chrono::seconds(plan.seconds);
  for (const std::unique_ptr<Load>& load : loads) load->start(context.server(), endpoints, context.actor());
  Progress progress("operations:", 0);
  run.last_answer = start;
  for (SteadyClock::time_point look_at = start; run.connections > 0;) {
    if (run.io.poll() == 0) run.io.run_one_for(kLookInterval);
    progress.update(run.operations);
    const SteadyClock::time_point now = SteadyClock::now();
    if (now < look_at) continue;
    look_at = now + kLookInterval;
    for (const std::unique_ptr<Load>& load : loads) load->look(now);
  }
  progress.clear();
  const std::chrono::duration<double> took = std::max(run.last_answer, run.end) - start;
  loads.clear();
  if (run.lost_connections == plan.clients) throw refusal(run.first_loss);
  const auto status = Connection::result_as<result::Status>(context.service().ask(query::GetStatus{}));

  context.out().object({{"op", std::string(to_string(plan.operation))},
                        {"clients", plan.clients},
                        {"depth", plan.depth},
                        {"keys", plan.keys},
                        {"live", plan.live},
                        {"operations", run.operations},
                        {"errors", run.errors},
                        {"ops_per_second", std::round(static_cast<double>(run.operations) / took.count())},
                        {"p50_us", percentile(run.latencies_us, 50)},
                        {"p99_us", percentile(run.latencies_us, 99)},
                        {"p999_us", percentile(run.latencies_us, 99.9)},
                        {"seconds", took.count()},
                        {"group_commit_p50_us", status.group_commit_p50_us},
                        {"group_commit_p99_us", status.group_commit_p99_us}});
  if (run.errors > 0) throw Failure{Exit::Refused, absl::InternalError(what_was_wrong(run))};
}

/// A whole number in [1, largest].
template <std::uint64_t largest>
Result<std::uint64_t> parse_count(std::string_view text) {
  const Result<std::uint64_t> value = parse_whole(text);
  if (!value.ok()) return value.status();
  if (*value >= 1 && *value <= largest) return *value;
  return absl::InvalidArgumentError(fmt::format("{} is not from 1 to {}", *value, largest));
}

Result<Operation> parse_operation(std::string_view text) {
  const Result<std::size_t> place = parse_name(text, {"register", "get", "alloc", "checkpoint", "mixed"});
  if (!place.ok()) return place.status();
  return static_cast<Operation>(*place);
}

}  // namespace

void add_bench(CLI::App& app, Program& program) {
  auto plan = std::make_shared<Plan>();
  CLI::App& command = *app.add_subcommand("bench", "Measure the service under load; every answer is checked");
  command.fallthrough()->footer(
      "Example:\n  tensorforge bench --op register --clients 64 --depth 16 --seconds 10 --json");
  Verb verb(command, program);
  verb.value("--op", plan->operation, parse_operation, "register, get, alloc, checkpoint or mixed")->required();
  verb.value("--clients", plan->clients, parse_count<kMaxClients>, "Connections; default 1");
  verb.value("--depth", plan->depth, parse_count<kMaxDepth>, "Requests that each keeps in flight; default 1");
  verb.value("--seconds", plan->seconds, parse_count<kMaxSeconds>, "How long; default 10");
  verb.value("--keys", plan->keys, parse_count<kMaxKeys>, "Models (or pools, or runs) to spread over; default 1000");
  verb.value("--live", plan->live, parse_count<kMaxLive>,
             "Versions, blocks or checkpoints to make before the clock starts; default 0, to read as many as --keys");
  verb.value("--timeout", plan->timeout_s, parse_count<kMaxSeconds>,
             "Seconds of silence after which a connection is lost, and not made again; default 30");
  verb.run([plan](Context& context) { bench(context, *plan); });
}

}  // namespace tensorforge::cli
