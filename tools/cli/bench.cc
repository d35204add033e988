// tensorforge bench: how fast the service answers, with every answer checked.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <asio/ip/tcp.hpp>
#include <fmt/format.h>

#include "bench_load.h"
#include "bench_run.h"
#include "bench_set_up.h"
#include "connection.h"
#include "platform/endpoint.h"
#include "program.h"

namespace tensorforge::cli {
namespace {

using namespace bench;

constexpr std::uint64_t kMaxClients = 10'000, kMaxDepth = 1'024, kMaxSeconds = 86'400, kMaxLive = 10'000'000;
constexpr std::chrono::milliseconds kLookInterval{100};  // for connections that are silent

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

std::string what_was_wrong(const Run& run) {
  const std::string first = describe(run.first_error);
  if (run.lost_connections == 0) {
    return fmt::format("{} of {} answers were wrong; the first: {}", run.errors, run.operations, first);
  }
  return fmt::format("{} of {} connections were lost, and {} answers were wrong or did not come; the first: {}",
                     run.lost_connections, run.plan.clients, run.errors, first);
}

void measure(Context& context, const Plan& plan) {
  Run run(plan);
  std::vector<Share> shares = set_up(context.service(), run);
  run.prepare_frames();
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

}  // namespace

void add_bench(CLI::App& app, Program& program) {
  auto plan = std::make_shared<Plan>();
  CLI::App& command = *app.add_subcommand("bench", "Measure the service under load; every answer is checked");
  command.fallthrough()->footer(
      "Example:\n  tensorforge bench --op register --clients 64 --depth 16 --seconds 10 --json");
  Verb verb(command, program);
  verb.value("--op", plan->operation, parse_enumerator<Operation>, "register, get, alloc, checkpoint or mixed")
      ->required();
  verb.value("--clients", plan->clients, parse_count<kMaxClients>, "Connections; default 1");
  verb.value("--depth", plan->depth, parse_count<kMaxDepth>, "Requests that each keeps in flight; default 1");
  verb.value("--seconds", plan->seconds, parse_count<kMaxSeconds>, "How long; default 10");
  verb.value("--keys", plan->keys, parse_count<kMaxKeys>, "Models (or pools, or runs) to spread over; default 1000");
  verb.value("--live", plan->live, parse_count<kMaxLive>,
             "Versions, blocks or checkpoints to make before the clock starts; default 0, to read as many as --keys");
  verb.value("--timeout", plan->timeout_s, parse_count<kMaxSeconds>,
             "Seconds of silence after which a connection is lost, and not made again; default 30");
  verb.run([plan](Context& context) { measure(context, *plan); });
}

}  // namespace tensorforge::cli
