#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "checkpoint/state_machine.h"
#include "gpu_memory/state_machine.h"
#include "platform/log_types.h"
#include "platform/result.h"
#include "registry/state_machine.h"

namespace tensorforge {

std::string format_session(const SessionId&);  ///< 32 lower-case hexadecimal digits
std::optional<SessionId> parse_session(std::string_view text);
std::string format_hash(const Hash&);  ///< 64 lower-case hexadecimal digits

// Events of the log itself, beside those of the domains.
std::string_view to_string(IncarnationCause);
std::optional<IncarnationCause> parse_incarnation_cause(std::string_view name);
struct IncarnationStarted {
  std::uint32_t previous{};
  Sequence first_sequence{};
  Hash root{};  ///< of the tree before this record
  IncarnationCause cause{};
  bool operator==(const IncarnationStarted&) const = default;
};
struct ClockAccepted {
  std::uint64_t before{};  ///< the log's time before the jump, ms
  bool operator==(const ClockAccepted&) const = default;
};
using ServerEvent = std::variant<IncarnationStarted, ClockAccepted>;

using Event = std::variant<registry::Event, gpu_memory::Event, checkpoint::Event, ServerEvent>;

/// "ModelRegistered", "BlockAllocated", ...: as in schemas/event.fbs.
std::string_view event_name(const Event&);
/// What the names of the streams of models begin with.
inline constexpr std::string_view kModelStreams = "model/";

/// The name of a stream in two parts that stand elsewhere: "model/" and "resnet", or "server" and nothing.
struct StreamRef {
  std::string_view kind, id;
  std::string name() const;
};
StreamRef parse_stream(std::string_view name);
/// The stream of the entity that an event belongs to; valid as long as the event.
StreamRef stream_of(const Event&);
/// The streams of the entities that an event belongs to: "model/resnet", "pool/gpu0", "run/r1", "server". Never empty.
std::vector<std::string> streams_of(const Event&);

enum class ActorSource { Asserted, Token, Certificate, System };
std::string_view to_string(ActorSource);
std::optional<ActorSource> parse_actor_source(std::string_view name);

/// One entry of the log: schemas/event.fbs, table Record, whose comments explain the fields.
struct Record {
  Sequence sequence{};
  std::uint64_t time{}, wall_time{};
  std::uint32_t incarnation{};
  std::string actor;
  ActorSource actor_source{};
  std::optional<SessionId> session;
  std::uint64_t command_number{}, answered_below{};
  std::optional<Sequence> opened_at;
  std::uint32_t part{}, parts{1};
  std::uint32_t batch_index{}, batch_size{};
  std::optional<Hash> note_hash;
  Event event;
  bool operator==(const Record&) const = default;
};

/// What people may have to erase, kept beside the log: the reason that was given, and who asked from where.
struct Note {
  std::string reason, display_name, peer_address;
  bool operator==(const Note&) const = default;
};

namespace codec {

inline constexpr std::size_t kMaxRecordBytes = 65'535;

/// The record's bytes, the same for the same record on every machine.
/// kInvalidArgument: it would pass 65,535 bytes (no record that decide() made does).
Result<std::string> encode_record(const Record&);
/// Likewise; valid until this thread encodes something else.
Result<std::string_view> encode_record_view(const Record&);
/// kDataLoss: not a record, or damaged. kUnimplemented: an event or enumerator that a newer version wrote.
Result<Record> decode_record(std::span<const std::byte>);

std::string encode_note(const Note&);
Result<Note> decode_note(std::span<const std::byte>);

}  // namespace codec
}  // namespace tensorforge
