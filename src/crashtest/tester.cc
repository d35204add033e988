#include "crashtest/tester.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crashtest/service_process.h"
#include "crashtest/shrink.h"

namespace tensorforge::crashtest {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kWorkerArgument = "--crashtest-worker-for-parent";
constexpr int kReportDescriptor = 3;
constexpr int kPollMs = 100;
/// A run that takes longer hangs: the longest take some seconds.
constexpr std::chrono::minutes kMaxRun{2};

std::atomic<bool> main_answers = false;

/// What a worker is to do: seeds first, first + stride, ... up to, and not with, `end`, for so long.
struct Order {
  std::string level;
  std::uint64_t first{}, stride{}, end{};
  double seconds{};
  std::string scratch;
  Portion portion;
  std::string tensorforged;
};

std::string encode(const Order& order) {
  const Json json = {{"level", order.level},
                     {"first", order.first},
                     {"stride", order.stride},
                     {"end", order.end},
                     {"seconds", order.seconds},
                     {"scratch", order.scratch},
                     {"portion", to_json(order.portion)},
                     {"tensorforged", order.tensorforged}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Order decode_order(const std::string& text) {
  const Json json = Json::parse(text);
  return {json.at("level").get<std::string>(),    json.at("first").get<std::uint64_t>(),
          json.at("stride").get<std::uint64_t>(), json.at("end").get<std::uint64_t>(),
          json.at("seconds").get<double>(),       json.at("scratch").get<std::string>(),
          portion_of(json.at("portion")),         json.at("tensorforged").get<std::string>()};
}

void write_line(const Json& json) {
  std::string line = json.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
  for (std::string_view left = line; !left.empty();) {
    const ssize_t written = ::write(kReportDescriptor, left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) std::exit(1);  // nobody listens any more
    left.remove_prefix(static_cast<std::size_t>(written));
  }
}

int work(const Order& order) {
  const Level* level = find_level(order.level);
  if (level == nullptr) return 1;
  // What the service says in its log about the damage done to it is no news here.
  spdlog::set_level(spdlog::level::off);
  if (level->damages_files) {
    const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    ::dup2(nowhere, STDERR_FILENO);
  }
  end_with_service_at_sigterm();
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  const auto end = Clock::now() + std::chrono::duration<double>(order.seconds);
  for (std::uint64_t seed = order.first; seed < order.end; seed += order.stride) {
    if (seed != order.first && Clock::now() >= end) break;
    write_line({{"seed", seed}});
    const RunResult result = level->run(seed, {order.scratch, order.tensorforged}, order.portion);
    write_line({{"seed", seed}, {"result", to_json(result)}});
  }
  return 0;
}

/// A process that works through an order, begun anew behind each run that ends it.
class Worker {
 public:
  Worker(Order order, LevelReport& report) : order_(std::move(order)), report_(report), end_(end_of(order_.seconds)) {}
  ~Worker() {
    if (child_ > 0) ::kill(child_, SIGTERM);
    reap();
    std::error_code ignored;
    fs::remove_all(order_.scratch, ignored);
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  absl::Status start() {
    std::error_code error;
    fs::create_directory(order_.scratch, error);
    if (error) return absl::InternalError(fmt::format("cannot make {}: {}", order_.scratch, error.message()));
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return absl::InternalError("cannot make a pipe");
    order_.seconds = std::chrono::duration<double>(end_ - Clock::now()).count();
    std::string name = "tensorforge-crashtest", argument = kWorkerArgument, text = encode(order_);
    char* const argv[] = {name.data(), argument.data(), text.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], kReportDescriptor);
    const int failed = posix_spawn(&child_, "/proc/self/exe", &actions, nullptr, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    reports_ = ends[0];
    if (failed == 0) return absl::OkStatus();
    child_ = 0;
    return absl::InternalError(fmt::format("cannot start a process: {}", std::strerror(failed)));
  }

  bool running() const { return child_ > 0; }
  int descriptor() const { return reports_; }

  /// There is something to read, or the process has ended. True: a run has ended.
  Result<bool> read() {
    char buffer[65'536];
    const ssize_t got = ::read(reports_, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) return false;
    if (got > 0) {
      input_.append(buffer, static_cast<std::size_t>(got));
      return take_lines();
    }
    return on_end();
  }

  void stop_if_it_hangs() {
    if (child_ > 0 && running_seed_ && Clock::now() > run_began_ + kMaxRun) {
      hung_ = true;
      ::kill(child_, SIGTERM);
    }
  }

 private:
  static Clock::time_point end_of(double seconds) {
    return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }

  bool take_lines() {
    bool ended = false;
    for (std::size_t line_end = 0; (line_end = input_.find('\n')) != std::string::npos;) {
      const Json json = Json::parse(input_.substr(0, line_end));
      input_.erase(0, line_end + 1);
      const auto seed = json.at("seed").get<std::uint64_t>();
      if (!json.contains("result")) {
        running_seed_ = seed;
        run_began_ = Clock::now();
        continue;
      }
      running_seed_.reset();
      take(seed, run_result_of(json.at("result")));
      ended = true;
    }
    return ended;
  }

  void take(std::uint64_t seed, RunResult result) {
    ++report_.runs;
    order_.first = seed + order_.stride;
    if (!result.failures.empty()) {
      report_.failures.push_back({order_.level, seed, std::exchange(result.failures, {}), order_.portion});
    }
    report_.total.merge(result);
  }

  Result<bool> on_end() {
    const int status = reap();
    const std::optional<std::uint64_t> seed = std::exchange(running_seed_, std::nullopt);
    if (!seed) return false;
    RunResult ended;
    ended.failures = {hung_ ? fmt::format("it did not end within {} minutes", kMaxRun.count()) : describe(status)};
    hung_ = false;
    take(*seed, std::move(ended));
    std::error_code ignored;
    fs::remove_all(order_.scratch, ignored);
    if (order_.first < order_.end && Clock::now() < end_) {
      if (absl::Status again = start(); !again.ok()) return again;
    }
    return true;
  }

  static std::string describe(int status) {
    if (WIFSIGNALED(status)) {
      return fmt::format("signal {} ({}) ended the process", WTERMSIG(status), strsignal(WTERMSIG(status)));
    }
    return fmt::format("the process ended with status {}", WEXITSTATUS(status));
  }

  int reap() {
    int status = 0;
    if (child_ > 0) {
      while (::waitpid(child_, &status, 0) < 0 && errno == EINTR) {
      }
      child_ = 0;
    }
    if (reports_ >= 0) ::close(std::exchange(reports_, -1));
    input_.clear();
    return status;
  }

  Order order_;
  LevelReport& report_;
  const Clock::time_point end_;
  pid_t child_{};
  int reports_{-1};
  std::string input_;
  std::optional<std::uint64_t> running_seed_;
  Clock::time_point run_began_;
  bool hung_{};
};

std::string program_of(const TesterOptions& options) {
  return options.tensorforged.empty() ? service_path() : options.tensorforged;
}

absl::Status run_level(const TesterOptions& options, double seconds, const std::string& scratch, LevelReport& report) {
  const auto begin = Clock::now();
  const std::uint64_t runs = options.runs.value_or(std::uint64_t{1} << 40U);
  std::vector<std::unique_ptr<Worker>> workers;
  for (unsigned i = 0; i < std::max(options.jobs, 1U) && i < runs; ++i) {
    Order order{report.level,
                options.seed + i,
                std::max(options.jobs, 1U),
                options.seed + runs,
                seconds,
                fmt::format("{}/{}-{}", scratch, report.level, i + 1),
                options.portion,
                program_of(options)};
    workers.push_back(std::make_unique<Worker>(std::move(order), report));
    if (absl::Status status = workers.back()->start(); !status.ok()) return status;
  }
  for (;;) {
    std::vector<pollfd> ready;
    std::vector<Worker*> behind;
    for (const auto& worker : workers) {
      if (!worker->running()) continue;
      worker->stop_if_it_hangs();
      ready.push_back({worker->descriptor(), POLLIN, 0});
      behind.push_back(worker.get());
    }
    if (ready.empty()) break;
    if (::poll(ready.data(), ready.size(), kPollMs) <= 0) continue;
    for (std::size_t i = 0; i < ready.size(); ++i) {
      if (ready[i].revents == 0) continue;
      const Result<bool> ended = behind[i]->read();
      if (!ended.ok()) return ended.status();
      report.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
      if (options.stop_at_failure && !report.failures.empty()) return absl::OkStatus();  // the other workers are ended
      if (*ended && options.progress) options.progress(report);
    }
  }
  std::sort(report.failures.begin(), report.failures.end(),
            [](const Failure& a, const Failure& b) { return a.seed < b.seed; });
  return absl::OkStatus();
}

/// Of a level, as many as anybody will look at.
constexpr std::size_t kShrunkFailures = 3;

/// Makes the first failed runs smaller, each try in a process of its own.
absl::Status shrink_failures(const TesterOptions& options, const std::string& scratch, LevelReport& report) {
  const Level& level = *find_level(report.level);
  if (level.whole == nullptr || options.portion != Portion{}) return absl::OkStatus();
  const auto end = Clock::now() + std::chrono::duration<double>(options.shrink_seconds);
  absl::Status status;
  TesterOptions once;
  once.runs = 1;
  once.tensorforged = options.tensorforged;
  for (std::size_t i = 0; i < std::min(report.failures.size(), kShrunkFailures); ++i) {
    Failure& failure = report.failures[i];
    once.seed = failure.seed;
    const auto fails = [&](const Portion& portion) {
      if (!status.ok() || Clock::now() >= end) return false;
      LevelReport found;
      found.level = report.level;
      once.portion = portion;
      status = run_level(once, 0, scratch, found);
      if (!status.ok() || found.failures.empty()) return false;
      failure = std::move(found.failures.front());
      return true;
    };
    const Portion whole = level.whole(failure.seed);
    if (fails(whole)) shrink(whole, fails);
  }
  return status;
}

/// Makes the directory, or takes it where it is empty. True: it was made.
Result<bool> take_directory(const std::string& path) {
  std::error_code error;
  if (fs::create_directories(path, error)) return true;
  if (!error && fs::is_empty(path, error) && !error) return false;
  return absl::InvalidArgumentError(
      error ? fmt::format("{}: {}", path, error.message())
            : fmt::format("{} is not empty: name a directory that is, or is not there yet", path));
}

absl::Status check_levels(const TesterOptions& options) {
  const bool is_portion = options.portion != Portion{};
  if (is_portion && options.levels.size() != 1) {
    return absl::InvalidArgumentError("a run of one level can be made smaller, not of several: name one");
  }
  for (const std::string& name : options.levels) {
    const Level* level = find_level(name);
    if (level == nullptr) return absl::InvalidArgumentError(fmt::format("there is no level \"{}\"", name));
    if (is_portion && level->whole == nullptr) {
      return absl::InvalidArgumentError(fmt::format("a run of the level {} cannot be made smaller", name));
    }
    const std::string program = program_of(options);
    if (level->runs_service && ::access(program.c_str(), X_OK) != 0) {
      return absl::InvalidArgumentError(
          fmt::format("the level {} needs the program tensorforged, and {} is none that can be run: say where it is "
                      "(--tensorforged)",
                      name, program));
    }
  }
  return absl::OkStatus();
}

}  // namespace

Result<Report> run_crash_test(const TesterOptions& options) {
  if (!main_answers) return absl::InternalError("main() does not call run_crash_worker_if_asked()");
  if (absl::Status status = check_levels(options); !status.ok()) return status;
  const Result<bool> made = take_directory(options.data_dir);
  if (!made.ok()) return made.status();

  Report report;
  report.levels.reserve(options.levels.size());
  absl::Status status;
  double seconds_left = options.seconds;
  for (std::size_t i = 0; i < options.levels.size() && status.ok(); ++i) {
    LevelReport& level = report.levels.emplace_back();
    level.level = options.levels[i];
    level.first_seed = options.seed;
    status = run_level(options, seconds_left / static_cast<double>(options.levels.size() - i), options.data_dir, level);
    seconds_left = std::max(0.0, seconds_left - level.seconds);
    if (status.ok()) status = shrink_failures(options, options.data_dir, level);
  }
  if (*made) {
    std::error_code ignored;
    fs::remove(options.data_dir, ignored);
  }
  if (!status.ok()) return status;
  return report;
}

std::optional<int> run_crash_worker_if_asked(int argc, char** argv) {
  main_answers = true;
  if (argc != 3 || std::string_view(argv[1]) != kWorkerArgument) return std::nullopt;
  return work(decode_order(argv[2]));
}

}  // namespace tensorforge::crashtest
