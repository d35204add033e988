// The level `errors`: one call of the disk fails, or all behind it, or all are slow. Which call counts up with the seed
// until a history ends without it.
#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "crashtest/inspection.h"
#include "crashtest/level.h"
#include "crashtest/world.h"

namespace tensorforge::crashtest {
namespace {

using Operation = SimulatedDisk::Operation;
using rocksdb::IOStatus;

enum class Kind { kIoError, kIoErrorsFrom, kNoSpace, kNoSpaceFrom, kShortWrite, kFailedSync, kSlow, kLowSpace };
constexpr std::array<const char*, 8> kNames = {
    "an I/O error, once",         "I/O errors from then on",      "no space, once",
    "no space from then on",      "a short write without space",  "a failed fsync",
    "a slow disk, 10 ms to 30 s", "free space under the reserve",
};

/// What the life with the fault begins with.
enum class Before { kNothing, kLog, kLogAndSnapshot };
constexpr std::uint64_t kBefores = 3;

constexpr std::size_t kRequests = 14;
/// A run takes every so manieth call; the runs behind it take the others.
constexpr std::uint64_t kStride = 24;
/// No history has more calls than this times kStride.
constexpr std::uint64_t kMostFaults = 64;

bool is_sync(Operation operation) { return operation == Operation::kSync || operation == Operation::kSyncDirectory; }
bool only_reads(Operation operation) {
  return operation == Operation::kOpen || operation == Operation::kRead || operation == Operation::kList;
}

/// Whether a call can end so.
bool can_fail(Kind kind, Operation operation) {
  switch (kind) {
    case Kind::kIoError:
      return true;
    case Kind::kIoErrorsFrom:
      return !only_reads(operation);
    case Kind::kNoSpace:
    case Kind::kNoSpaceFrom:
      return operation == Operation::kWrite || operation == Operation::kCreate;
    case Kind::kShortWrite:
      return operation == Operation::kWrite;
    case Kind::kFailedSync:
      return is_sync(operation);
    case Kind::kSlow:
    case Kind::kLowSpace:
      return false;
  }
  return false;
}

SimulatedDisk::Fault fault_of(Kind kind, std::size_t bytes) {
  switch (kind) {
    case Kind::kNoSpace:
    case Kind::kNoSpaceFrom:
      return {IOStatus::NoSpace("No space left on device"), 0};
    case Kind::kShortWrite:
      return {IOStatus::NoSpace("No space left on device"), bytes / 2};
    default:
      return {IOStatus::IOError("Input/output error"), 0};
  }
}

/// One history with one fault.
class FaultyHistory {
 public:
  FaultyHistory(std::uint64_t world_seed, Before before, Kind kind, std::uint64_t at, const Portion& portion,
                RunResult& result)
      : begins_with_(before),
        kind_(kind),
        at_(at),
        requests_(portion.operations.value_or(kRequests)),
        random_(world_seed * 1'000'003 + at),
        world_(world_seed, portion.clients.value_or(World::kClients)),
        result_(result) {}

  /// False: it ended before the fault.
  bool run() {
    if (begins_with_ != Before::kNothing) live_before();
    if (result_.failures.empty()) live_faulty();
    const bool seen = seen_;
    if (result_.failures.empty()) live_healed();
    for (const std::string& complaint : world_.complaints()) fail(complaint);
    return seen;
  }

 private:
  void fail(const std::string& what) { result_.add_failure(fmt::format("{}: {}", where_, what)); }
  Witness witness() const { return {world_.calls(), kForever - 1, world_.config(), before_, kind_ == Kind::kLowSpace}; }

  World::Plan plan(std::size_t requests) {
    World::Plan plan;
    plan.requests = requests;
    plan.takes_snapshots = true;
    plan.on_recovered = [this](const Recovered& recovered) {
      const Verdict verdict = check_history(world_.calls(), kForever - 1, recovered, before_);
      result_.add_findings(verdict, where_);
      before_ = verdict.records;
    };
    return plan;
  }

  /// Without a snapshot at its end, the next life takes one while it serves.
  void live_before() {
    World::Plan plan = this->plan(requests_);
    plan.takes_snapshots = begins_with_ == Before::kLogAndSnapshot;
    const World::Life life = world_.live(disk_, plan);
    if (life.end != World::End::kStopped) fail("it did not stop cleanly: " + life.why.ToString());
  }

  void live_faulty() {
    std::uint64_t calls = 0, turns = 0;
    std::set<std::string> given_up;
    World::Plan plan = this->plan(requests_);
    plan.hook = [&](const SimulatedDisk::Call& call) {
      const bool is_anchor_or_log = call.path.ends_with(".log") || call.path.ends_with("/HEAD");
      if (is_sync(call.operation) && is_anchor_or_log && given_up.count(call.path) != 0) {
        fail("an fsync that failed was tried again: " + call.path);
      }
      if (!can_fail(kind_, call.operation) || ++calls < at_) return SimulatedDisk::Fault{};
      const bool goes_on = kind_ == Kind::kIoErrorsFrom || kind_ == Kind::kNoSpaceFrom;
      if (calls > at_ && !goes_on) return SimulatedDisk::Fault{};
      if (calls == at_) {
        seen_ = true;
        where_ = fmt::format("{}, at call {}, of {}", kNames[static_cast<std::size_t>(kind_)], at_, call.path);
      }
      if (is_sync(call.operation)) given_up.insert(call.path);
      return fault_of(kind_, call.bytes);
    };
    if (kind_ == Kind::kSlow) {
      plan.disk_delay_ms = [this] {
        if (random_() % 8 != 0) return std::uint64_t{0};
        ++result_.faults[kNames[static_cast<std::size_t>(kind_)]];
        return 10 + random_() % (random_() % 2 == 0 ? 100 : 30'000);
      };
    }
    if (kind_ == Kind::kLowSpace) {
      world_.expect_full_disk();
      plan.is_cut = [&] {
        ++turns;
        if (turns == at_ * 7) disk_->set_free_bytes(world_.config().reserve_bytes - 1);
        if (turns == at_ * 7 + 40) disk_->set_free_bytes(world_.config().reserve_bytes);
        if (turns == at_ * 7) seen_ = true;
        return false;
      };
    }
    const World::Life life = world_.live(disk_, plan);
    if (seen_) ++result_.faults[kNames[static_cast<std::size_t>(kind_)]];
    judge(life);
    result_.add_recovery(life.recovery_ms);
  }

  void judge(const World::Life& life) {
    const bool may_end = kind_ != Kind::kSlow && kind_ != Kind::kLowSpace;
    switch (life.end) {
      case World::End::kRefused:
        // A disk that fails is exit code 3: whoever takes it for damage may give up what is there.
        if (!may_end || storage::exit_code(life.why) != 3) fail("the opening ended with " + life.why.ToString());
        return;
      case World::End::kDiskFailed:
        if (!may_end || !absl::IsUnavailable(life.why)) fail("the service ended with " + life.why.ToString());
        return;
      case World::End::kStuck:
        return fail("nobody is answered any more");
      case World::End::kStopped:
      case World::End::kCut:
        return;
    }
  }

  /// The supervisor starts it again, on a disk that works: over what can be read, or over what a power cut leaves.
  void live_healed() {
    if (random_() % 2 == 0) {
      disk_ = disk_->after_power_cut(random_);
      where_ += ", then a power cut";
    }
    where_ += ", then a restart";
    const World::Life life = world_.live(disk_, plan(std::min<std::size_t>(4, requests_)));
    result_.add_recovery(life.recovery_ms);
    if (life.end != World::End::kStopped) return fail("it did not come back: " + life.why.ToString());
    if (world_.unanswered() > 0) fail(fmt::format("{} requests were never answered", world_.unanswered()));
    const Inspection found = inspect(disk_->after_power_cut(random_), witness());
    where_ += ", and a power cut behind it";
    if (!found.opening.ok()) return fail(found.opening.ToString());
    result_.add_findings(found.verdict, where_);
    result_.count(found.verdict);
  }

  const Before begins_with_;
  const Kind kind_;
  const std::uint64_t at_;
  const std::size_t requests_;
  std::mt19937_64 random_;
  World world_;
  RunResult& result_;
  std::shared_ptr<SimulatedDisk> disk_ = std::make_shared<SimulatedDisk>();
  std::vector<Digest> before_;
  std::string where_ = "without a fault";
  bool seen_{};
};

}  // namespace

RunResult run_errors(std::uint64_t seed, const Scratch&, const Portion& portion) {
  const auto kind = static_cast<Kind>(seed % kNames.size());
  const std::uint64_t first = 1 + seed / kNames.size() % kStride;
  const std::uint64_t world_seed = seed / (kNames.size() * kStride);
  const auto before = static_cast<Before>((world_seed + first) % kBefores);
  RunResult result;
  const auto happens = [&](std::uint64_t number) {
    return FaultyHistory(world_seed, before, kind, first + number * kStride, portion, result).run();
  };
  if (!portion.faults) {
    for (std::uint64_t number = 0; result.failures.empty() && happens(number); ++number) {
    }
    return result;
  }
  for (const std::uint64_t number : *portion.faults) {
    if (!result.failures.empty() || !happens(number)) break;
  }
  return result;
}

Portion whole_errors(std::uint64_t) { return {World::kClients, kRequests, all_faults(kMostFaults)}; }

}  // namespace tensorforge::crashtest
