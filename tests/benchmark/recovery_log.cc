// recovery_log DIR EVENTS LIVE: writes a log to measure starts with, or goes on with one, until it has so many events.
//
// The events are 20 % registrations, 20 % transitions, 40 % allocations and frees and 20 % creations and completions of
// checkpoints. Registrations and creations end where there are LIVE entities, of which blocks are at most a quarter;
// then transitions and completions take their place, so that a log can be longer than what it leaves.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <optional>
#include <random>
#include <semaphore>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <openssl/rand.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "service/recover.h"
#include "service/service.h"
#include "service/snapshot.h"
#include "storage/data_directory.h"

namespace tensorforge {
namespace {

using registry::DeploymentState;

constexpr std::size_t kPools = 8, kRuns = 200;
constexpr std::size_t kPoolBytes = std::size_t{1} << 42U;
constexpr registry::ModelVersion kVersion{1, 0, 0};
/// Commands of one group: as many as a busy service gathers.
constexpr std::size_t kGroupCommands = 4'096;

std::uint64_t wall_ms() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count());
}

[[noreturn]] void fail(const absl::Status& status) {
  std::cerr << "recovery_log: " << std::string(status.message()) << '\n';
  std::exit(1);
}

std::string model_id(std::size_t number) { return fmt::format("team/vision/model-{}", number); }
std::string device_id(std::size_t number) { return fmt::format("node{}/GPU-0", number); }

/// The commands, each of which is one event.
class Mix {
 public:
  explicit Mix(std::uint64_t live) : live_(live) {}

  Command next(const service::State& state) {
    for (const unsigned kind : {below(100U), 30U, 50U}) {
      std::optional<SingleCommand> command = of_kind(kind, state);
      if (command) return *std::move(command);
    }
    return registration();
  }
  void learn(const Reply& reply) {
    if (const auto* allocated = std::get_if<result::Allocated>(&reply.result)) {
      blocks_[pool_].push_back(allocated->block_id);
    } else if (const auto* created = std::get_if<result::Checkpoints>(&reply.result)) {
      open_.push_back(created->checkpoints.front().checkpoint_id);
    }
  }
  /// What makes the pools.
  static std::vector<Command> beginning() {
    std::vector<Command> all;
    for (std::size_t i = 0; i < kPools; ++i) {
      all.emplace_back(SingleCommand(gpu_memory::Command(gpu_memory::CreatePool{{device_id(i), kPoolBytes, 0, {}}})));
    }
    return all;
  }
  /// Finds what an earlier run left.
  void find(const service::State& state) {
    while (state.registry.find(model_id(models_), kVersion)) ++models_;
    for (std::size_t i = 0; i < kPools; ++i) {
      for (const auto& block : state.gpu_memory.blocks(device_id(i), 0, ~std::size_t{0})) {
        if (block.status != gpu_memory::BlockStatus::Free) blocks_[i].push_back(block.block_id);
      }
    }
  }

 private:
  std::optional<SingleCommand> of_kind(unsigned kind, const service::State& state) {
    const bool may_grow = service::live_entities(state) < live_;
    if (kind < 20) return may_grow ? std::optional(registration()) : transition(state);
    if (kind < 40) return transition(state);
    if (kind < 80) return allocation_or_free();
    if (kind < 90 && may_grow) return creation();
    return completion();
  }
  SingleCommand registration() {
    registry::ModelMetadata model;
    model.model_id = model_id(models_++);
    model.version = kVersion;
    model.name = "resnet";
    model.framework = "pytorch";
    model.input_shape = {1, 3, 224, 224};
    model.output_shape = {1, 1'000};
    model.size_bytes = 102'540'000;
    model.checksum = "sha256:0123456789abcdef0123456789abcdef";
    model.tags["accuracy_top1"] = "80.858";
    return registry::Command(registry::RegisterModel{model});
  }
  /// There and back again, which a lifecycle allows for ever.
  std::optional<SingleCommand> transition(const service::State& state) {
    if (models_ == 0) return std::nullopt;
    const std::string id = model_id(below(models_));
    const bool is_new = state.registry.find(id, kVersion)->state == DeploymentState::Registered;
    return registry::Command(
        registry::TransitionState{id, kVersion, is_new ? DeploymentState::Validating : DeploymentState::Registered});
  }
  SingleCommand allocation_or_free() {
    pool_ = below(kPools);
    std::vector<std::string>& blocks = blocks_[pool_];
    if (blocks.size() >= live_ / 4 / kPools || (!blocks.empty() && below(2U) == 0)) {
      std::swap(blocks[below(blocks.size())], blocks.back());
      std::string block = std::move(blocks.back());
      blocks.pop_back();
      return gpu_memory::Command(gpu_memory::FreeBlock{device_id(pool_), std::move(block)});
    }
    const std::size_t size = std::size_t{512} << below(16U);
    return gpu_memory::Command(gpu_memory::Allocate{device_id(pool_), {"layer.0/weight", size, 512, false, 0}});
  }
  SingleCommand creation() {
    checkpoint::CreateCheckpointRequest request;
    request.training_run_id = fmt::format("llm/run-{}", below(kRuns));
    request.step = ++step_;
    request.metrics["loss"] = 0.25;
    return checkpoint::Command(checkpoint::CreateCheckpoint{std::move(request)});
  }
  std::optional<SingleCommand> completion() {
    if (open_.empty()) return std::nullopt;
    std::string id = std::move(open_.front());
    open_.pop_front();
    return checkpoint::Command(checkpoint::CompleteCheckpoint{std::move(id), 7'000'000, "s3://bucket/llm/run/step"});
  }

  template <class Number>
  Number below(Number bound) {
    return std::uniform_int_distribution<Number>(0, bound - 1)(random_);
  }

  const std::uint64_t live_;
  std::mt19937_64 random_{2026};
  std::size_t models_{}, pool_{};
  std::uint64_t step_{};
  std::vector<std::string> blocks_[kPools];
  std::deque<std::string> open_;  ///< checkpoints, to be completed
};

class Writer {
 public:
  Writer(storage::OpenedDirectory& directory, std::uint64_t live) : journal_(*directory.journal), mix_(live) {
    Result<service::State> state = service::recover(journal_);
    if (!state.ok()) fail(state.status());
    journal_.start(
        {[this](Sequence, std::size_t) { synced_.release(); }, {}, [](const absl::Status& why) { fail(why); }});
    if (directory.to_start) {
      submit(service::start_incarnation(*state, directory.to_start->cause, journal_.durable_head().root,
                                        directory.to_start->incarnation, now_.wall_ms));
    }
    mix_.find(*state);
    service_.emplace(
        service::Config{}, *std::move(state),
        [](std::span<std::uint8_t> bytes) { RAND_bytes(bytes.data(), static_cast<int>(bytes.size())); }, now_);
    RAND_bytes(caller_.session.data(), static_cast<int>(caller_.session.size()));
    caller_.actor = "recovery_log";
    caller_.opened_at = service_->state().sequence;
  }

  void write(std::uint64_t events) {
    if (service_->state().gpu_memory.pool_count() == 0) {
      for (Command& command : Mix::beginning()) run(std::move(command));
    }
    for (std::size_t commands = 1; service_->state().sequence < events; ++commands) {
      run(mix_.next(service_->state()));
      if (commands % kGroupCommands == 0) flush();
    }
    service_->note_digest_at_end();
    flush();
  }
  const service::State& state() const { return service_->state(); }

 private:
  void run(Command command) {
    Request request;
    request.command_number = request.answered_below = ++number_;
    now_.wall_ms += 1;
    now_.boot_ms += 1;
    service_->on_tick(now_);
    const service::Service::Outcome outcome = service_->execute(caller_, request, std::move(command));
    if (!outcome.reply.status.ok()) fail(outcome.reply.status);
    mix_.learn(outcome.reply);
  }
  void flush() {
    while (auto group = service_->take_group()) submit(*std::move(group));
  }
  void submit(storage::Group group) {
    journal_.submit(std::move(group));
    synced_.acquire();
  }

  storage::Journal& journal_;
  std::counting_semaphore<> synced_{0};
  Mix mix_;
  service::Now now_{wall_ms(), 1'000};
  service::Caller caller_;
  std::uint64_t number_{};
  std::optional<service::Service> service_;
};

int run(const std::string& data_dir, std::uint64_t events, std::uint64_t live) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("recovery_log"));  // standard output is for the result
  storage::OpenOptions options;
  options.data_dir = data_dir;
  Result<storage::OpenedDirectory> directory = storage::open_data_directory(options);
  if (!directory.ok()) fail(directory.status());
  {
    Writer writer(*directory, live);
    writer.write(events);
    fmt::print("{{\"events\": {}, \"live_entities\": {}, \"state_digest\": \"{}\"}}\n", writer.state().sequence,
               service::live_entities(writer.state()), format_digest(writer.state().digest()));
    if (const absl::Status closed = directory->journal->close(); !closed.ok()) fail(closed);
  }
  return 0;
}

}  // namespace
}  // namespace tensorforge

int main(int argc, char** argv) {
  if (const auto exit_code = tensorforge::storage::run_log_check_if_asked(argc, argv)) return *exit_code;
  if (argc != 4) {
    std::cerr << "usage: recovery_log DIR EVENTS LIVE\n";
    return 2;
  }
  return tensorforge::run(argv[1], std::strtoull(argv[2], nullptr, 10), std::strtoull(argv[3], nullptr, 10));
}
