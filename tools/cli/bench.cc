// tensorforge bench: how fast the service answers, with every answer checked.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <iterator>
#include <random>

#include <asio/io_context.hpp>
#include <fmt/compile.h>
#include <fmt/format.h>

#include "model_table.h"
#include "pipeline.h"
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
  std::uint64_t live{};  ///< versions, blocks or checkpoints that are there before the clock starts
};

constexpr std::uint64_t kMaxClients = 10'000, kMaxDepth = 1'024, kMaxSeconds = 86'400, kMaxKeys = 1'000'000,
                        kMaxLive = 10'000'000;
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
  std::vector<std::pair<std::string, registry::ModelVersion>> models;  ///< that `get` reads
  /// Of `models`, what `get` asks for next; so the memory has brought each when it is its turn.
  std::array<std::uint32_t, 16> picks{};
  std::size_t next_pick{};
  std::uint64_t versions_made{};
  std::mt19937_64 random;

  SteadyClock::time_point end;
  std::uint64_t in_flight{}, operations{}, errors{};
  std::string first_error;
  std::vector<float> latencies_us;
  asio::io_context io{1};

  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(random() % bound); }

  /// The next version: of `keys` models in turn, each with the fields of a row of the table.
  registry::PackedModel next_model() {
    const std::uint64_t number = versions_made++;
    const std::uint64_t key = number % plan.keys;
    registry::ModelView model = table[key % table.size()].view();
    fmt::memory_buffer model_id;
    fmt::format_to(std::back_inserter(model_id), FMT_COMPILE("{}/{}-{}"), prefix, model.model_id, key);
    model.model_id = {model_id.data(), model_id.size()};
    const std::uint64_t release = number / plan.keys;  // 64 bits of it do not fit one of the three numbers
    model.version = {1, static_cast<std::uint32_t>(release >> 32U), static_cast<std::uint32_t>(release)};
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
class Load {
 public:
  Load(Run& run, const Context& context, std::size_t number, Share share)
      : run_(run),
        number_(number),
        blocks_(std::move(share.blocks)),
        blocks_held_(std::max(kBlocksHeld, blocks_.size())),
        steps_(share.steps) {
    client::ClientOptions options;
    options.server = context.server();
    options.actor = context.actor();
    options.program = "tensorforge-bench/" TENSORFORGE_VERSION;
    options.max_in_flight = std::max<std::size_t>(run.plan.depth, 1);
    Result<std::unique_ptr<client::Client>> client = client::Client::start(run.io, std::move(options));
    if (!client.ok()) throw Failure{Exit::WrongUsage, client.status()};
    client_ = *std::move(client);
  }

  void start() {
    for (std::uint64_t i = 0; i < run_.plan.depth; ++i) next(SteadyClock::now());
  }

 private:
  /// A version that was asked for.
  struct Asked {
    SteadyClock::time_point started;
    std::string_view model_id;
    std::string own_id;  ///< what model_id may refer to
    registry::ModelVersion version;
  };

  void next(SteadyClock::time_point now) {
    if (now >= run_.end) return;
    ++run_.in_flight;
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

  template <class Message, class Checker>
  void send(SteadyClock::time_point started, Message message, Checker check) {
    auto on_answer = [this, started, check = std::move(check)](client::Answer answer) {
      finish(started, answer.status, answer.status.ok() && check(answer.reply));
    };
    if constexpr (std::is_same_v<Message, Query>) {
      client_->submit(std::move(message), std::move(on_answer));
    } else {
      client_->submit(Command(std::move(message)), {}, std::move(on_answer));
    }
  }

  void finish(SteadyClock::time_point started, const absl::Status& status, bool good) {
    const SteadyClock::time_point now = SteadyClock::now();
    const std::chrono::duration<float, std::micro> took = now - started;
    --run_.in_flight;
    ++run_.operations;
    run_.latencies_us.push_back(took.count());
    if (!good) {
      ++run_.errors;
      if (run_.first_error.empty()) {
        run_.first_error = status.ok() ? "an answer that does not belong to its request" : describe(status);
      }
    }
    next(now);
    if (run_.in_flight == 0) run_.io.stop();
  }

  void register_model(SteadyClock::time_point now) {
    registry::PackedModel model = run_.next_model();
    Asked& asked = ask(now, model.view().version);
    asked.own_id = model.view().model_id;
    asked.model_id = asked.own_id;
    client_->submit(Command(registry::Command(registry::RegisterModel{std::move(model)})), {}, checker(asked));
  }

  void get(SteadyClock::time_point now) {
    const auto& [model_id, version] = run_.next_to_read();
    Asked& asked = ask(now, version);
    asked.model_id = model_id;
    client_->submit(Query(query::GetModel{model_id, version}), checker(asked));
  }

  Asked& ask(SteadyClock::time_point now, const registry::ModelVersion& version) {
    if (unused_.empty()) unused_.push_back(&asked_.emplace_back());
    Asked& asked = *unused_.back();
    unused_.pop_back();
    asked.started = now;
    asked.version = version;
    return asked;
  }

  /// Compares the answer where it lies: the copies that a client makes of it would be measured too.
  client::ViewCallback checker(Asked& asked) {
    return [this, &asked](const absl::Status& status, const codec::ReplyView* view) {
      const bool good = view != nullptr && view->version && view->version->model_id == asked.model_id &&
                        view->version->version == asked.version;
      unused_.push_back(&asked);
      finish(asked.started, status, good);
    };
  }

  void alloc(SteadyClock::time_point now) {
    gpu_memory::Allocate command = run_.next_block(number_);
    const std::size_t size = command.request.size;
    send(now, gpu_memory::Command(std::move(command)), [this, size](const Reply& reply) {
      const auto* allocated = std::get_if<result::Allocated>(&reply.result);
      if (allocated == nullptr || allocated->actual_size < size || allocated->offset % 256 != 0) return false;
      blocks_.push_back(allocated->block_id);
      return true;
    });
  }

  void free_block(SteadyClock::time_point now) {
    std::swap(blocks_[run_.below(blocks_.size())], blocks_.back());
    gpu_memory::FreeBlock command{run_.device(number_), std::move(blocks_.back())};
    blocks_.pop_back();
    send(now, gpu_memory::Command(std::move(command)),
         [](const Reply& reply) { return std::holds_alternative<result::Done>(reply.result); });
  }

  void begin_checkpoint(SteadyClock::time_point now) {
    const std::uint64_t step = ++steps_;
    send(now, checkpoint::Command(run_.next_checkpoint(number_, step)), [this, step](const Reply& reply) {
      const auto* created = std::get_if<result::Checkpoints>(&reply.result);
      if (created == nullptr || created->checkpoints.size() != 1 || created->checkpoints[0].step != step) return false;
      begun_.push_back(created->checkpoints[0].checkpoint_id);
      return true;
    });
  }

  void complete_checkpoint(SteadyClock::time_point now) {
    checkpoint::CompleteCheckpoint command = completion_of(std::move(begun_.back()));
    begun_.pop_back();
    send(now, checkpoint::Command(std::move(command)), [](const Reply&) { return true; });
  }

  Run& run_;
  std::size_t number_;
  std::deque<Asked> asked_;
  std::vector<Asked*> unused_;  // of asked_
  std::vector<std::string> blocks_, begun_;
  std::size_t blocks_held_;
  std::uint64_t steps_;
  std::unique_ptr<client::Client> client_;
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

void bench(Context& context, const Plan& plan) {
  Run run;
  run.plan = plan;
  run.random.seed(std::random_device{}());
  run.prefix = fmt::format("bench/{:08x}", static_cast<std::uint32_t>(run.random()));
  const Result<std::vector<registry::ModelMetadata>> table = parse_model_table(built_in_model_table());
  if (!table.ok()) throw refusal(table.status());
  run.table.assign(table->begin(), table->end());
  std::vector<Share> shares = SetUp(context, run).make();

  std::vector<std::unique_ptr<Load>> loads;
  for (std::size_t i = 0; i < plan.clients; ++i) {
    loads.push_back(std::make_unique<Load>(run, context, i, std::move(shares[i])));
  }
  const SteadyClock::time_point start = SteadyClock::now();
  run.end = start + std::chrono::seconds(plan.seconds);
  for (const std::unique_ptr<Load>& load : loads) load->start();
  Progress progress("operations:", 0);
  while (run.in_flight > 0) {
    run.io.run_one_for(std::chrono::milliseconds(100));
    while (run.io.poll() > 0) progress.update(run.operations);
    if (run.io.stopped() && run.in_flight > 0) run.io.restart();
  }
  progress.clear();
  const std::chrono::duration<double> took = SteadyClock::now() - start;
  loads.clear();
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
  if (run.errors > 0) {
    throw Failure{Exit::Refused, absl::InternalError(fmt::format("{} of {} answers were wrong; the first: {}",
                                                                 run.errors, run.operations, run.first_error))};
  }
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
  verb.run([plan](Context& context) { bench(context, *plan); });
}

}  // namespace tensorforge::cli
