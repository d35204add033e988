#include "service/state.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <iterator>
#include <utility>

#include "fmt/format.h"
#include "platform/deliberate_bug.h"

namespace tensorforge::service {
namespace {

struct EventApplier {
  State& state;
  Sequence at;
  void operator()(registry::Event& event) const {
    auto* registered = std::get_if<registry::ModelRegistered>(&event);
    if (registered != nullptr && deliberate_bug(DeliberateBug::kApplyWithClock)) {
      registered->model.set_registered_at(
          static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()));
    }
    registry::apply(state.registry, std::move(event), at);
  }
  void operator()(const gpu_memory::Event& event) const { gpu_memory::apply(state.gpu_memory, event); }
  void operator()(const checkpoint::Event& event) const { checkpoint::apply(state.checkpoint, event); }
  void operator()(const ServerEvent&) const {}  // concerns the log itself: apply_log_facts()
};

void put_number(std::string& out, std::uint64_t value) {
  for (unsigned shift = 0; shift < 64; shift += 8) out.push_back(static_cast<char>((value >> shift) & 0xFFU));
}

std::uint64_t number_at(std::string_view bytes, std::size_t index) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(bytes[index * 8 + i])} << (8U * i);
  }
  return value;
}

constexpr std::size_t kNotedDigestBytes = std::size_t{7} * 8;

bool is_of_model(const Event& event) { return std::holds_alternative<registry::Event>(event); }

void note_other(State& state, const StreamRef& stream, Sequence at) {
  if (const auto known = state.last_of_others.find(stream); known != state.last_of_others.end()) {
    known->second = at;
  } else {
    state.last_of_others.emplace(stream.name(), at);
  }
}

}  // namespace

Sequence State::last_of(std::string_view stream) const {
  if (const StreamRef parsed = parse_stream(stream); parsed.kind == kModelStreams) {
    return registry.last_change(parsed.id);
  }
  const auto found = last_of_others.find(stream);
  return found == last_of_others.end() ? 0 : found->second;
}

bool State::remembers(Sequence told, std::uint32_t told_incarnation) const {
  const auto found = std::find_if(incarnations.begin(), incarnations.end(),
                                  [&](const Incarnation& each) { return each.id == told_incarnation; });
  if (found == incarnations.end()) return false;
  const auto next = std::next(found);
  return told <= (next == incarnations.end() ? sequence : next->first_sequence - 1);
}

Digest State::digest() const {
  Digest sum = registry.digest();
  sum += gpu_memory.digest();
  sum += checkpoint.digest();
  return sum;
}

void apply_event(State& state, Event&& event, Sequence at) {
  if (!is_of_model(event)) note_other(state, stream_of(event), at);
  std::visit(EventApplier{state, at}, event);
}

void note_change(State& state, const Record& record) {
  const StreamRef stream = stream_of(record.event);
  if (!is_of_model(record.event)) return note_other(state, stream, record.sequence);
  registry::note_change(state.registry, stream.id, record.sequence);
}

absl::Status apply_log_facts(State& state, const Record& record) {
  if (record.sequence != state.sequence + 1) {
    return absl::DataLossError(
        fmt::format("record {} stands where record {} belongs", record.sequence, state.sequence + 1));
  }
  if (record.time < state.time) {
    return absl::DataLossError(fmt::format("record {}: its time {} is before {}, that of the record before",
                                           record.sequence, record.time, state.time));
  }
  if (const auto* server = std::get_if<ServerEvent>(&record.event)) {
    if (std::holds_alternative<IncarnationStarted>(*server)) {
      state.incarnations.push_back({record.incarnation, record.sequence});
    }
  }
  if (record.incarnation != state.incarnation()) {
    return absl::DataLossError(fmt::format("record {}: incarnation {:08x} in the middle of {:08x}", record.sequence,
                                           record.incarnation, state.incarnation()));
  }
  state.sequence = record.sequence;
  state.time = record.time;
  return state.sessions.apply(record);
}

absl::Status apply_record(State& state, Record&& record) {
  absl::Status status = apply_log_facts(state, record);
  if (status.ok()) apply_event(state, std::move(record.event), record.sequence);
  return status;
}

NotedDigest noted_digest(const State& state) {
  return {state.sequence, state.registry.digest(), state.gpu_memory.digest(), state.checkpoint.digest()};
}

std::string encode_noted_digest(const State& state) {
  const NotedDigest noted = noted_digest(state);
  std::string out;
  out.reserve(kNotedDigestBytes);
  put_number(out, noted.sequence);
  for (const Digest& digest : {noted.registry, noted.gpu_memory, noted.checkpoint}) {
    put_number(out, digest.low);
    put_number(out, digest.high);
  }
  return out;
}

Result<NotedDigest> decode_noted_digest(std::string_view bytes) {
  if (bytes.size() != kNotedDigestBytes) {
    return absl::DataLossError(
        fmt::format("a noted digest has {} bytes, this one has {}", kNotedDigestBytes, bytes.size()));
  }
  const auto digest_at = [&](std::size_t index) {
    return Digest{.high = number_at(bytes, index + 1), .low = number_at(bytes, index)};
  };
  return NotedDigest{number_at(bytes, 0), digest_at(1), digest_at(3), digest_at(5)};
}

}  // namespace tensorforge::service
