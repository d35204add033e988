#include "service/service.h"

#include <cassert>
#include <limits>
#include <type_traits>
#include <variant>

#include <openssl/sha.h>

#include "fmt/format.h"
#include "platform/deliberate_bug.h"
#include "platform/names.h"
#include "service/queries.h"
#include "service/replies.h"
#include "storage/crash_point.h"

namespace tensorforge::service {
namespace {

/// Answers without events that are kept for retries, of all sessions together.
constexpr std::size_t kMaxRemembered = 16'384;
constexpr std::size_t kMaxRememberedBytes = std::size_t{16} << 20U;

/// Of an answer without events.
std::size_t memory_of(const Reply& reply) {
  const auto* batch = std::get_if<result::BatchResult>(&reply.result);
  return sizeof(Reply) * (1 + (batch == nullptr ? 0 : batch->replies.size())) + reply.status.message().size();
}

std::string model_stream(std::string_view model_id) { return StreamRef{kModelStreams, model_id}.name(); }

/// The stream that a command asks to change; empty: that shows only when it is decided.
struct TargetStream {
  const State& state;

  std::string operator()(const registry::Command& c) const { return std::visit(*this, c); }
  std::string operator()(const gpu_memory::Command& c) const { return std::visit(*this, c); }
  std::string operator()(const checkpoint::Command& c) const { return std::visit(*this, c); }
  std::string operator()(const AcceptClock&) const { return "server"; }

  std::string operator()(const registry::RegisterModel& c) const { return model_stream(c.model.view().model_id); }
  std::string operator()(const registry::TransitionState& c) const { return model_stream(c.model_id); }
  std::string operator()(const registry::RecordValidation& c) const { return model_stream(c.validation.model_id); }

  std::string operator()(const gpu_memory::CreatePool& c) const { return "pool/" + c.device.device_id; }
  template <class C>
  requires requires(C c) { c.device_id; }
  std::string operator()(const C& c) const { return "pool/" + c.device_id; }

  std::string operator()(const checkpoint::CreateCheckpoint& c) const { return "run/" + c.request.training_run_id; }
  std::string operator()(const checkpoint::CollectGarbage&) const { return ""; }
  std::string operator()(const checkpoint::SetPolicy& c) const {
    return c.training_run_id ? "run/" + *c.training_run_id : "server";
  }
  template <class C>
  requires requires(C c) { c.checkpoint_id; }
  std::string operator()(const C& c) const {
    const std::string* run = state.checkpoint.run_of(c.checkpoint_id);
    return run == nullptr ? "" : "run/" + *run;
  }
};

absl::Status check_unchanged(const State& state, const std::string& stream, Sequence if_sequence) {
  const Sequence last = stream.empty() ? 0 : state.last_of(stream);
  if (last <= if_sequence) return absl::OkStatus();
  return absl::AbortedError(fmt::format("stream {} was changed at sequence {}, after {}: read it again and redo",
                                        names::quoted(stream), last, if_sequence));
}

/// Moves what a domain decided behind `events`.
template <class DomainEvents>
absl::Status take_over(Result<DomainEvents>&& decided, absl::InlinedVector<Event, 1>& events) {
  if (!decided.ok()) return decided.status();
  events.reserve(events.size() + decided->size());
  for (auto& event : *decided) events.emplace_back(std::move(event));
  return absl::OkStatus();
}

/// Why a command may not stand in a Batch; nullptr: it may.
const char* barred_from_batch(const SingleCommand& command) {
  if (std::holds_alternative<AcceptClock>(command)) return "AcceptClock";
  if (const auto* gpu = std::get_if<gpu_memory::Command>(&command)) {
    if (std::holds_alternative<gpu_memory::Evict>(*gpu)) return "Evict";
    if (std::holds_alternative<gpu_memory::Defragment>(*gpu)) return "Defragment";
  }
  const auto* checkpoints = std::get_if<checkpoint::Command>(&command);
  const bool collects = checkpoints != nullptr && std::holds_alternative<checkpoint::CollectGarbage>(*checkpoints);
  return collects ? "CollectGarbage" : nullptr;
}

const gpu_memory::AllocationRefused* refused_allocation(const Event& event) {
  const auto* gpu = std::get_if<gpu_memory::Event>(&event);
  return gpu == nullptr ? nullptr : std::get_if<gpu_memory::AllocationRefused>(gpu);
}

/// The pools that the events concern, each once in a row; only a Batch has more than one, and it is short.
std::vector<std::string> pools_of(std::span<const Record> records) {
  std::vector<std::string> pools;
  for (const Record& record : records) {
    const auto* event = std::get_if<gpu_memory::Event>(&record.event);
    if (event == nullptr) continue;
    const std::string_view device_id = stream_of(record.event).id;
    if (pools.empty() || pools.back() != device_id) pools.emplace_back(device_id);
  }
  return pools;
}

/// What a Batch did so far, so that it can be taken back.
struct BatchUndo {
  registry::Undo registry;
  gpu_memory::Undo gpu_memory;
  checkpoint::Undo checkpoint;

  void apply(State& state, const Event& event) {
    struct Applier {
      State& state;
      BatchUndo& undo;
      void operator()(const registry::Event& e) const { registry::apply(state.registry, e, undo.registry); }
      void operator()(const gpu_memory::Event& e) const { gpu_memory::apply(state.gpu_memory, e, &undo.gpu_memory); }
      void operator()(const checkpoint::Event& e) const { checkpoint::apply(state.checkpoint, e, &undo.checkpoint); }
      void operator()(const ServerEvent&) const {}
    };
    std::visit(Applier{state, *this}, event);
  }
  void roll_back(State& state) {
    registry::undo(state.registry, std::move(registry));
    gpu_memory::undo(state.gpu_memory, std::move(gpu_memory));
    checkpoint::undo(state.checkpoint, std::move(checkpoint));
  }
};

/// As they go into a group.
absl::Status encode_all(std::span<const Record> records, std::string& encoded) {
  encoded.clear();
  for (const Record& record : records) {
    const Result<std::string_view> one = codec::encode_record_view(record);
    if (!one.ok()) return one.status();
    storage::put_record(encoded, *one);
  }
  if (encoded.size() <= storage::kMaxCommandBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("the command's records take {} bytes, at most {} are allowed",
                                                encoded.size(), storage::kMaxCommandBytes));
}

}  // namespace

Service::Service(Config config, State state, RandomBytes random, Now now)
    : config_(config),
      state_(std::move(state)),
      random_(std::move(random)),
      now_(now),
      clock_(now, state_.time),
      free_bytes_(std::numeric_limits<std::uint64_t>::max()) {
  for (const auto* device : state_.gpu_memory.pools(std::nullopt, state_.gpu_memory.pool_count())) {
    const auto stats = state_.gpu_memory.stats(device->device_id);
    allocation_rates_.emplace(device->device_id, AllocationRate(stats->allocated_bytes + stats->pinned_bytes));
  }
  if (clock_.suspect()) {
    warnings_.push_back(
        fmt::format("the wall clock ({} ms) is over 366 days past the log's last time ({} ms): changes are refused "
                    "until it is set back or accepted (server accept-clock)",
                    now.wall_ms, state_.time));
  }
}

void Service::on_tick(Now now) {
  now_ = now;
  std::optional<std::string> warning = clock_.on_tick(now);
  if (warning) warnings_.push_back(*std::move(warning));
}

std::vector<std::string> Service::take_warnings() { return std::exchange(warnings_, {}); }

std::string Service::changes_refused_because() const {
  if (free_bytes_ < config_.reserve_bytes) {
    return fmt::format("{} bytes are free on the disk, under the reserve of {}: free some", free_bytes_,
                       config_.reserve_bytes);
  }
  if (clock_.suspect()) {
    return fmt::format(
        "the wall clock ({} ms) is too far ahead of the log's time ({} ms): set it right, or accept it "
        "(server accept-clock)",
        now_.wall_ms, state_.time);
  }
  return "";
}

absl::Status Service::check_session(const SessionId& id, Sequence opened_at) const {
  if (opened_at > state_.sessions.horizon() || state_.sessions.find(id) != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("session {0} was idle for too long and is forgotten: the outcome of what it has open is unknown; see "
                  "log history session/{0}, then begin a new session",
                  format_session(id)));
}

absl::Status Service::check_number(const Request& request, const Sessions::Session* session) const {
  if (request.command_number == 0) return absl::InvalidArgumentError("command number 0: they count from 1");
  if (request.answered_below > request.command_number) {
    return absl::InvalidArgumentError(fmt::format("command {} says that all below {} are answered, itself too",
                                                  request.command_number, request.answered_below));
  }
  std::uint64_t answered_below = std::max<std::uint64_t>(request.answered_below, 1);
  if (session != nullptr) answered_below = std::max(answered_below, session->answered_below);
  if (request.command_number < answered_below) {
    return absl::FailedPreconditionError(
        fmt::format("command {} was answered before, as the session itself said (all below {})", request.command_number,
                    answered_below));
  }
  if (request.command_number - answered_below < state_.sessions.limits().window) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("command {} is {} or more past the lowest unanswered one, {}: wait for that answer",
                  request.command_number, state_.sessions.limits().window, answered_below));
}

Service::Outcome Service::execute(const Caller& caller, const Request& request, Command command) {
  const Sessions::Session* session = state_.sessions.find(caller.session);
  if (session != nullptr) {
    const Sessions::Entry* entry = session->find(request.command_number);
    if (entry != nullptr) return {{}, *entry};
  }
  absl::Status status = check_number(request, session);
  if (status.ok()) status = check_session(caller.session, caller.opened_at);
  if (status.ok()) status = names::check_text("reason", request.reason, names::kMaxTextBytes);
  if (status.ok()) {
    const auto known = remembered_.find({caller.session, request.command_number});
    if (known != remembered_.end()) return {known->second, std::nullopt};
    status = check_gates(command);
  }
  Outcome outcome;
  if (status.ok()) {
    run(caller, request, std::move(command), outcome.reply);
  } else {
    ++refused_;
    outcome.reply = reply_with(std::move(status));
  }
  return outcome;
}

absl::Status Service::check_gates(const Command& command) const {
  const std::string why = changes_refused_because();
  if (why.empty()) return absl::OkStatus();
  if (free_bytes_ < config_.reserve_bytes) return absl::ResourceExhaustedError(why);
  const auto* single = std::get_if<SingleCommand>(&command);
  if (single != nullptr && std::holds_alternative<AcceptClock>(*single)) return absl::OkStatus();
  return absl::FailedPreconditionError(why);
}

void Service::run(const Caller& caller, const Request& request, Command&& command, Reply& reply) {
  auto* single = std::get_if<SingleCommand>(&command);
  const Result<bool> changed = single != nullptr
                                   ? run_single(caller, request, std::move(*single), reply)
                                   : run_batch(caller, request, std::move(std::get<Batch>(command)), reply);
  if (changed.ok() && *changed) return;
  reply = reply_with(changed.status());
  if (changed.ok()) {
    reply.result = unchanged_result(command, reply.sequence, reply.incarnation);  // a moved command keeps its kind
  } else {
    ++refused_;
  }
  remember(caller.session, request.command_number, reply);
}

Result<bool> Service::run_single(const Caller& caller, const Request& request, SingleCommand&& command, Reply& reply) {
  const bool accepts_clock = std::holds_alternative<AcceptClock>(command);
  Events events;
  if (absl::Status status = decide(std::move(command), request.if_sequence, events); !status.ok()) return status;
  if (events.empty()) return false;
  Records records;
  records.reserve(events.size());
  for (Event& event : events) add_record(records, caller, request, std::move(event));
  if (absl::Status status = commit(caller, request, std::move(records), false, reply); !status.ok()) return status;
  if (accepts_clock) clock_.accept(now_);
  return true;
}

Result<bool> Service::run_batch(const Caller& caller, const Request& request, Batch&& batch, Reply& reply) {
  if (batch.items.empty() || batch.items.size() > kMaxBatchItems) {
    return absl::InvalidArgumentError(
        fmt::format("a batch has 1 to {} commands, not {}", kMaxBatchItems, batch.items.size()));
  }
  BatchUndo undo;
  Records records;
  const auto refuse = [&](std::size_t index, absl::StatusCode code, std::string_view message) {
    undo.roll_back(state_);
    return absl::Status(code, fmt::format("command {} of the batch: {}", index + 1, message));
  };
  for (std::size_t index = 0; index < batch.items.size(); ++index) {
    BatchItem& item = batch.items[index];
    if (const char* barred = barred_from_batch(item.command)) {
      return refuse(index, absl::StatusCode::kInvalidArgument, fmt::format("{} may not stand in a batch", barred));
    }
    Events events;
    const absl::Status status =
        decide(std::move(item.command), item.if_sequence ? item.if_sequence : request.if_sequence, events);
    if (!status.ok()) return refuse(index, status.code(), std::string(status.message()));
    for (Event& event : events) {
      if (const auto* refused = refused_allocation(event)) {
        return refuse(index, absl::StatusCode::kResourceExhausted, gpu_memory::refusal_message(*refused));
      }
      undo.apply(state_, event);
      Record& record = add_record(records, caller, request, std::move(event));
      record.batch_index = static_cast<std::uint32_t>(index);
      record.batch_size = static_cast<std::uint32_t>(batch.items.size());
    }
  }
  if (records.empty()) return false;
  absl::Status status = commit(caller, request, std::move(records), true, reply);
  if (status.ok()) return true;
  undo.roll_back(state_);
  return status;
}

absl::Status Service::decide(SingleCommand&& command, const std::optional<Sequence>& if_sequence,
                             Events& events) const {
  if (!if_sequence) return decide_events(std::move(command), events);
  const std::string target = std::visit(TargetStream{state_}, command);
  absl::Status status = decide_events(std::move(command), events);
  if (absl::IsInvalidArgument(status)) return status;
  // A refusal may well come from the change that the caller has not seen, so the lost check goes first.
  absl::Status unchanged = check_unchanged(state_, target, *if_sequence);
  if (!unchanged.ok()) return unchanged;
  if (!status.ok()) return status;
  for (const Event& event : events) {
    for (const std::string& stream : streams_of(event)) {
      unchanged = check_unchanged(state_, stream, *if_sequence);
      if (!unchanged.ok()) return unchanged;
    }
  }
  return absl::OkStatus();
}

absl::Status Service::decide_events(SingleCommand&& command, Events& events) const {
  if (auto* models = std::get_if<registry::Command>(&command)) {
    Result<registry::Events> decided = registry::decide(state_.registry, std::move(*models));
    if (decided.ok()) {
      for (registry::Event& event : *decided) {
        auto* registered = std::get_if<registry::ModelRegistered>(&event);
        if (registered != nullptr) registered->model.set_registered_at(stamp());
      }
    }
    return take_over(std::move(decided), events);
  }
  if (const auto* gpu = std::get_if<gpu_memory::Command>(&command)) {
    const gpu_memory::Context context{stamp(), state_.incarnation(), config_.max_changes, config_.max_evictions,
                                      config_.touch_granularity_ms};
    return take_over(gpu_memory::decide(state_.gpu_memory, *gpu, context), events);
  }
  if (const auto* checkpoints = std::get_if<checkpoint::Command>(&command)) {
    const checkpoint::Context context{stamp(), state_.incarnation(), config_.max_changes, config_.max_reply_bytes};
    return take_over(checkpoint::decide(state_.checkpoint, *checkpoints, context), events);
  }
  if (clock_.suspect()) events.emplace_back(ServerEvent{ClockAccepted{state_.time}});
  return absl::OkStatus();
}

Record& Service::add_record(Records& records, const Caller& caller, const Request& request, Event&& event) const {
  Record& record = records.emplace_back();
  record.time = stamp();
  record.wall_time = now_.wall_ms;
  record.incarnation = state_.incarnation();
  record.actor = caller.actor;
  record.actor_source = caller.actor_source;
  record.session = caller.session;
  record.command_number = request.command_number;
  record.answered_below = request.answered_below;
  record.event = std::move(event);
  return record;
}

storage::Note Service::make_note(const Caller& caller, const Request& request, Records& records) {
  // A note costs a key of its own in the database, so only a change that somebody explains has one.
  if (request.reason.empty()) return {};
  storage::Note note;
  note.sequence = records.front().sequence;
  note.bytes = codec::encode_note({request.reason, "", caller.peer_address});
  random_(note.salt);
  std::string salted(note.salt.begin(), note.salt.end());
  salted += note.bytes;
  Hash hash{};
  SHA256(reinterpret_cast<const unsigned char*>(salted.data()), salted.size(), hash.data());
  records.front().note_hash = hash;
  return note;
}

absl::Status Service::commit(const Caller& caller, const Request& request, Records&& records, bool applied,
                             Reply& reply) {
  const auto parts = static_cast<std::uint32_t>(records.size());
  for (std::uint32_t part = 0; part < parts; ++part) {
    records[part].sequence = state_.sequence + 1 + part;
    records[part].part = part;
    records[part].parts = parts;
  }
  if (state_.sessions.find(caller.session) == nullptr) records.front().opened_at = caller.opened_at;
  storage::Note note = make_note(caller, request, records);
  if (absl::Status status = encode_all(records, encoded_); !status.ok()) return status;
  storage::crash_point(storage::CrashPoint::kDecided);
  if (parts > 1 && deliberate_bug(DeliberateBug::kHalfACommand)) {
    const std::string whole = encoded_;
    encode_all(std::span(records).first(1), encoded_).IgnoreError();  // it was encoded just now
    gather(std::move(note), 1);
    begin_group();
    ++groups_.back().first;
    encoded_ = whole.substr(encoded_.size());
    gather({}, parts - 1);
  } else {
    gather(std::move(note), parts);
  }

  const Sequence before = state_.sequence;
  for (const Record& record : records) {
    const absl::Status taken = apply_log_facts(state_, record);
    assert(taken.ok());  // made from this very state
    static_cast<void>(taken);
  }
  reply = reply_from_records(records);
  const std::vector<std::string> pools = pools_of(records);
  for (Record& record : records) {
    if (applied) {
      note_change(state_, record);
    } else {
      apply_event(state_, std::move(record.event), record.sequence);
    }
  }
  storage::crash_point(storage::CrashPoint::kApplied);
  for (const std::string& device_id : pools) watch_pool(device_id);
  if (before / kNotedDigestInterval < state_.sequence / kNotedDigestInterval) note_digest_at_end();
  return absl::OkStatus();
}

void Service::gather(storage::Note note, std::uint32_t record_count) {
  if (groups_.empty() || last_group_sealed_) begin_group();
  storage::Group& group = groups_.back();
  group.add(encoded_, record_count);
  gathered_bytes_ += encoded_.size();
  if (note.sequence == 0) return;
  const std::size_t note_bytes = sizeof(storage::Note) + note.bytes.size();
  group.note_bytes += note_bytes;
  gathered_bytes_ += note_bytes;
  group.notes.push_back(std::move(note));
}

void Service::begin_group() {
  storage::Group& group = groups_.emplace_back();
  group.bytes.reserve(last_group_bytes_);  // under load it is about as large, and growing would copy it all
  group.first = state_.sequence + 1;
  group.incarnation = state_.incarnation();
  last_group_sealed_ = false;
}

void Service::note_digest_at_end() {
  if (groups_.empty()) {
    // A note alone is not worth a write that a full disk fails: that would be the service's end.
    if (free_bytes_ < config_.reserve_bytes) return;
    begin_group();
  }
  groups_.back().noted_digest = encode_noted_digest(state_);
  last_group_sealed_ = true;
}

NotedDigest Service::seal(bool at_rest) {
  if (!groups_.empty() || !at_rest) note_digest_at_end();
  return noted_digest(state_);
}

std::optional<storage::Group> Service::take_group() {
  if (groups_.empty()) return std::nullopt;
  storage::Group group = std::move(groups_.front());
  groups_.pop_front();
  last_group_bytes_ = group.bytes.size();
  gathered_bytes_ -= group.bytes.size() + group.note_bytes;
  assert(!groups_.empty() || gathered_bytes_ == 0);
  return group;
}

void Service::watch_pool(const std::string& device_id) {
  const auto stats = state_.gpu_memory.stats(device_id);
  const auto [rate, is_new] = allocation_rates_.try_emplace(device_id, AllocationRate(0));
  rate->second.note(now_.boot_ms, stats->allocated_bytes + stats->pinned_bytes);
}

void Service::remember(const SessionId& session, std::uint64_t number, const Reply& reply) {
  remembered_.emplace(Number{session, number}, reply);
  remembered_order_.emplace_back(session, number);
  remembered_bytes_ += memory_of(reply);
  while (remembered_order_.size() > kMaxRemembered || remembered_bytes_ > kMaxRememberedBytes) {
    const auto oldest = remembered_.find(remembered_order_.front());
    remembered_bytes_ -= memory_of(oldest->second);
    remembered_.erase(oldest);
    remembered_order_.pop_front();
  }
}

Reply Service::answer(const Query& query) const {
  const Reading reading{state_, config_, [this](std::string_view device_id) {
                          const auto rate =
                              allocation_rates_.find(absl::string_view(device_id.data(), device_id.size()));
                          return rate == allocation_rates_.end() ? 0.0 : rate->second.bytes_per_second(now_.boot_ms);
                        }};
  return service::answer(reading, query);
}

std::optional<registry::ModelView> Service::find(const query::GetModel& query) const {
  return query.version ? state_.registry.find(query.model_id, *query.version) : state_.registry.latest(query.model_id);
}

Reply Service::reply_with(absl::Status status) const {
  Reply reply;
  reply.status = std::move(status);
  reply.sequence = state_.sequence;
  reply.incarnation = state_.incarnation();
  return reply;
}

}  // namespace tensorforge::service
