#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"
#include "checkpoint/state_machine.h"
#include "codec/record.h"
#include "gpu_memory/state_machine.h"
#include "platform/digest.h"
#include "platform/result.h"
#include "registry/state_machine.h"
#include "service/sessions.h"

namespace tensorforge::service {

/// A stretch of the log's life: it begins at first_sequence and ends where the next one begins.
struct Incarnation {
  std::uint32_t id{};
  Sequence first_sequence{};
};

// For a map of stream names, in which an event's StreamRef finds its stream without making the name.
struct HashStream {
  using is_transparent = void;
  std::size_t operator()(const StreamRef& stream) const {
    return absl::HashOf(stream.kind.size(), absl::string_view(stream.id.data(), stream.id.size()));
  }
  std::size_t operator()(std::string_view name) const { return (*this)(parse_stream(name)); }
};
struct SameStream {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const { return a == b; }
  bool operator()(std::string_view name, const StreamRef& stream) const {
    return name.size() == stream.kind.size() + stream.id.size() && name.ends_with(stream.id) &&
           name.starts_with(stream.kind);
  }
  bool operator()(const StreamRef& stream, std::string_view name) const { return (*this)(name, stream); }
};

/// Everything that is folded from the log.
///
/// Threads: one writer, or one replay.
struct State {
  registry::State registry;
  gpu_memory::State gpu_memory;
  checkpoint::State checkpoint;
  Sessions sessions;

  Sequence sequence{};                    ///< of the last record
  std::uint64_t time{};                   ///< of the last record, ms since the Unix epoch
  std::vector<Incarnation> incarnations;  ///< in order; the last is the current one

  std::uint32_t incarnation() const { return incarnations.empty() ? 0 : incarnations.back().id; }
  /// Sequence of the last event of `stream`; 0: it does not exist.
  Sequence last_of(std::string_view stream) const;
  /// Whether an answer given at `sequence` of `incarnation` is part of this log.
  bool remembers(Sequence sequence, std::uint32_t incarnation) const;
  /// Sum of the digests of the three domains.
  Digest digest() const;
  std::size_t stream_count() const { return registry.model_count() + last_of_others.size(); }

  /// What last_of() says of all streams but those of models: these are many, and the registry keeps it with them.
  absl::flat_hash_map<std::string, Sequence, HashStream, SameStream> last_of_others;
};

/// Applies the event, the one at `at` in the log, to the domain that it belongs to. What it holds is taken over.
void apply_event(State&, Event&&, Sequence at);
/// Takes up where the log has an event that was applied before that was known.
void note_change(State&, const Record&);
/// Takes up what else a record says: its place and time in the log, its session, its incarnation.
/// kDataLoss: not the record that comes next.
absl::Status apply_log_facts(State&, const Record&);
/// Both: what replay does with each record.
absl::Status apply_record(State&, Record&&);

/// What goes into Group::noted_digest: the sequence and the digests of registry, gpu_memory and checkpoint there, each
/// number 8 bytes, little endian (sequence, then low and high half of each digest): 56 bytes.
std::string encode_noted_digest(const State&);
struct NotedDigest {
  Sequence sequence{};
  Digest registry, gpu_memory, checkpoint;
  bool operator==(const NotedDigest&) const = default;
};
NotedDigest noted_digest(const State&);
/// kDataLoss: not 56 bytes.
Result<NotedDigest> decode_noted_digest(std::string_view bytes);

/// The first command end at or after a multiple of this notes the digests.
inline constexpr Sequence kNotedDigestInterval = 65'536;

}  // namespace tensorforge::service
