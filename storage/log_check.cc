#include "storage/log_check.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <iterator>
#include <new>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/bytes.h"
#include "storage/chunk_reader.h"
#include "storage/data_directory.h"
#include "storage/database.h"

namespace tensorforge::storage {
namespace {

using Json = nlohmann::json;

constexpr const char* kCheckArgument = "--check-log-for-parent";
// Of the child.
constexpr int kVerdictDescriptor = 3;
constexpr int kProgressDescriptor = 4;
constexpr int kChunksDescriptor = 5;
constexpr int kFirstFreeDescriptor = 6;

/// Of the pipe that the chunks come through: several of the usual size.
constexpr int kPipeBytes = 1 << 20;

constexpr int kAskCancelledMs = 100;

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

/// Without the path, which need not be UTF-8. `pass_on`: the parent wants the chunks.
std::string encode(const LogCheck& check, bool pass_on) {
  const Json json = {{"log_id", to_json(check.log_id)},
                     {"sequence", check.anchor.sequence},
                     {"root", check.anchor.root},
                     {"start", to_json(check.start)},
                     {"last_chunk", check.last_chunk ? Json(*check.last_chunk) : Json()},
                     {"repair_first", check.repair_first},
                     {"pass_on", pass_on}};
  return json.dump();
}

LogCheck decode_check(const std::string& database, const Json& json) {
  LogCheck check;
  check.database = database;
  check.log_id = log_id_of(json.at("log_id"));
  check.anchor = {json.at("sequence").get<Sequence>(), json.at("root").get<Hash>(), 0};
  check.start = point_of(json.at("start"));
  if (const Json& last = json.at("last_chunk"); !last.is_null()) check.last_chunk = last.get<std::uint64_t>();
  check.repair_first = json.at("repair_first").get<bool>();
  return check;
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
  LogVerdict verdict;
  verdict.problem = absl::Status(code, json.at("message").get<std::string>());
  verdict.end = point_of(json.at("end"));
  verdict.bytes = json.at("bytes").get<std::uint64_t>();
  verdict.notes = json.at("notes").get<std::uint64_t>();
  verdict.log_id = log_id_of(json.at("log_id"));
  verdict.warnings = json.at("warnings").get<std::vector<std::string>>();
  return verdict;
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

/// Of a database that cannot be opened: whatever was acknowledged is missing, as far as is known.
absl::Status unreadable(const absl::Status& opened) {
  if (!absl::IsDataLoss(opened)) return opened;
  const std::string message(opened.message());
  return absl::DataLossError(fmt::format("{}; how many of these events can be repaired is not known", message));
}

/// What lies before the start is not read, but for the chunk that ends there.
absl::Status check_start(const Database& database, const LogPoint& start) {
  if (start.chunk_number == 0) return absl::OkStatus();
  const Result<bool> there = ends_at(*database.chunks(), start.sequence(), start.frontier.root());
  if (!there.ok()) return there.status();
  if (*there) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("the log does not hold sequence {} as it was verified before", start.sequence()));
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

/// A file descriptor, closed at the end.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }
  void close() { reset(-1); }
  void reset(int number) {
    const int before = std::exchange(number_, number);
    if (before >= 0) ::close(before);
  }

 private:
  int number_;
};

/// A copy, apart from those that a child has for something else; negative: there is none.
int apart(int descriptor) { return ::fcntl(descriptor, F_DUPFD_CLOEXEC, kFirstFreeDescriptor); }

bool write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

/// Chunks on their way through a pipe, each behind its size.
class PassedChunks {
 public:
  explicit PassedChunks(const TakeVerified& take) : take_(take) {}

  static bool send(int descriptor, std::string_view chunk) {
    char size[4];
    put_little(size, static_cast<std::uint32_t>(chunk.size()));
    return write_all(descriptor, {size, sizeof size}) && write_all(descriptor, chunk);
  }

  /// Reads what is there, and gives out what is whole. False: that was all, or no more is wanted.
  bool receive(int descriptor) {
    if (buffer_.size() < held_ + kPipeBytes) buffer_.resize(held_ + kPipeBytes);
    const ssize_t read = ::read(descriptor, buffer_.data() + held_, kPipeBytes);
    if (read <= 0) return read < 0 && errno == EINTR;
    held_ += static_cast<std::size_t>(read);
    std::string_view rest(buffer_.data(), held_);
    while (rest.size() >= sizeof(std::uint32_t)) {
      const std::size_t size = get_little<std::uint32_t>(rest.data());
      if (rest.size() - sizeof(std::uint32_t) < size) break;
      const Result<Chunk> chunk = decode_chunk(rest.substr(sizeof(std::uint32_t), size));
      if (!chunk.ok() || !take_(chunk->header.first, chunk->records)) return false;
      rest.remove_prefix(sizeof(std::uint32_t) + size);
    }
    held_ = rest.size();
    std::memmove(buffer_.data(), rest.data(), held_);
    return true;
  }

 private:
  const TakeVerified& take_;
  std::vector<char> buffer_;
  std::size_t held_{};  ///< of it: the beginning of a chunk
};

/// How far a child is, in memory that it writes and that outlives it.
class SharedProgress {
 public:
  /// Of what it verified: the number of the last chunk, and the sequence where that ends.
  struct Place {
    std::uint64_t chunk_number{};
    Sequence sequence{};
  };

  /// Shares what the descriptor holds; it stays the caller's. Where there is no memory for that, it stays 0.
  explicit SharedProgress(int descriptor) {
    void* const at = ::mmap(nullptr, sizeof(Numbers), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (at != MAP_FAILED) numbers_ = static_cast<Numbers*>(at);
  }
  ~SharedProgress() {
    if (numbers_ != nullptr) ::munmap(numbers_, sizeof(Numbers));
  }
  SharedProgress(const SharedProgress&) = delete;
  SharedProgress& operator=(const SharedProgress&) = delete;
  Place get() const {
    if (numbers_ == nullptr) return {};
    return {numbers_->chunk_number.load(std::memory_order_relaxed), numbers_->sequence.load(std::memory_order_relaxed)};
  }
  void set(const LogPoint& end) {
    if (numbers_ == nullptr) return;
    numbers_->chunk_number.store(end.chunk_number, std::memory_order_relaxed);
    numbers_->sequence.store(end.sequence(), std::memory_order_relaxed);
  }

  /// A descriptor to share one with; negative: there is none.
  static int make() {
    const Descriptor memory(::memfd_create("log check", MFD_CLOEXEC));
    if (memory.number() < 0 || ::ftruncate(memory.number(), sizeof(Numbers)) != 0) return -1;
    return apart(memory.number());
  }

 private:
  using Number = std::atomic<std::uint64_t>;
  struct Numbers {
    Number chunk_number, sequence;
  };
  static_assert(
      Number::is_always_lock_free);  // so it is the bare number, zeroed memory is 0, and processes can share it
  Numbers* numbers_{};
};

/// `chunks_to` is negative where nobody wants them.
Result<pid_t> spawn_check(const LogCheck& check, int verdict_to, int progress_to, int chunks_to) {
  std::string database = check.database;
  std::string request = encode(check, chunks_to >= 0);
  std::string argument = kCheckArgument;
  std::string name = "tensorforge-log-check";
  char* const argv[] = {name.data(), argument.data(), database.data(), request.data(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, verdict_to, kVerdictDescriptor);
  posix_spawn_file_actions_adddup2(&actions, progress_to, kProgressDescriptor);
  if (chunks_to >= 0) posix_spawn_file_actions_adddup2(&actions, chunks_to, kChunksDescriptor);
  pid_t child = 0;
  const int error = posix_spawn(&child, "/proc/self/exe", &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return system_error("start the process that checks the log", error);
  return child;
}

/// A child's verdict, all that it writes; what comes through `chunks` goes to `passed` meanwhile, unless it is closed.
/// nullopt: `go_on`, asked several times a second, says no before the end of both.
std::optional<std::string> read_all(int verdict, Descriptor& chunks, PassedChunks& passed,
                                    const std::function<bool()>& go_on) {
  std::string all;
  char buffer[4096];
  bool is_whole = false;
  while (!is_whole || chunks.number() >= 0) {
    if (!go_on()) return std::nullopt;
    pollfd ready[] = {{is_whole ? -1 : verdict, POLLIN, 0}, {chunks.number(), POLLIN, 0}};
    // A signal that cancels wakes it; the time is for one that comes just before the call.
    if (::poll(ready, std::size(ready), kAskCancelledMs) <= 0) continue;
    if (ready[1].revents != 0 && !passed.receive(chunks.number())) chunks.close();
    if (ready[0].revents == 0) continue;
    const ssize_t read = ::read(verdict, buffer, sizeof buffer);
    if (read < 0 && errno == EINTR) continue;
    if (read > 0) {
      all.append(buffer, static_cast<std::size_t>(read));
    } else {
      is_whole = true;
    }
  }
  return all;
}

/// How a child ended.
struct Ended {
  absl::Status problem;  ///< kDataLoss: it crashed
  std::string verdict;
  std::uint64_t verified{};  ///< the number of the last chunk that it verified
};

/// Of a child that gave no verdict.
absl::Status why_it_ended(int status) {
  if (!WIFSIGNALED(status)) {
    return absl::DataLossError(fmt::format("the check of the log ended with status {}", WEXITSTATUS(status)));
  }
  const int signal = WTERMSIG(status);
  const std::string ended = fmt::format("signal {} ({}) ended the check of the log", signal, strsignal(signal));
  switch (signal) {
    case SIGABRT:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGSEGV:
      return absl::DataLossError(ended);
    default:  // somebody sent it, as the kernel does where memory is short: that says nothing about the log
      return absl::UnavailableError(ended);
  }
}

Ended run_child(const LogCheck& check, const std::function<bool()>& cancelled, const CheckProgress& progress,
                const TakeVerified& take) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {system_error("make a pipe", errno), "", 0};
  const Descriptor verdict_from(ends[0]);
  Descriptor verdict_to(ends[1]);
  Descriptor chunks_from, chunks_to;
  if (take) {
    if (::pipe2(ends, O_CLOEXEC) != 0) return {system_error("make a pipe", errno), "", 0};
    chunks_from.reset(ends[0]);
    chunks_to.reset(apart(ends[1]));
    ::close(ends[1]);
    if (chunks_to.number() < 0) return {system_error("make a pipe", errno), "", 0};
    ::fcntl(chunks_to.number(), F_SETPIPE_SZ, kPipeBytes);  // it stays smaller where that is not allowed
  }
  const Descriptor shared(SharedProgress::make());
  if (shared.number() < 0) return {system_error("share memory with the check of the log", errno), "", 0};
  const SharedProgress verified(shared.number());
  const Result<pid_t> child = spawn_check(check, verdict_to.number(), shared.number(), chunks_to.number());
  if (!child.ok()) return {child.status(), "", 0};
  verdict_to.close();
  chunks_to.close();

  PassedChunks passed(take);
  std::optional<std::string> verdict = read_all(verdict_from.number(), chunks_from, passed, [&] {
    if (progress) progress(std::max(verified.get().sequence, check.start.sequence()));
    return !cancelled || !cancelled();
  });
  if (!verdict) ::kill(*child, SIGKILL);
  int status = 0;
  while (::waitpid(*child, &status, 0) < 0) {
    if (errno != EINTR) return {system_error("wait for the check of the log", errno), "", 0};
  }
  if (!verdict) return {absl::CancelledError("the check of the log was cancelled"), "", 0};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {absl::OkStatus(), *std::move(verdict), 0};
  return {why_it_ended(status), "", verified.get().chunk_number};
}

}  // namespace

LogVerdict check_log(const std::shared_ptr<rocksdb::FileSystem>& files, const LogCheck& check,
                     const std::function<void(const LogPoint& end, const Chunk&)>& on_chunk) {
  LogVerdict verdict;
  if (check.repair_first) {
    const absl::Status repaired = Database::repair(files, check.database, &verdict.warnings);
    // It says nothing of the log.
    verdict.problem = absl::IsDataLoss(repaired) ? absl::FailedPreconditionError(repaired.message()) : repaired;
    if (!repaired.ok()) return verdict;
  }
  const Result<std::unique_ptr<Database>> opened = Database::open_read_only(files, check.database, &verdict.warnings);
  if (!opened.ok()) {
    verdict.problem = judge({{}, 0, unreadable(opened.status()), absl::OkStatus()}, check.anchor);
    return verdict;
  }
  const Database& database = **opened;
  const absl::Status meta = check_meta(database, check.log_id, verdict);
  if (absl::Status status = check_start(database, check.start); !status.ok()) return failed(with_remedy(status));
  CheckedLog checked =
      check_chunks(*database.chunks(), check.start, check.anchor, [&](const LogPoint& end, const Chunk& chunk) {
        if (on_chunk) on_chunk(end, chunk);
        return !check.last_chunk || end.chunk_number < *check.last_chunk;
      });
  verdict.end = checked.end;
  verdict.bytes = checked.bytes;
  if (!meta.ok()) {
    verdict.problem = with_remedy(meta);
    return verdict;
  }
  if (checked.problem.ok() && !check.last_chunk) checked.problem = check_count(database, checked.end);
  verdict.problem = judge(checked, check.anchor);
  if (check.last_chunk || check.start.chunk_number > 0) return verdict;
  const Result<std::uint64_t> notes = database.count_notes();
  if (notes.ok()) verdict.notes = *notes;
  if (verdict.problem.ok()) verdict.problem = notes.status();
  return verdict;
}

LogVerdict check_log_in_child(const LogCheck& check, const std::function<bool()>& cancelled,
                              const CheckProgress& progress, const TakeVerified& take) {
  if (!main_answers_checks) return failed(absl::InternalError("main() does not call run_log_check_if_asked()"));
  const Ended ended = run_child(check, cancelled, progress, take);
  if (ended.problem.ok()) return decode_verdict(ended.verdict);
  if (!absl::IsDataLoss(ended.problem)) return failed(ended.problem);

  // It crashed: the log is good for as far as it came, and a second one that goes no further tells what is there.
  LogVerdict verdict;
  verdict.end = check.start;
  if (ended.verified > check.start.chunk_number) {
    LogCheck again = check;
    again.last_chunk = ended.verified;
    again.repair_first = false;
    const Ended up_to_there = run_child(again, cancelled, progress, {});
    if (!up_to_there.problem.ok() && !absl::IsDataLoss(up_to_there.problem)) return failed(up_to_there.problem);
    if (up_to_there.problem.ok()) verdict = decode_verdict(up_to_there.verdict);
  }
  verdict.crashed = true;
  if (verdict.end.sequence() > 0) {
    verdict.problem = judge({verdict.end, 0, ended.problem, absl::OkStatus()}, check.anchor);
    return verdict;
  }
  verdict.problem = absl::DataLossError(fmt::format(
      "{} before it had verified any event, so what is missing is not known: {} (if that was tried, move the directory "
      "away to begin anew)",
      std::string(ended.problem.message()), kRemedy));
  return verdict;
}

std::optional<int> run_log_check_if_asked(int argc, char** argv, std::shared_ptr<rocksdb::FileSystem> files) {
  main_answers_checks = true;
  if (argc != 4 || std::string_view(argv[1]) != kCheckArgument) return std::nullopt;
  // It ends when its parent does, and not before: the parent hears the signals of a terminal or a supervisor too.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGTERM, SIG_IGN);
  // A core file would be one byte too many.
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);

  std::signal(SIGPIPE, SIG_IGN);  // nobody may want the chunks any more

  SharedProgress verified(kProgressDescriptor);
  LogVerdict verdict;
  try {
    if (!files) files = rocksdb::FileSystem::Default();
    const Json request = Json::parse(argv[3]);
    bool passes_on = request.at("pass_on").get<bool>();
    verdict = check_log(files, decode_check(argv[2], request), [&](const LogPoint& end, const Chunk& chunk) {
      verified.set(end);
      passes_on = passes_on && PassedChunks::send(kChunksDescriptor, chunk.value);
    });
  } catch (const std::bad_alloc&) {
    verdict = failed(absl::UnavailableError("there is not enough memory to check the log"));
  }
  return write_all(kVerdictDescriptor, encode(verdict)) ? 0 : 1;
}

}  // namespace tensorforge::storage
