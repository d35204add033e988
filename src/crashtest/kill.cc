// The level `kill`: the real service as a process under load, which is ended again and again, wherever it is.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/client.h"
#include "crashtest/level.h"
#include "crashtest/load.h"
#include "crashtest/random.h"
#include "crashtest/service_process.h"
#include "service/recover.h"
#include "storage/crash_point.h"
#include "storage/data_directory.h"

namespace tensorforge::crashtest {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kStartPatience{30'000}, kEndPatience{30'000};
constexpr milliseconds kPointPatience{20'000};     ///< for a point under load to be passed often enough
constexpr milliseconds kShortLoadPatience{2'000};  ///< ... where the load ends before
constexpr std::size_t kClients = 3;
constexpr std::size_t kEndsOfARun = 5;       ///< beside the first
constexpr std::uint64_t kMostAnswers = 400;  ///< before an end

/// Come to where a snapshot is asked for.
constexpr const char* kSnapshotPoints[] = {"snapshot-written", "snapshot-synced", "snapshot-renamed",
                                           "snapshot-durable"};

/// How one process of the service comes to its end.
struct End {
  std::string point;         ///< armed from its start on; empty: none
  std::uint64_t passes{};    ///< at most so many, before it strikes
  int signal{};              ///< sent under load; 0: none
  std::string point_before;  ///< strikes in a process before this one, and makes what `point` needs
};

/// Ends that a new directory can come to before it serves.
const std::vector<End>& first_ends() {
  static const std::vector<End> ends = [] {
    std::vector<End> all;
    for (const char* point : {"locked", "head-written", "head-renamed", "head-durable", "database-created",
                              "database-durable", "life-to-start"}) {
      all.push_back({point, 1, 0, ""});
    }
    if (!storage::has_sync_points()) return all;
    all.push_back({"database-set-aside", 1, 0, "rocksdb/VersionSet::ProcessManifestWrites:AfterSyncManifest"});
    all.push_back({"rocksdb/SetCurrentFile:BeforeRename", 1, 0, ""});
    all.push_back({"rocksdb/SetCurrentFile:AfterRename", 1, 0, ""});
    return all;
  }();
  return ends;
}

/// Ends that a directory with events in it can come to.
const std::vector<End>& later_ends() {
  static const std::vector<End> ends = [] {
    std::vector<End> all{{"", 0, SIGKILL, ""}, {"", 0, SIGTERM, ""}, {"", 0, SIGSTOP, ""}};
    for (const char* point : {"locked", "verified", "opened", "replayed", "serving"}) all.push_back({point, 1, 0, ""});
    for (const char* point : {"tail-to-anchor", "tail-anchored"}) all.push_back({point, 1, 0, "head-to-write"});
    for (const char* point : {"decided", "applied", "group-taken", "group-to-seal", "group-sealed", "group-synced",
                              "group-reported", "head-to-write", "head-slot-written", "head-slot-synced",
                              "durable-reported", "reply-to-send", "reply-sent"}) {
      all.push_back({point, 100, 0, ""});
    }
    for (const char* point : kSnapshotPoints) all.push_back({point, 1, 0, ""});
    for (const char* point : {"stop-begun", "stop-drained", "stop-closed"}) all.push_back({point, 1, SIGTERM, ""});
    all.push_back({"", 0, 0, ""});  // by SIGKILL while it recovers
    if (!storage::has_sync_points()) return all;
    for (const char* point :
         {"WritableFileWriter::Append:BeforePrepareWrite", "WritableFileWriter::Flush:BeforeAppend",
          "WritableFileWriter::SyncInternal:0", "LogWriter::EmitPhysicalRecord:BeforeEncodeChecksum",
          "DBImpl::WriteImpl:BeforeLeaderEnters", "WriteThread::ExitAsBatchGroupLeader:Start"}) {
      all.push_back({std::string("rocksdb/") + point, 100, 0, ""});
    }
    for (const char* point :
         {"DBImpl::RecoverLogFiles:BeforeReadWal", "DBImpl::RecoverLogFiles:BeforeFlushFinalMemtable",
          "BuildTable:BeforeSyncTable", "VersionSet::LogAndApply:WriteManifest", "SetCurrentFile:AfterRename",
          "DBImpl::Open:Opened", "DBImpl::Open:AfterDeleteFiles"}) {
      all.push_back({std::string("rocksdb/") + point, 1, 0, ""});
    }
    return all;
  }();
  return ends;
}

/// A port that nobody listens at.
std::uint16_t free_port() {
  const int socket_fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const bool bound = ::bind(socket_fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     ::getsockname(socket_fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(socket_fd);
  return bound ? ntohs(address.sin_port) : std::uint16_t{0};
}

std::string last_lines(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  return all.substr(all.size() - std::min<std::size_t>(all.size(), 500));
}

class KillRun {
 public:
  KillRun(std::uint64_t seed, const Scratch& scratch, const Portion& portion)
      : seed_(seed),
        portion_(portion),
        random_(seed),
        program_(scratch.tensorforged),
        directory_(fmt::format("{}/kill-{}", scratch.directory, seed)),
        address_(fmt::format("127.0.0.1:{}", free_port())) {}

  RunResult run() {
    std::filesystem::create_directories(directory_);
    const std::vector<End>& first = first_ends();
    if (has_fault(portion_, 0)) strike_on_the_way(first[seed_ % first.size()]);
    Load::Options options{address_, directory_ + "/calls", seed_, portion_.clients.value_or(kClients)};
    options.begins_only_allowed = portion_.operations.has_value();
    Result<std::unique_ptr<Load>> load = Load::start(options);
    if (!load.ok()) {
      result_.add_failure(std::string(load.status().message()));
      return std::move(result_);
    }
    load_ = *std::move(load);
    const std::vector<End>& later = later_ends();
    for (std::size_t i = 0; i < kEndsOfARun && result_.failures.empty(); ++i) {
      if (!has_fault(portion_, i + 1)) continue;
      strike_on_the_way(later[(seed_ * kEndsOfARun + i) % later.size()]);
    }
    finish();
    if (!result_.failures.empty()) return std::move(result_);  // what it left is evidence
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
    return std::move(result_);
  }

 private:
  void fail(const std::string& what) {
    result_.add_failure(
        fmt::format("{}: {}; the service said: {}", directory_, what, last_lines(directory_ + "/errors")));
  }

  Result<ServiceProcess> start(const std::string& point) {
    started_ = Clock::now();
    highest_before_ = load_ ? load_->highest() : 0;
    if (load_) {
      if (const absl::Status synced = load_->sync(); !synced.ok()) return synced;
    }
    std::vector<std::string> environment;
    if (!point.empty()) environment.push_back(fmt::format("{}={}", storage::kCrashPointVariable, point));
    const char* const ack = seed_ % 3 == 2 ? "wal" : "anchor";
    return ServiceProcess::start(program_, {"--data-dir", directory_ + "/data", "--listen", address_, "--ack", ack},
                                 directory_ + "/errors", environment);
  }
  /// False: it does not serve.
  bool wait_until_ready(ServiceProcess& service) {
    const std::optional<ServiceProcess::Ready> ready = service.wait_until_ready(kStartPatience);
    if (!ready) return false;
    result_.recovery_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - started_).count());
    if (ready->events < highest_before_) {
      ++result_.lost;
      fail(fmt::format("{} events were recovered, and {} were acknowledged", ready->events, highest_before_));
    }
    return true;
  }

  void strike_on_the_way(const End& end) {
    if (!end.point_before.empty()) strike({end.point_before, load_ ? 20U : 1U, 0, ""});
    if (result_.failures.empty()) strike(end);
  }

  void strike(const End& end) {
    if (load_ && portion_.operations) {
      load_->allow(*portion_.operations);
      allowed_ += *portion_.operations;
    }
    const std::uint64_t passes = end.passes == 0 ? 0 : between(random_, 1, most_passes(end));
    const std::string point = end.point.empty() ? "" : fmt::format("{}:{}", end.point, passes);
    Result<ServiceProcess> service = start(point);
    if (!service.ok()) return result_.add_failure(std::string(service.status().message()));
    if (end.point.empty() && end.signal == 0) {
      std::this_thread::sleep_for(milliseconds(between(random_, 1, 120)));
      return end_by_signal(*service, SIGKILL, "SIGKILL while it starts");
    }
    if (!wait_until_ready(*service)) return expect_struck(*service, end, kStartPatience);
    const auto asking = end.point.starts_with("snapshot-") ? ask_for_snapshot() : nullptr;
    if (!end.point.empty() && end.signal == 0) {
      return expect_struck(*service, end, portion_.operations ? kShortLoadPatience : kPointPatience);
    }
    wait_for_answers();
    switch (end.signal) {
      case SIGKILL:
        return end_by_signal(*service, SIGKILL, "SIGKILL");
      case SIGSTOP:
        ++result_.faults["SIGSTOP and SIGCONT"];
        service->signal(SIGSTOP);
        std::this_thread::sleep_for(milliseconds(between(random_, 1, 100)));
        service->signal(SIGCONT);
        wait_for_answers();
        return end_by_signal(*service, SIGKILL, "SIGKILL");
      default:
        break;
    }
    service->signal(SIGTERM);
    if (!end.point.empty()) return expect_struck(*service, end, kEndPatience);
    ++result_.faults["SIGTERM under load"];
    const std::optional<int> code = service->wait_for_end(kEndPatience);
    if (code != 0) fail(fmt::format("SIGTERM under load ended it with {}", code.value_or(-1)));
  }

  /// A short load is not to end before: its requests come in groups of what all clients keep in flight.
  std::uint64_t most_passes(const End& end) const {
    if (!portion_.operations) return end.passes;
    const std::uint64_t in_flight = portion_.clients.value_or(kClients) * Load::Options{}.depth;
    return std::clamp<std::uint64_t>(*portion_.operations / in_flight, 1, end.passes);
  }

  /// The client that asks; nobody waits for its answer. There are changes since the last one.
  std::unique_ptr<client::Client> ask_for_snapshot() {
    wait_for_answers();
    client::ClientOptions options;
    options.server = address_;
    options.actor = "operator";
    Result<std::unique_ptr<client::Client>> client = client::Client::connect(options);
    if (!client.ok()) return nullptr;
    (*client)->submit(query::TakeSnapshot{}, [](const client::Answer&) {});
    return *std::move(client);
  }

  /// The armed point ends it; where it never comes there, a signal does, and that is noted.
  void expect_struck(ServiceProcess& service, const End& end, milliseconds patience) {
    const std::optional<int> code = service.wait_for_end(patience);
    if (!code) return end_by_signal(service, SIGKILL, "SIGKILL, as it did not come to " + end.point);
    if (*code == -SIGKILL) {
      ++result_.faults["at " + end.point];
    } else {
      fail(fmt::format("on the way to {} it ended with {}", end.point, *code));
    }
  }
  void end_by_signal(ServiceProcess& service, int number, const std::string& kind) {
    ++result_.faults[kind];
    service.signal(number);
    const std::optional<int> code = service.wait_for_end(kEndPatience);
    if (code != -number) fail(fmt::format("{}: it ended with {}", kind, code.value_or(0)));
  }

  /// Until the load has moved on by some random count; the time limit is for a service that is stuck.
  void wait_for_answers() {
    if (!load_) return;
    std::uint64_t target = load_->answered() + between(random_, 1, kMostAnswers);
    if (portion_.operations) target = std::min(target, allowed_);
    const Clock::time_point deadline = Clock::now() + kEndPatience;
    while (load_->answered() < target) {
      if (Clock::now() > deadline) return fail("no answers came");
      std::this_thread::sleep_for(milliseconds(1));
    }
  }

  void finish() {
    Result<ServiceProcess> service = start("");
    if (!service.ok()) return result_.add_failure(std::string(service.status().message()));
    if (!wait_until_ready(*service)) return fail("it does not start again");
    const CallJournal& calls = load_->finish();
    service->signal(SIGTERM);
    const std::optional<int> code = service->wait_for_end(kEndPatience);
    if (code != 0) return fail(fmt::format("the last stop ended with {}", code.value_or(-1)));
    judge(calls);
  }

  void judge(const CallJournal& calls) {
    const auto log = storage::open_read_only(directory_ + "/data");
    if (!log.ok()) return fail("its log cannot be read: " + std::string(log.status().message()));
    const Result<service::State> state = service::recover(**log);
    if (!state.ok()) return fail("its log cannot be replayed: " + std::string(state.status().message()));
    const Verdict verdict = check_history(calls, calls.now(), {**log, state->digest(), {}, false}, {});
    result_.count(verdict);
    result_.add_findings(verdict, "at the end");
  }

  const std::uint64_t seed_;
  const Portion& portion_;
  std::mt19937_64 random_;
  const std::string program_, directory_, address_;
  RunResult result_;
  std::unique_ptr<Load> load_;
  Clock::time_point started_;
  Sequence highest_before_{};
  std::uint64_t allowed_{};  ///< requests of the load, where portion_ says how many
};

}  // namespace

RunResult run_kill(std::uint64_t seed, const Scratch& scratch, const Portion& portion) {
  return KillRun(seed, scratch, portion).run();
}

Portion whole_kill(std::uint64_t) { return {kClients, kMostAnswers, all_faults(1 + kEndsOfARun)}; }

}  // namespace tensorforge::crashtest
