#include "storage/log_check.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/chunk_reader.h"
#include "storage/data_directory.h"
#include "storage/database.h"

namespace tensorforge::storage {
namespace {

using Json = nlohmann::json;

constexpr const char* kCheckArgument = "--check-log-for-parent";
constexpr int kVerdictDescriptor = 3;

/// Without it the child would be this program's ordinary main(), which must not run twice.
std::atomic<bool> main_answers_checks = false;

// Both directions of what parent and child tell each other.

Json to_json(const LogPoint& point) {
  return {{"chunk_number", point.chunk_number},
          {"sequence", point.sequence()},
          {"hashes", std::vector<Hash>(point.frontier.hashes().begin(), point.frontier.hashes().end())}};
}

LogPoint point_of(const Json& json) {
  return {json.at("chunk_number").get<std::uint64_t>(),
          MerkleFrontier(json.at("sequence").get<std::uint64_t>(), json.at("hashes").get<std::vector<Hash>>())};
}

Json to_json(const std::optional<LogId>& log_id) { return log_id ? Json(*log_id) : Json(); }

std::optional<LogId> log_id_of(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<LogId>());
}

/// Without the path, which need not be UTF-8.
std::string encode(const LogCheck& check) {
  const Json json = {{"log_id", to_json(check.log_id)},
                     {"sequence", check.anchor.sequence},
                     {"root", check.anchor.root},
                     {"start", to_json(check.start)}};
  return json.dump();
}

LogCheck decode_check(const std::string& database, const std::string& text) {
  const Json json = Json::parse(text);
  return {database,
          log_id_of(json.at("log_id")),
          {json.at("sequence").get<Sequence>(), json.at("root").get<Hash>(), 0},
          point_of(json.at("start"))};
}

std::string encode(const LogVerdict& verdict) {
  const Json json = {{"code", static_cast<int>(verdict.problem.code())},
                     {"message", std::string(verdict.problem.message())},
                     {"end", to_json(verdict.end)},
                     {"bytes", verdict.bytes},
                     {"notes", verdict.notes},
                     {"log_id", to_json(verdict.log_id)},
                     {"warnings", verdict.warnings}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

LogVerdict decode_verdict(const std::string& text) {
  const Json json = Json::parse(text);
  const auto code = static_cast<absl::StatusCode>(json.at("code").get<int>());
  return {absl::Status(code, json.at("message").get<std::string>()),
          point_of(json.at("end")),
          json.at("bytes").get<std::uint64_t>(),
          json.at("notes").get<std::uint64_t>(),
          log_id_of(json.at("log_id")),
          json.at("warnings").get<std::vector<std::string>>()};
}

absl::Status check_meta(const Database& database, const std::optional<LogId>& expected, LogVerdict& verdict) {
  const Result<Meta> meta = database.read_meta();
  if (!meta.ok()) return meta.status();
  verdict.log_id = meta->log_id;
  if (expected && *expected != meta->log_id) {
    return absl::DataLossError("HEAD and the database are of different logs");
  }
  return absl::OkStatus();
}

/// Finds a hole before the place where reading began.
absl::Status check_count(const Database& database, const LogPoint& end) {
  const Result<std::uint64_t> count = database.count_chunks();
  if (!count.ok()) return count.status();
  if (*count == end.chunk_number) return absl::OkStatus();
  return absl::DataLossError(fmt::format("the log has {} chunks up to sequence {}, its files hold {}", end.chunk_number,
                                         end.sequence(), *count));
}

LogVerdict failed(absl::Status problem) {
  LogVerdict verdict;
  verdict.problem = std::move(problem);
  return verdict;
}

absl::Status system_error(std::string_view doing, int error) {
  return absl::UnavailableError(fmt::format("{}: {}", doing, std::generic_category().message(error)));
}

/// Both ends of a pipe, closed at the end.
class Pipe {
 public:
  Pipe() { error_ = ::pipe2(ends_, O_CLOEXEC) == 0 ? 0 : errno; }
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  int error() const { return error_; }
  int write_end() const { return ends_[1]; }
  void close_write_end() { close_end(1); }
  std::string read_all() const {
    std::string all;
    char buffer[4096];
    for (;;) {
      const ssize_t read = ::read(ends_[0], buffer, sizeof buffer);
      if (read < 0 && errno == EINTR) continue;
      if (read <= 0) return all;
      all.append(buffer, static_cast<std::size_t>(read));
    }
  }

 private:
  void close_end(int i) {
    if (ends_[i] >= 0) ::close(std::exchange(ends_[i], -1));
  }
  int ends_[2]{-1, -1};
  int error_;
};

Result<pid_t> spawn_check(const LogCheck& check, int verdict_to) {
  std::string database = check.database;
  std::string request = encode(check);
  std::string argument = kCheckArgument;
  std::string name = "tensorforge-log-check";
  char* const argv[] = {name.data(), argument.data(), database.data(), request.data(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, verdict_to, kVerdictDescriptor);
  pid_t child = 0;
  const int error = posix_spawn(&child, "/proc/self/exe", &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return system_error("start the process that checks the log", error);
  return child;
}

/// What the end of a child that gave no verdict says.
absl::Status judge_end(int status) {
  if (!WIFSIGNALED(status)) {
    return absl::DataLossError(
        fmt::format("the check of the log ended without a verdict (status {}): a file of the database is damaged: {}",
                    WEXITSTATUS(status), kRemedy));
  }
  const int signal = WTERMSIG(status);
  const std::string ended = fmt::format("signal {} ({}) ended the check of the log", signal, strsignal(signal));
  const bool from_outside = signal == SIGKILL || signal == SIGTERM || signal == SIGINT || signal == SIGHUP;
  if (from_outside) return absl::UnavailableError(ended);
  return absl::DataLossError(fmt::format("{}: a file of the database is damaged: {}", ended, kRemedy));
}

bool write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

LogVerdict check_log(const std::shared_ptr<rocksdb::FileSystem>& files, const LogCheck& check) {
  LogVerdict verdict;
  const Result<std::unique_ptr<Database>> opened = Database::open_read_only(files, check.database, &verdict.warnings);
  if (!opened.ok()) {
    // Nothing of it is readable: whatever was acknowledged is missing.
    verdict.problem = judge({{}, 0, opened.status(), absl::OkStatus()}, check.anchor);
    return verdict;
  }
  const Database& database = **opened;
  const absl::Status meta = check_meta(database, check.log_id, verdict);
  CheckedLog checked = check_chunks(*database.chunks(), check.start, check.anchor);
  verdict.end = checked.end;
  verdict.bytes = checked.bytes;
  if (!meta.ok()) {
    const std::string message(meta.message());
    verdict.problem = absl::IsDataLoss(meta) ? absl::DataLossError(fmt::format("{}: {}", message, kRemedy)) : meta;
    return verdict;
  }
  if (checked.problem.ok()) checked.problem = check_count(database, checked.end);
  verdict.problem = judge(checked, check.anchor);
  const Result<std::uint64_t> notes = database.count_notes();
  if (notes.ok()) verdict.notes = *notes;
  if (verdict.problem.ok()) verdict.problem = notes.status();
  return verdict;
}

LogVerdict check_log_in_child(const LogCheck& check) {
  if (!main_answers_checks) return failed(absl::InternalError("main() does not call run_log_check_if_asked()"));
  Pipe pipe;
  if (pipe.error() != 0) return failed(system_error("make a pipe", pipe.error()));
  const Result<pid_t> child = spawn_check(check, pipe.write_end());
  if (!child.ok()) return failed(child.status());
  pipe.close_write_end();
  const std::string answer = pipe.read_all();
  int status = 0;
  while (::waitpid(*child, &status, 0) < 0) {
    if (errno != EINTR) return failed(system_error("wait for the check of the log", errno));
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return failed(judge_end(status));
  return decode_verdict(answer);
}

std::optional<int> run_log_check_if_asked(int argc, char** argv) {
  main_answers_checks = true;
  if (argc != 4 || std::string_view(argv[1]) != kCheckArgument) return std::nullopt;
  // A core file would be one byte too many.
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  const LogVerdict verdict = check_log(rocksdb::FileSystem::Default(), decode_check(argv[2], argv[3]));
  return write_all(kVerdictDescriptor, encode(verdict)) ? 0 : 1;
}

}  // namespace tensorforge::storage
