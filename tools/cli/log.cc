// tensorforge log: the audit log, asked of the service or read from a stopped data directory.
#include <chrono>
#include <cmath>
#include <span>
#include <thread>

#include <fmt/format.h>

#include "log_source.h"
#include "platform/names.h"
#include "program.h"
#include "service/recover.h"

namespace tensorforge::cli {
namespace {

constexpr std::uint64_t kDefaultTail = 20;
constexpr std::chrono::milliseconds kPollInterval{300};
constexpr std::size_t kDetailsWidth = 120;

const std::vector<Column> kLogColumns{{"sequence", "SEQUENCE"}, {"time", "TIME"},      {"actor", "ACTOR"},
                                      {"event", "EVENT"},       {"streams", "ENTITY"}, {"details", "DETAILS"},
                                      {"reason", "REASON"}};

struct Source {
  std::optional<std::string> data_directory;

  CLI::Option* declare(Verb& verb) {
    return verb.text("--data-dir", data_directory, "Read a stopped service's directory instead");
  }
  std::unique_ptr<LogSource> open(Context& context) const {
    return data_directory ? open_stopped_log(*data_directory) : open_service_log(context);
  }
};

Json to_entry(const result::LogRecord& stored) {
  const Result<Record> record = codec::decode_record(std::as_bytes(std::span(stored.record)));
  if (!record.ok()) throw Failure{Exit::VerificationFailed, record.status()};
  if (stored.note.empty()) return log_entry(*record, std::nullopt);
  const Result<Note> note = codec::decode_note(std::as_bytes(std::span(stored.note)));
  if (!note.ok()) throw Failure{Exit::VerificationFailed, note.status()};
  return log_entry(*record, *note);
}

/// What an event says beside its entity, on one short line.
std::string details(const Json& data) {
  const bool wrapped = data.size() == 1 && data.front().is_object();
  std::string text;
  for (const auto& [key, value] : (wrapped ? data.front() : data).items()) {
    const bool says_nothing = value.is_null() || value == Json(false) || (value.is_number() && value == 0) ||
                              ((value.is_string() || value.is_structured()) && display(key, value).empty());
    const bool is_elsewhere = key == "model_id" || key == "device_id" || key == "training_run_id" ||  // the entity
                              key == "registered_at" || key == "created_at" || key == "at";           // the time
    if (says_nothing || is_elsewhere) continue;
    const std::string shown = value.is_number() ? dump(value) : display(key, value);
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", key, shown);
  }
  if (text.size() <= kDetailsWidth) return text;
  text.resize(kDetailsWidth);
  while (!names::is_utf8(text)) text.pop_back();
  return text + "…";
}

void add_entry(List& list, const Output& out, Json entry) {
  if (out.format() == Format::Text) entry["details"] = details(entry["data"]);
  list.add(entry);
}

struct Tail {
  Source source;
  std::optional<Sequence> from;
  std::optional<std::uint64_t> count;
  bool follow{};
};

void tail(Context& context, const Tail& args) {
  const std::unique_ptr<LogSource> log = args.source.open(context);
  const Sequence end = log->end();
  const std::uint64_t count = args.count.value_or(args.from ? end : kDefaultTail);
  Sequence next = args.from ? std::max<Sequence>(*args.from, 1) : end - std::min(end, count) + 1;
  std::uint64_t left = count;
  List list(context.out(), kLogColumns);
  const auto print = [&](const result::LogRecord& stored) {
    if (left == 0) return false;
    add_entry(list, context.out(), to_entry(stored));
    ++next;
    return --left > 0;
  };
  if (left > 0) each_record(*log, next, print);
  if (!args.follow) return list.finish();
  for (left = std::numeric_limits<std::uint64_t>::max();; std::this_thread::sleep_for(kPollInterval)) {
    list.flush();
    each_record(*log, next, print);
  }
}

void add_tail(Noun& log) {
  auto args = std::make_shared<Tail>();
  Verb verb = log.verb("tail", "Print the end of the log", "tensorforge log tail --follow");
  verb.whole("-n", args->count, "How many records; default 20, with --from all");
  verb.whole("--from", args->from, "From this sequence on");
  CLI::Option* follow =
      verb.flag("--follow", args->follow, "Go on with what comes; with --json this prints JSON Lines");
  args->source.declare(verb)->excludes(follow);
  verb.run([args](Context& context) {
    if (args->follow) context.out().use_json_lines();
    tail(context, *args);
  });
}

struct Show {
  Source source;
  Sequence sequence{};
};

void show(Context& context, const Show& args) {
  const std::unique_ptr<LogSource> log = args.source.open(context);
  const Sequence end = log->end();
  if (args.sequence < 1 || args.sequence > end) {
    throw refusal(absl::NotFoundError(fmt::format("record {}: the log has 1 to {}", args.sequence, end)));
  }
  each_record(*log, args.sequence, [&](const result::LogRecord& stored) {
    Json entry = to_entry(stored);
    entry["record_bytes"] = stored.record.size();
    if (stored.salt) entry["salt"] = format_session(*stored.salt);
    if (context.out().format() == Format::Text) {
      const Json data = entry["data"];
      entry.erase("data");
      for (const auto& [key, value] : data.items()) entry["data." + key] = value;
    }
    context.out().object(entry);
    return false;
  });
}

void add_show(Noun& log) {
  auto args = std::make_shared<Show>();
  Verb verb = log.verb("show", "Show one record with all its fields, and its note", "tensorforge log show 42");
  verb.whole("SEQUENCE", args->sequence, "Its place in the log")->required();
  args->source.declare(verb);
  verb.run([args](Context& context) { show(context, *args); });
}

struct History {
  Source source;
  std::string stream;
  std::optional<std::uint64_t> limit;
};

void history(Context& context, const History& args) {
  const std::unique_ptr<LogSource> log = args.source.open(context);
  std::uint64_t left = args.limit.value_or(std::numeric_limits<std::uint64_t>::max());
  List list(context.out(), kLogColumns);
  each_page(*log, query::ReadHistory{args.stream, {}}, args.limit, [&](Reply reply) {
    for (const result::LogRecord& stored : Connection::result_as<result::LogRecords>(std::move(reply)).records) {
      if (left == 0) break;
      --left;
      add_entry(list, context.out(), to_entry(stored));
    }
    list.flush();
    return left > 0;
  });
  list.finish();
}

void add_history(Noun& log) {
  auto args = std::make_shared<History>();
  Verb verb = log.verb("history", "Print the records of one stream", "tensorforge log history model/resnet50");
  verb.text("STREAM", args->stream, "model/ID, pool/DEVICE, run/RUN, session/HEX, principal/NAME or server")
      ->required();
  verb.limit(args->limit);
  args->source.declare(verb);
  verb.run([args](Context& context) { history(context, *args); });
}

struct ReplayArgs {
  Source source;
  std::optional<Sequence> until;
};

void fold(LogSource& log, Sequence until, service::Replay& replay) {
  if (until == 0) return;
  Progress progress("replayed", until);
  Sequence seen = 0;
  each_record(log, 1, [&](const result::LogRecord& stored) {
    const absl::Status added = replay.add(std::as_bytes(std::span(stored.record)));
    if (!added.ok()) throw Failure{Exit::VerificationFailed, added};
    progress.update(++seen);
    return !replay.done() && seen < until;
  });
}

void replay(Context& context, const ReplayArgs& args) {
  const std::unique_ptr<LogSource> log = args.source.open(context);
  const Sequence end = log->end();
  const Sequence until = args.until.value_or(end);
  if (until > end) throw wrong_usage(fmt::format("--until {}: the log ends at {}", until, end));
  service::Replay folded(until);
  const auto start = std::chrono::steady_clock::now();
  fold(*log, until, folded);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const service::State& state = folded.state();
  context.out().object({{"sequence", state.sequence},
                        {"state_digest", format_digest(state.digest())},
                        {"time", state.time},
                        {"models", state.registry.model_count()},
                        {"model_versions", state.registry.version_count()},
                        {"pools", state.gpu_memory.pool_count()},
                        {"live_blocks", state.gpu_memory.live_block_count()},
                        {"checkpoints", state.checkpoint.total_count()},
                        {"sessions", state.sessions.size()},
                        {"seconds", took.count()},
                        {"events_per_second", std::round(static_cast<double>(state.sequence) / took.count())}});
}

void add_replay(Noun& log) {
  auto args = std::make_shared<ReplayArgs>();
  Verb verb = log.verb("replay", "Rebuild all state from the log and print what it is, and its digest",
                       "tensorforge log replay --until 1000");
  verb.whole("--until", args->until, "Only up to this sequence, or the end of the last command before it");
  args->source.declare(verb);
  verb.run([args](Context& context) { replay(context, *args); });
}

void add_verify(Noun& log) {
  auto source = std::make_shared<Source>();
  Verb verb = log.verb("verify", "Check the whole log; exit code 4 where it does not hold",
                       "tensorforge log verify --data-dir /var/lib/tensorforge");
  source->declare(verb);
  verb.run([source](Context& context) {
    context.allow(kLongest);
    Json json{{"verified", true}};
    json.update(to_json(source->open(context)->verify()));
    context.out().object(json);
  });
}

}  // namespace

void add_log(CLI::App& app, Program& program) {
  Noun log(app, program, "log", "The audit log: every change, who made it and why", "tensorforge log tail");
  add_tail(log);
  add_show(log);
  add_history(log);
  add_replay(log);
  add_verify(log);
}

}  // namespace tensorforge::cli
