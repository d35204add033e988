// tensorforge pool replay: drives a recorded trace of allocations through a pool.
#include <chrono>
#include <unordered_map>

#include <fmt/format.h>

#include "pipeline.h"
#include "platform/names.h"
#include "program.h"

namespace tensorforge::cli {
namespace {

// Two requests for each line: the change, and the statistics that it left behind.
constexpr std::size_t kWindow = 256;

struct TraceLine {
  bool allocates{};
  std::string id;
  std::uint64_t bytes{};
};

Result<TraceLine> parse_trace_line(const CsvLine& line, const std::unordered_map<std::string, bool>& held) {
  if (line.fields.size() != 4) return absl::InvalidArgumentError("not op,id,bytes,time");
  const std::string& op = line.fields[0];
  TraceLine parsed{op == "a", line.fields[1], 0};
  if (op != "a" && op != "f")
    return absl::InvalidArgumentError(fmt::format("{} is neither a nor f", names::quoted(op)));
  const auto holder = held.find(parsed.id);
  const bool is_held = holder != held.end() && holder->second;
  if (parsed.allocates == is_held) {
    return absl::InvalidArgumentError(
        fmt::format("{} {}", names::quoted(parsed.id), is_held ? "is held already" : "holds nothing to free"));
  }
  if (!parsed.allocates) return parsed;
  const Result<std::uint64_t> bytes = parse_whole(line.fields[2]);
  if (!bytes.ok()) return bytes.status();
  parsed.bytes = *bytes;
  return parsed;
}

std::vector<TraceLine> read_trace(const std::string& path) {
  std::vector<TraceLine> trace;
  std::unordered_map<std::string, bool> held;
  for (const CsvLine& line : parse_csv(read_input(path))) {
    Result<TraceLine> parsed = parse_trace_line(line, held);
    if (!parsed.ok()) {
      throw wrong_usage(
          fmt::format("{}: line {}: {}", names::quoted(path), line.number, std::string(parsed.status().message())));
    }
    held[parsed->id] = parsed->allocates;
    trace.push_back(*std::move(parsed));
  }
  return trace;
}

struct ReplayOptions {
  std::string device_id, path;
  std::uint64_t alignment{1};
  bool cache{};
  ChangeOptions change;
};

/// One run of a trace: what it holds, and what it found.
class Replay {
 public:
  Replay(client::Client& client, const ReplayOptions& options) : options_(options), pipeline_(client, kWindow) {}

  void run(const std::vector<TraceLine>& trace, Progress& progress) {
    for (const TraceLine& line : trace) {
      if (line.allocates) {
        allocate(line);
      } else {
        release(line.id);
      }
      pipeline_.submit(query::GetPoolStats{options_.device_id},
                       [this](const client::Answer& answer) { on_stats(answer); });
      progress.update(++lines_);
    }
    pipeline_.drain();
  }

  Json report(double seconds) const {
    Json json{{"device_id", options_.device_id},
              {"operations", lines_},
              {"allocations", allocations_},
              {"releases", releases_},
              {"failures", failures_},
              {"evictions", evictions_},
              {"peak_bytes", peak_bytes_},
              {"max_fragmentation_ratio", max_fragmentation_ratio_},
              {"final_fragmentation_ratio", final_fragmentation_ratio_},
              {"operations_per_second", seconds > 0 ? static_cast<double>(lines_) / seconds : 0.0}};
    if (sequence_ > 0) {
      json["sequence"] = sequence_;
      json["request_id"] = request_id_;
    }
    return json;
  }

 private:
  struct Holding {
    bool answered{};
    std::optional<std::string> block_id;  // nullopt: refused
  };

  client::CommandOptions command_options() {
    // The condition is about what others did before the replay; all that follows is our own.
    return {std::exchange(first_, false) ? options_.change.if_sequence : std::nullopt, options_.change.reason};
  }

  void allocate(const TraceLine& line) {
    Holding& holding = holdings_[line.id] = Holding{};  // a node of the map stays where it is
    const gpu_memory::AllocationRequest request{"trace/" + line.id, line.bytes, options_.alignment, false, 0};
    pipeline_.submit(gpu_memory::Allocate{options_.device_id, request}, command_options(),
                     [this, &holding](const client::Answer& answer) {
                       holding.answered = true;
                       on_allocated(holding, answer);
                     });
  }

  void on_allocated(Holding& holding, const client::Answer& answer) {
    if (absl::IsResourceExhausted(answer.status)) {
      ++failures_;
      return;
    }
    note_change(answer);
    auto allocated = Connection::result_as<result::Allocated>(answer.reply);
    ++allocations_;
    evictions_ += allocated.evicted_blocks;
    holding.block_id = std::move(allocated.block_id);
  }

  /// Commands are carried out in order; only the id of the block has to be waited for.
  void release(const std::string& id) {
    Holding& holding = holdings_.at(id);
    pipeline_.wait_until([&] { return holding.answered; });
    if (!holding.block_id) return;
    ++releases_;
    const auto on_released = [this](const client::Answer& answer) { note_change(answer); };
    if (options_.cache) {
      pipeline_.submit(gpu_memory::CacheBlock{options_.device_id, *holding.block_id}, command_options(), on_released);
    } else {
      pipeline_.submit(gpu_memory::FreeBlock{options_.device_id, *holding.block_id}, command_options(), on_released);
    }
  }

  void note_change(const client::Answer& answer) {
    if (!answer.status.ok()) throw refusal(answer.status);
    sequence_ = std::max(sequence_, answer.reply.sequence);
    request_id_ = answer.request_id;
  }

  void on_stats(const client::Answer& answer) {
    if (!answer.status.ok()) throw refusal(answer.status);
    const gpu_memory::PoolStats stats = Connection::result_as<result::PoolStats>(answer.reply).stats;
    peak_bytes_ = std::max<std::uint64_t>(peak_bytes_, stats.allocated_bytes + stats.pinned_bytes);
    max_fragmentation_ratio_ = std::max(max_fragmentation_ratio_, stats.fragmentation_ratio);
    final_fragmentation_ratio_ = stats.fragmentation_ratio;
  }

  const ReplayOptions& options_;
  bool first_{true};
  std::unordered_map<std::string, Holding> holdings_;
  std::uint64_t lines_{}, allocations_{}, releases_{}, failures_{}, evictions_{}, peak_bytes_{};
  double max_fragmentation_ratio_{}, final_fragmentation_ratio_{};
  Sequence sequence_{};
  std::string request_id_;
  Pipeline pipeline_;  // last, so that what its handlers touch outlives it
};

}  // namespace

void add_pool_replay(Noun& pool) {
  auto args = std::make_shared<ReplayOptions>();
  Verb verb = pool.verb("replay", "Drive a trace of allocations through a pool and report how it fared",
                        "tensorforge pool replay node1/gpu0 minimalloc_A.csv");
  verb.text("DEVICE", args->device_id, "The device; its pool must exist")->required();
  verb.text("FILE", args->path, "Lines of op,id,bytes,time: a allocates, f frees what id holds; # begins a comment")
      ->required();
  verb.size("--align", args->alignment, "Alignment of each block, a power of two; default 1");
  verb.flag("--cache", args->cache, "Leave what is freed in the pool as Cached, to be evicted when memory is needed");
  verb.change(args->change);
  verb.run([args](Context& context) {
    const std::vector<TraceLine> trace = read_trace(args->path);
    Progress progress("replayed", trace.size());
    Replay replay(context.service().client(), *args);
    const auto start = std::chrono::steady_clock::now();
    replay.run(trace, progress);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    progress.clear();
    context.out().object(replay.report(took.count()));
  });
}

}  // namespace tensorforge::cli
