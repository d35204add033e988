// The level `power`: the power goes at any call that changes the disk, while opening and while serving, and comes back
// to any image that the disk may legally hold then.
#include <optional>
#include <set>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "crashtest/inspection.h"
#include "crashtest/level.h"
#include "crashtest/random.h"
#include "crashtest/world.h"

namespace tensorforge::crashtest {
namespace {

using Operation = SimulatedDisk::Operation;
using Random = std::mt19937_64;

constexpr std::uint64_t kMaxCuts = 3;
constexpr int kImages = 6;                 ///< of one cut, beside the one with which the history goes on
constexpr std::uint64_t kOneOnDisk = 240;  ///< one image of so many is laid out and opened on the disk under test
constexpr std::size_t kRequests = 60;

/// About as many calls change the disk.
struct Calls {
  std::uint64_t opening{}, life{};
};
constexpr Calls kFirstLife{100, 200}, kLaterLife{50, 150};

bool changes_disk(Operation operation) {
  switch (operation) {
    case Operation::kCreate:
    case Operation::kWrite:
    case Operation::kSync:
    case Operation::kRename:
    case Operation::kLink:
    case Operation::kDelete:
    case Operation::kSyncDirectory:
      return true;
    case Operation::kOpen:
    case Operation::kRead:
    case Operation::kList:
      return false;
  }
  return false;
}

std::uint64_t cuts_of(std::uint64_t seed) { return 1 + Random(~seed)() % kMaxCuts; }

class PowerRun {
 public:
  PowerRun(std::uint64_t seed, const Scratch& scratch, const Portion& portion)
      : seed_(seed), scratch_(scratch), portion_(portion), world_(seed, portion.clients.value_or(World::kClients)) {}

  RunResult run() {
    const std::uint64_t cuts = cuts_of(seed_);
    for (std::uint64_t i = 1; i <= cuts && result_.failures.empty(); ++i) {
      if (!has_fault(portion_, i - 1)) continue;
      random_.seed(~(seed_ * (kMaxCuts + 1) + i));  // what one cut does is not up to those before it
      if (one_in(random_, i == 1 ? 4 : 2)) live_and_stop(i);
      if (result_.failures.empty()) live_and_cut(i);
    }
    if (result_.failures.empty()) live_to_the_end();
    for (const std::string& complaint : world_.complaints()) result_.add_failure(complaint);
    return std::move(result_);
  }

 private:
  Witness witness() const { return {world_.calls(), kForever, world_.config(), before_, false}; }

  World::Plan plan(std::string where) {
    World::Plan plan;
    plan.requests = portion_.operations.value_or(kRequests);
    plan.takes_snapshots = seed_ % 4 != 0;
    plan.ack = ack_;
    plan.on_recovered = [this, where = std::move(where)](const Recovered& recovered) {
      const Verdict verdict = check_history(world_.calls(), kForever, recovered, before_);
      result_.add_findings(verdict, where);
      before_ = verdict.records;
    };
    return plan;
  }

  /// So that what is cut next begins with a log that was noted, and its snapshot.
  void live_and_stop(std::uint64_t number) {
    const World::Life life = world_.live(disk_, plan(fmt::format("opened for the stop before cut {}", number)));
    if (life.end != World::End::kStopped) {
      return result_.add_failure(fmt::format("before cut {}: {}", number, describe(life)));
    }
    result_.add_recovery(life.recovery_ms);
  }

  void live_and_cut(std::uint64_t number) {
    const bool while_opening = one_in(random_, 4);
    const Calls about = before_.empty() ? kFirstLife : kLaterLife;
    const std::uint64_t at = between(random_, 1, while_opening ? about.opening : about.life);
    std::uint64_t calls = 0;
    std::shared_ptr<SimulatedDisk> cut;
    std::string where = fmt::format("cut {} after a clean stop", number);
    World::Plan plan = this->plan(fmt::format("opened before cut {}", number));
    plan.hook = [&](const SimulatedDisk::Call& call) {
      if (!cut && changes_disk(call.operation) && ++calls == at) {
        cut = disk_->copy();
        where = fmt::format("cut {} at change {}, of {}", number, at, call.path);
      }
      return SimulatedDisk::Fault{};
    };
    plan.is_cut = [&] { return cut != nullptr; };
    const World::Life life = world_.live(disk_, plan);
    if (life.end != World::End::kStopped && life.end != World::End::kCut) {
      return result_.add_failure(fmt::format("before cut {}: {}", number, describe(life)));
    }
    if (!cut) cut = disk_->copy();
    result_.add_recovery(life.recovery_ms);
    judged_.clear();
    for (int i = 0; i < kImages; ++i) look_at(*cut, fmt::format("{}, image {}", where, i + 1));
    disk_ = cut->after_power_cut(random_);
    ++result_.faults[fault_];
  }

  static std::string describe(const World::Life& life) {
    switch (life.end) {
      case World::End::kRefused:
        return "the service refused to start: " + life.why.ToString();
      case World::End::kDiskFailed:
        return "the service ended: " + life.why.ToString();
      case World::End::kStuck:
        return "nobody is answered any more";
      case World::End::kStopped:
      case World::End::kCut:
        break;
    }
    return "";
  }

  void look_at(const SimulatedDisk& cut, const std::string& where) {
    const std::shared_ptr<SimulatedDisk> image = cut.after_power_cut(random_);
    const bool on_disk = one_in(random_, kOneOnDisk);
    if (!judged_.insert(image->digest()).second && !on_disk) return;
    const Inspection found = on_disk ? inspect_on_disk(*image, scratch_, witness()) : inspect(image, witness());
    ++result_.faults[on_disk ? fault_ + ", opened under --data-dir" : fault_];
    result_.add_recovery(found.recovery_ms);
    if (!found.opening.ok()) {
      return result_.add_failure(fmt::format("{}: the service would not start: {}", where, found.opening.ToString()));
    }
    result_.add_findings(found.verdict, where);
  }

  void live_to_the_end() {
    const World::Life life = world_.live(disk_, plan("opened after the last cut"));
    if (life.end != World::End::kStopped) return result_.add_failure("at the end: " + describe(life));
    result_.add_recovery(life.recovery_ms);
    const Inspection found = inspect(disk_, witness());
    if (!found.opening.ok()) return result_.add_failure("at the end: " + found.opening.ToString());
    result_.add_findings(found.verdict, "at the end");
    result_.count(found.verdict);
    if (world_.unanswered() > 0)
      result_.add_failure(fmt::format("{} requests were never answered", world_.unanswered()));
  }

  const std::uint64_t seed_;
  Random random_;
  const Scratch& scratch_;
  const Portion& portion_;
  const storage::Ack ack_{seed_ % 3 == 2 ? storage::Ack::kWal : storage::Ack::kAnchor};
  const std::string fault_{ack_ == storage::Ack::kWal ? "power cut, --ack wal" : "power cut"};
  World world_;
  std::shared_ptr<SimulatedDisk> disk_ = std::make_shared<SimulatedDisk>();
  std::vector<Digest> before_;  ///< records that are durable for certain
  std::set<Digest> judged_;     ///< images of the present cut
  RunResult result_;
};

}  // namespace

RunResult run_power(std::uint64_t seed, const Scratch& scratch, const Portion& portion) {
  return PowerRun(seed, scratch, portion).run();
}

Portion whole_power(std::uint64_t seed) { return {World::kClients, kRequests, all_faults(cuts_of(seed))}; }

}  // namespace tensorforge::crashtest
