// tensorforged: makes the parts and joins them.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <variant>

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "server/config.h"
#include "server/heap_ahead.h"
#include "server/server.h"
#include "server/system.h"
#include "service/recover.h"
#include "service/start.h"
#include "storage/crash_point.h"
#include "storage/data_directory.h"

namespace tensorforge {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStopped = 0, kWrongUsage = 1, kLogDamaged = 2, kDiskFailed = 3;

std::string text(const absl::Status& status) { return std::string(status.message()); }

std::optional<std::string> environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

void start_logging(const std::string& level) {
  const auto logger = spdlog::stderr_logger_mt("tensorforged");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(logger);
}

/// Tells now and then how far the recovery is, so that a long start does not look like a dead one.
class ProgressLog {
 public:
  explicit ProgressLog(const char* doing) : doing_(doing) {}
  bool operator()(Sequence done, Sequence end) {
    if (Clock::now() - last_ >= std::chrono::seconds(3)) {
      last_ = Clock::now();
      spdlog::info("{}: {} of {} events", doing_, done, end);
    }
    return !server::stop_asked();
  }

 private:
  const char* doing_;
  Clock::time_point last_{Clock::now()};
};

int exit_code_of_recovery(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnimplemented:  // a newer version wrote it
      return kWrongUsage;
    case absl::StatusCode::kUnavailable:
      return kDiskFailed;
    default:
      return kLogDamaged;
  }
}

/// Whole or not at all: a script that waits for the file never reads half a number.
absl::Status write_port_file(const std::string& path, std::uint16_t port) {
  const std::string unfinished = path + ".new";
  std::ofstream file(unfinished);
  file << port << '\n';
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(unfinished, path, error);
  if (file && !error) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("cannot write --port-file {}: {}", path, error ? error.message() : std::string("no such place")));
}

int fail(int exit_code, const absl::Status& status) {
  spdlog::error("{}", text(status));
  return exit_code;
}

int stopped_before_serving() {
  spdlog::info("stopped before it was ready");
  return kStopped;
}

int serve(const server::Config& config) {
  const Clock::time_point begin = Clock::now();
  Result<server::Listener> listener = server::Listener::bind(config.listen);
  if (!listener.ok()) return fail(kWrongUsage, listener.status());

  storage::OpenOptions open;
  open.data_dir = config.data_dir;
  open.ack = config.ack == "wal" ? storage::Ack::kWal : storage::Ack::kAnchor;
  open.accept_loss = config.accept_loss;
  open.cancelled = server::stop_asked;
  open.checking = ProgressLog("checking the log");
  service::Start start;
  start.attach(open);
  Result<storage::OpenedDirectory> directory = storage::open_data_directory(open);
  if (absl::IsCancelled(directory.status())) return stopped_before_serving();
  if (!directory.ok()) return fail(storage::exit_code(directory.status()), directory.status());
  storage::Journal& journal = *directory->journal;

  if (const Sequence snapshot = directory->snapshot.sequence(); snapshot > 0) {
    spdlog::info("snapshot {} is loaded; the log goes on to {}", snapshot, journal.durable_head().sequence);
  }
  service::ReplayOptions replay;
  replay.progress = ProgressLog("replaying the log");
  replay.on_contradiction = [](const service::Contradiction& found) {
    spdlog::error("the state that was served at sequence {} is not the one that the log gives, which counts",
                  found.noted.sequence);
  };
  Result<service::State> state = start.finish(*directory, replay);
  if (absl::IsCancelled(state.status())) {
    const absl::Status closed = journal.close();
    return closed.ok() ? stopped_before_serving() : fail(kDiskFailed, closed);
  }
  if (!state.ok()) return fail(exit_code_of_recovery(state.status()), state.status());
  storage::crash_point(storage::CrashPoint::kReplayed);
  const auto recovered = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count();

  const Endpoint endpoint = listener->endpoint();
  absl::Status port_file;
  server::Server* running = nullptr;
  server::Server::Options options;
  options.protocol = config.protocol;
  options.service = config.service;
  options.identity = {journal.log_id(), std::string(server::version()), config.ack, server::read_clocks().wall_ms};
  options.to_start = directory->to_start;
  options.unverified_until = directory->snapshot;
  options.snapshots =
      server::SnapshotOptions{storage::SnapshotStore(nullptr, config.data_dir), config.snapshot_events,
                              config.memory_limit_bytes, config.service.reserve_bytes, directory->snapshot.sequence()};
  options.on_ready = [&] {
    if (server::stop_asked()) return running->stop();  // it came before the server listened for it
    if (!config.port_file.empty()) port_file = write_port_file(config.port_file, endpoint.port);
    if (!port_file.ok()) return running->stop();
    fmt::print("ready on {}, {} events, recovered in {} ms\n", format_endpoint(endpoint),
               journal.durable_head().sequence, recovered);
    std::fflush(stdout);
  };
  server::Server service(std::move(options), *std::move(listener), journal, *std::move(state));
  running = &service;
  const int exit_code = service.run();
  // After a failed write nothing may be written any more, and closing the database would try, or be ended by an
  // assertion of the library that nothing failed.
  if (exit_code != kStopped) std::_Exit(exit_code);

  storage::crash_point(storage::CrashPoint::kStopDrained);
  const absl::Status closed = journal.close();
  storage::crash_point(storage::CrashPoint::kStopClosed);
  if (!closed.ok()) return fail(kDiskFailed, closed);
  if (!port_file.ok()) return fail(kWrongUsage, port_file);
  spdlog::info("stopped at sequence {}", journal.durable_head().sequence);
  return kStopped;
}

int run(int argc, char** argv) {
  const auto config = server::read_config(argc, argv, environment);
  if (!config.ok()) {
    fmt::print(stderr, "tensorforged: {}\n", text(config.status()));
    return kWrongUsage;
  }
  if (const auto* print = std::get_if<server::PrintAndExit>(&*config)) {
    fmt::print("{}", print->text);
    return kStopped;
  }
  start_logging(std::get<server::Config>(*config).log_level);
  if (const auto point = environment(storage::kCrashPointVariable)) {
    const absl::Status armed = storage::arm_crash_point(*point);
    if (!armed.ok()) return fail(kWrongUsage, armed);
    spdlog::warn("armed by a crash tester, to end at {}", *point);
  }
  server::hold_signals();
  const server::HeapAhead heap;
  return serve(std::get<server::Config>(*config));
}

}  // namespace
}  // namespace tensorforge

int main(int argc, char** argv) {
  // Opening a directory checks its log in a child process, which is this program again.
  if (const auto exit_code = tensorforge::storage::run_log_check_if_asked(argc, argv)) return *exit_code;
  return tensorforge::run(argc, argv);
}
