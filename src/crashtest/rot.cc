// The level `rot`: a stopped data directory is damaged in one place, and is opened as the service opens it. One run is
// one damage; files and kinds of damage go round with the seed.
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/strings/str_replace.h>
#include <fmt/format.h>

#include "crashtest/inspection.h"
#include "crashtest/level.h"
#include "crashtest/recovery.h"
#include "crashtest/world.h"

namespace tensorforge::crashtest {
namespace {

namespace fs = std::filesystem;

using Files = std::map<std::string, std::string>;  ///< by path from the data directory
using Random = std::mt19937_64;

enum class Damage { kFlipBit, kZeros, kSwapSectors, kStaleSector, kTruncate, kDoubleTail, kDelete, kOlderCopy };
constexpr std::array<const char*, 8> kNames = {
    "a flipped bit", "512 bytes of zeros", "two sectors swapped", "a stale sector",
    "a cut end",     "a tail twice",       "a missing file",      "an older copy of a file",
};
constexpr const char* kRolledBack = "an older copy of the whole directory";

constexpr std::size_t kSector = 512;
constexpr std::uint64_t kRunsOfOneHistory = 4'096;
constexpr std::uint64_t kOneRolledBack = 64;  ///< one run of so many
constexpr std::size_t kRequests = 60;

std::uint64_t below(Random& random, std::uint64_t limit) { return limit == 0 ? 0 : random() % limit; }

/// A directory as a clean stop left it, what it was before, and what the clients know.
struct History {
  std::uint64_t seed{};
  std::unique_ptr<World> world;
  std::shared_ptr<SimulatedDisk> stopped_before;  ///< after the first life
  Files files, in_between, before;                ///< at the end, in the second life, after the first
  std::vector<Digest> records;                    ///< of the log at the end
  std::string problem;
};

Witness witness_of(const History& history) {
  static const std::vector<Digest> nothing;
  return {history.world->calls(), kForever - 1, history.world->config(), nothing, false};
}

History make_history(std::uint64_t seed) {
  History history;
  history.seed = seed;
  history.world = std::make_unique<World>(seed);
  const auto disk = std::make_shared<SimulatedDisk>();
  World::Plan plan;
  plan.requests = kRequests;
  plan.takes_snapshots = true;
  World::Life life = history.world->live(disk, plan);
  history.stopped_before = disk->copy();
  history.before = disk->files_below(World::kDataDir);
  std::uint64_t syncs = 0;
  plan.hook = [&](const SimulatedDisk::Call& call) {
    const bool of_log = call.operation == SimulatedDisk::Operation::kSync && call.path.ends_with(".log");
    if (of_log && ++syncs == 10) history.in_between = disk->files_below(World::kDataDir);
    return SimulatedDisk::Fault{};
  };
  if (life.end == World::End::kStopped) life = history.world->live(disk, plan);
  if (life.end != World::End::kStopped) history.problem = "before any damage: " + life.why.ToString();
  history.files = disk->files_below(World::kDataDir);
  if (history.problem.empty()) {
    const Inspection whole = inspect(disk, witness_of(history));
    history.problem = whole.opening.ok() ? "" : "before any damage: " + whole.opening.ToString();
    history.records = whole.verdict.records;
  }
  return history;
}

/// The history of the runs before, if this is one of them: a worker makes each but once.
const History& history_of(std::uint64_t seed) {
  static std::optional<History> last;
  if (!last || last->seed != seed) last = make_history(seed);
  return *last;
}

/// "db/MANIFEST-000005" and "db/MANIFEST-000021" are the same kind of file.
std::string kind_of_file(const std::string& path) {
  std::string kind = path;
  std::erase_if(kind, [](char c) { return c >= '0' && c <= '9'; });
  return kind;
}

/// The same file in an older state, or one of its kind.
const std::string* older_copy(const History& history, const std::string& path) {
  for (const Files* files : {&history.in_between, &history.before}) {
    const auto same = files->find(path);
    if (same != files->end() && same->second != history.files.at(path)) return &same->second;
  }
  const auto of_kind = std::find_if(history.before.begin(), history.before.end(),
                                    [&](const auto& file) { return kind_of_file(file.first) == kind_of_file(path); });
  return of_kind == history.before.end() ? nullptr : &of_kind->second;
}

void put(std::string& bytes, std::size_t offset, std::string_view part) {
  bytes.replace(offset, std::min(part.size(), bytes.size() - offset), part.substr(0, bytes.size() - offset));
}

/// Damages one file of `files`. Where it did it; empty: this file cannot be damaged so.
std::string damage(Random& random, const History& history, Damage how, const std::string& path, Files& files) {
  std::string& bytes = files.at(path);
  const std::size_t sectors = (bytes.size() + kSector - 1) / kSector;
  const std::size_t offset = below(random, sectors) * kSector;
  switch (how) {
    case Damage::kDelete:
      files.erase(path);
      return "whole";
    case Damage::kOlderCopy: {
      const std::string* const older = older_copy(history, path);
      if (older == nullptr) return "";
      bytes = *older;
      return "whole";
    }
    default:
      break;
  }
  if (bytes.empty()) return "";
  switch (how) {
    case Damage::kFlipBit: {
      const std::size_t at = below(random, bytes.size());
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(random, 8)));
      return fmt::format("byte {}", at);
    }
    case Damage::kZeros:
      put(bytes, offset, std::string(kSector, '\0'));
      return fmt::format("from {}", offset);
    case Damage::kSwapSectors: {
      const std::size_t other = below(random, sectors) * kSector;
      const std::string one = bytes.substr(offset, kSector), two = bytes.substr(other, kSector);
      if (one.size() != two.size()) return "";
      put(bytes, offset, two);
      put(bytes, other, one);
      return fmt::format("{} and {}", offset, other);
    }
    case Damage::kStaleSector: {
      const std::string* const older = older_copy(history, path);
      if (older == nullptr || offset >= older->size()) return "";
      std::string stale = older->substr(offset, kSector);
      stale.resize(kSector);
      put(bytes, offset, stale);
      return fmt::format("from {}", offset);
    }
    case Damage::kTruncate:
      bytes.resize(below(random, bytes.size()));
      return fmt::format("at {}", bytes.size());
    case Damage::kDoubleTail: {
      const std::size_t tail = std::min<std::size_t>(bytes.size(), 1 + below(random, 2'048));
      bytes += bytes.substr(bytes.size() - tail);
      return fmt::format("{} bytes", tail);
    }
    case Damage::kDelete:
    case Damage::kOlderCopy:
      break;
  }
  return "";
}

/// A directory of the machine's file system with these files, removed at the end.
class Laid {
 public:
  Laid(const Scratch& scratch, const Files& files) : path_(fs::path(scratch.directory) / "data") {
    for (const auto& [name, bytes] : files) {
      fs::create_directories((path_ / name).parent_path());
      std::ofstream(path_ / name, std::ios::binary) << bytes;
    }
  }
  ~Laid() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Laid(const Laid&) = delete;
  Laid& operator=(const Laid&) = delete;

  std::string path() const { return path_.string(); }
  Files read() const {
    Files files;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path_)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      files[entry.path().lexically_relative(path_).string()] = {std::istreambuf_iterator<char>(file), {}};
    }
    return files;
  }

 private:
  const fs::path path_;
};

/// Whether a refusal tells people where to look.
bool names_something(absl::string_view text, const std::string& data_dir) {
  const std::string message = absl::StrReplaceAll(text, {{data_dir, ""}});
  constexpr std::array kWords = {"event", "sequence", "record", "HEAD", "/db", ".sst", ".log", "MANIFEST", "CURRENT"};
  return std::any_of(kWords.begin(), kWords.end(),
                     [&](std::string_view word) { return message.find(word) != std::string::npos; });
}

class Probe {
 public:
  Probe(const History& history, const Scratch& scratch, std::string where, RunResult& result)
      : history_(history), scratch_(scratch), where_(std::move(where)), result_(result) {}

  /// `may_lose_events`: what is damaged holds some.
  void run(const Files& files, bool may_lose_events) {
    const Laid laid(scratch_, files);
    const Inspection first = look(laid);
    if (first.opening.ok()) {
      // What the first opening took as it was must not spoil the next one.
      if (judge_served(first, laid)) look_again(laid);
      return;
    }
    judge_refusal(first.opening, laid);
    Files after = laid.read();
    if (files.count("LOCK") == 0) after.erase("LOCK");
    if (after != files) return fail("it was refused and changed all the same");
    if (absl::IsDataLoss(first.opening)) accept_loss(laid, files, may_lose_events);
  }

 private:
  void fail(const std::string& what) { result_.add_failure(fmt::format("{}: {}", where_, what)); }

  Inspection look(const Laid& laid) {
    Inspection found = inspect_directory(laid.path(), witness_of(history_));
    if (found.opening.ok()) result_.recovery_ms.push_back(found.recovery_ms);
    return found;
  }

  void judge_refusal(const absl::Status& refusal, const Laid& laid) {
    ++result_.verdicts["refused"];
    const int code = storage::exit_code(refusal);
    if (code != 1 && code != 2)
      fail(fmt::format("taken for something else (exit code {}): {}", code, refusal.ToString()));
    if (!names_something(refusal.message(), laid.path())) fail("names nothing: " + refusal.ToString());
  }

  /// What --accept-loss makes of a refused directory: a log that is a beginning of what it was, and goes on, with all
  /// that was there kept aside.
  void accept_loss(const Laid& laid, const Files& files, bool may_lose_events) {
    where_ += ", with --accept-loss";
    storage::OpenOptions options;
    options.data_dir = laid.path();
    options.accept_loss = true;
    const absl::Status accepted = open_and_recover(options).status();
    if (!accepted.ok()) return fail("refused: " + accepted.ToString());
    where_ += ", opened again";
    const Inspection found = inspect_directory(laid.path(), witness_of(history_));
    if (!found.opening.ok()) return fail("refused: " + found.opening.ToString());
    const std::vector<Digest>& kept = found.verdict.records;
    const std::vector<Digest>& all = history_.records;
    for (const Finding& each : found.verdict.findings) {
      const bool is_note = may_lose_events && each.violation == Violation::kLostNote;  // or the table of notes is gone
      const bool follows = kept.size() < all.size() && follows_from_loss(each.violation);
      if (!is_note && !follows) fail(each.what);
    }
    if (kept.size() > all.size() || !std::equal(kept.begin(), kept.end(), all.begin())) {
      return fail("the log is not a beginning of what it was");
    }
    if (!may_lose_events && kept.size() < all.size()) {
      return fail(
          fmt::format("{} of {} events are kept, and no file that holds any was damaged", kept.size(), all.size()));
    }
    const Files after = laid.read();
    for (const auto& [name, bytes] : files) {
      const bool may_stay = !name.starts_with("db/");
      const bool is_aside = std::any_of(after.begin(), after.end(), [&](const auto& file) {
        const bool is_it =
            file.first.starts_with("lost-") ? file.first.ends_with("/" + name) : may_stay && file.first == name;
        return is_it && file.second == bytes;
      });
      if (!is_aside) fail(name + " is not kept as it was");
    }
    const char* const how_much = kept.size() == all.size() ? "all" : kept.empty() ? "nothing" : "a part";
    ++result_.verdicts[fmt::format("with --accept-loss, {} is kept", how_much)];
  }

  /// Of what clients know, and a shorter log does not.
  static bool follows_from_loss(Violation violation) {
    switch (violation) {
      case Violation::kLost:
      case Violation::kLostNote:
      case Violation::kChangedAnswer:
      case Violation::kUnexplained:
      case Violation::kOrder:
        return true;
      default:
        return false;
    }
  }

  /// True: nothing is wrong with what is served.
  bool judge_served(const Inspection& found, const Laid& laid) {
    const std::vector<Finding>& findings = found.verdict.findings;
    const bool named = std::all_of(findings.begin(), findings.end(), [&](const Finding& each) {
      return each.violation == Violation::kUnreadable && names_something(each.what, laid.path());
    });
    // Nothing tells a lost note from one that was erased: docs/crash_testing.md, "Limits".
    const bool only_notes = std::all_of(findings.begin(), findings.end(),
                                        [](const Finding& each) { return each.violation == Violation::kLostNote; });
    if (found.verdict.ok()) {
      ++result_.verdicts["harmless"];
    } else if (named) {
      ++result_.verdicts["named while reading"];
    } else if (only_notes) {
      ++result_.verdicts["a note is missing"];
    } else {
      result_.add_findings(found.verdict, where_);
    }
    return found.verdict.ok();
  }

  void look_again(const Laid& laid) {
    where_ += ", opened again";
    const Inspection found = look(laid);
    if (!found.opening.ok()) return fail("served once, then refused: " + found.opening.ToString());
    result_.add_findings(found.verdict, where_);
    result_.count(found.verdict);
  }

  const History& history_;
  const Scratch& scratch_;
  std::string where_;
  RunResult& result_;
};

/// Clients that know more than the directory must be told so.
void roll_back(std::uint64_t seed, RunResult& result) {
  const History history = make_history(seed);
  if (!history.problem.empty()) return result.add_failure(history.problem);
  World::Plan plan;
  plan.requests = 6;
  history.world->live(history.stopped_before->copy(), plan);
  ++result.faults[kRolledBack];
  const std::vector<std::string>& complaints = history.world->complaints();
  const auto told = std::count_if(complaints.begin(), complaints.end(), [](const std::string& complaint) {
    return complaint.find("rolled back") != std::string::npos;
  });
  if (told == 6) return;
  result.add_failure(fmt::format("{}: 6 requests of clients that had seen more, {} were told", kRolledBack, told));
}

}  // namespace

RunResult run_rot(std::uint64_t seed, const Scratch& scratch, const Portion&) {
  RunResult result;
  const std::uint64_t history_seed = seed / kRunsOfOneHistory;
  if (seed % kOneRolledBack == 0) {
    roll_back(history_seed, result);
    return result;
  }
  const History& history = history_of(history_seed);
  if (!history.problem.empty()) {
    result.add_failure(history.problem);
    return result;
  }
  Random random(seed);
  Files files = history.files;
  const auto how = static_cast<Damage>(seed % kNames.size());
  const std::string path =
      std::next(files.begin(), static_cast<std::ptrdiff_t>(seed / kNames.size() % files.size()))->first;
  const std::string place = damage(random, history, how, path, files);
  if (place.empty() || files == history.files) return result;
  const char* const name = kNames[static_cast<std::size_t>(how)];
  ++result.faults[name];
  Probe(history, scratch, fmt::format("{}: {}, {}", path, name, place), result)
      .run(files, path.ends_with(".sst") || path.ends_with(".log"));
  return result;
}

}  // namespace tensorforge::crashtest
