#include "codec/record.h"

#include <array>
#include <cassert>
#include <limits>

#include <fmt/format.h>

#include "codec/domains.h"
#include "codec/envelope.h"
#include "codec/reader.h"
#include "codec/writer.h"
#include "event_generated.h"
#include "note_generated.h"
#include "platform/enum_names.h"

namespace tensorforge {
namespace {

constexpr auto kIncarnationCauses = enum_names<IncarnationCause>("FirstStart", "Restore", "AcceptLoss");
constexpr std::string_view kPoolStreams = "pool/", kRunStreams = "run/", kServerStream = "server";
constexpr auto kActorSources = enum_names<ActorSource>("Asserted", "Token", "Certificate", "System");

template <std::size_t N>
std::string hex(const std::array<std::uint8_t, N>& bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  out.reserve(2 * N);
  for (const std::uint8_t byte : bytes) {
    out += kDigits[byte >> 4U];
    out += kDigits[byte & 0xFU];
  }
  return out;
}

std::optional<std::uint8_t> parse_hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<std::uint8_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<std::uint8_t>(c - 'a' + 10);
  return std::nullopt;
}

}  // namespace

std::string format_session(const SessionId& session) { return hex(session); }

std::string format_hash(const Hash& hash) { return hex(hash); }

std::optional<SessionId> parse_session(std::string_view text) {
  SessionId session{};
  if (text.size() != 2 * session.size()) return std::nullopt;
  for (std::size_t i = 0; i < session.size(); ++i) {
    const auto high = parse_hex_digit(text[2 * i]);
    const auto low = parse_hex_digit(text[2 * i + 1]);
    if (!high || !low) return std::nullopt;
    session[i] = static_cast<std::uint8_t>(*high << 4U | *low);
  }
  return session;
}

std::string_view to_string(IncarnationCause cause) { return kIncarnationCauses.to_string(cause); }
std::optional<IncarnationCause> parse_incarnation_cause(std::string_view name) {
  return kIncarnationCauses.parse(name);
}
std::string_view to_string(ActorSource source) { return kActorSources.to_string(source); }
std::optional<ActorSource> parse_actor_source(std::string_view name) { return kActorSources.parse(name); }

namespace codec {
namespace {

using namespace registry;
using namespace gpu_memory;
using namespace checkpoint;

// ---- models

Offset<wire::ModelRegistered> write(Writer& w, const ModelRegistered& event) {
  return wire::CreateModelRegistered(w.builder(), codec::write(w, event.model.view()));
}
ModelRegistered read(Reader& r, const wire::ModelRegistered* table) {
  if (!r.enter(table, "ModelRegistered", wire::ModelRegistered::VT_MODEL)) return {};
  return {codec::read_packed(r, table->model())};
}

Offset<wire::StateTransitioned> write(Writer& w, const StateTransitioned& event) {
  const auto model_id = w.id(event.model_id);
  const auto version = to_wire(event.version);
  return wire::CreateStateTransitioned(w.builder(), model_id, &version, static_cast<wire::DeploymentState>(event.from),
                                       static_cast<wire::DeploymentState>(event.to));
}
StateTransitioned read(Reader& r, const wire::StateTransitioned* table) {
  if (!r.enter(table, "StateTransitioned", wire::StateTransitioned::VT_TO)) return {};
  return {.model_id = r.id(table->model_id(), "model id"),
          .version = r.version(table->version(), "model version"),
          .from = r.enumerator<DeploymentState>(table->from(), "deployment state"),
          .to = r.enumerator<DeploymentState>(table->to(), "deployment state")};
}

Offset<wire::ValidationRecorded> write(Writer& w, const ValidationRecorded& event) {
  return wire::CreateValidationRecorded(w.builder(), codec::write(w, event.validation));
}
ValidationRecorded read(Reader& r, const wire::ValidationRecorded* table) {
  if (!r.enter(table, "ValidationRecorded", wire::ValidationRecorded::VT_VALIDATION)) return {};
  return {codec::read(r, table->validation())};
}

// ---- pools

Offset<wire::PoolCreated> write(Writer& w, const PoolCreated& event) {
  return wire::CreatePoolCreated(w.builder(), codec::write(w, event.device));
}
PoolCreated read(Reader& r, const wire::PoolCreated* table) {
  if (!r.enter(table, "PoolCreated", wire::PoolCreated::VT_DEVICE)) return {};
  return {codec::read(r, table->device())};
}

Offset<wire::BlockAllocated> write(Writer& w, const BlockAllocated& event) {
  const auto device_id = w.id(event.device_id);
  const auto request = codec::write(w, event.request);
  const auto evicted = w.numbers(event.evicted);
  const auto block = to_wire(event.block);
  return wire::CreateBlockAllocated(w.builder(), device_id, request, &block, event.offset, event.actual_size, evicted,
                                    event.at);
}
BlockAllocated read(Reader& r, const wire::BlockAllocated* table) {
  if (!r.enter(table, "BlockAllocated", wire::BlockAllocated::VT_AT)) return {};
  return {.device_id = r.id(table->device_id(), "device id"),
          .request = codec::read(r, table->request()),
          .block = r.entity(table->block(), "block"),
          .offset = table->offset(),
          .actual_size = table->actual_size(),
          .evicted = r.numbers(table->evicted()),
          .at = table->at()};
}

Offset<wire::AllocationRefused> write(Writer& w, const AllocationRefused& event) {
  const auto device_id = w.id(event.device_id);
  const auto request = codec::write(w, event.request);
  return wire::CreateAllocationRefused(
      w.builder(), device_id, request, static_cast<wire::AllocationFailure>(event.cause), event.actual_size,
      event.total_bytes, event.free_bytes, event.evictable_bytes, event.largest_free_block);
}
AllocationRefused read(Reader& r, const wire::AllocationRefused* table) {
  if (!r.enter(table, "AllocationRefused", wire::AllocationRefused::VT_LARGEST_FREE_BLOCK)) return {};
  return {.device_id = r.id(table->device_id(), "device id"),
          .request = codec::read(r, table->request()),
          .cause = r.enumerator<AllocationFailure>(table->cause(), "allocation failure"),
          .actual_size = table->actual_size(),
          .total_bytes = table->total_bytes(),
          .free_bytes = table->free_bytes(),
          .evictable_bytes = table->evictable_bytes(),
          .largest_free_block = table->largest_free_block()};
}

/// Of the events that say no more than which block it was.
template <class Table, class E>
Offset<Table> write_block_event(Writer& w, const E& event) {
  const auto device_id = w.id(event.device_id);
  const auto block = to_wire(event.block);
  typename Table::Builder builder(w.builder());
  builder.add_device_id(device_id);
  builder.add_block(&block);
  return builder.Finish();
}
template <class E, class Table>
E read_block_event(Reader& r, const Table* table, std::string_view name) {
  if (!r.enter(table, name, Table::VT_BLOCK)) return {};
  return {.device_id = r.id(table->device_id(), "device id"), .block = r.entity(table->block(), "block")};
}

Offset<wire::BlockFreed> write(Writer& w, const BlockFreed& event) {
  return write_block_event<wire::BlockFreed>(w, event);
}
BlockFreed read(Reader& r, const wire::BlockFreed* table) {
  return read_block_event<BlockFreed>(r, table, "BlockFreed");
}

Offset<wire::BlockCached> write(Writer& w, const BlockCached& event) {
  return write_block_event<wire::BlockCached>(w, event);
}
BlockCached read(Reader& r, const wire::BlockCached* table) {
  return read_block_event<BlockCached>(r, table, "BlockCached");
}

Offset<wire::BlockPinned> write(Writer& w, const BlockPinned& event) {
  return write_block_event<wire::BlockPinned>(w, event);
}
BlockPinned read(Reader& r, const wire::BlockPinned* table) {
  return read_block_event<BlockPinned>(r, table, "BlockPinned");
}

Offset<wire::BlockUnpinned> write(Writer& w, const BlockUnpinned& event) {
  return write_block_event<wire::BlockUnpinned>(w, event);
}
BlockUnpinned read(Reader& r, const wire::BlockUnpinned* table) {
  return read_block_event<BlockUnpinned>(r, table, "BlockUnpinned");
}

Offset<wire::BlockTouched> write(Writer& w, const BlockTouched& event) {
  const auto device_id = w.id(event.device_id);
  const auto block = to_wire(event.block);
  return wire::CreateBlockTouched(w.builder(), device_id, &block, event.at);
}
BlockTouched read(Reader& r, const wire::BlockTouched* table) {
  if (!r.enter(table, "BlockTouched", wire::BlockTouched::VT_AT)) return {};
  return {.device_id = r.id(table->device_id(), "device id"),
          .block = r.entity(table->block(), "block"),
          .at = table->at()};
}

Offset<wire::BlockEvicted> write(Writer& w, const BlockEvicted& event) {
  const auto device_id = w.id(event.device_id);
  const auto block = to_wire(event.block);
  return wire::CreateBlockEvicted(w.builder(), device_id, &block, event.size, event.more);
}
BlockEvicted read(Reader& r, const wire::BlockEvicted* table) {
  if (!r.enter(table, "BlockEvicted", wire::BlockEvicted::VT_MORE)) return {};
  return {.device_id = r.id(table->device_id(), "device id"),
          .block = r.entity(table->block(), "block"),
          .size = table->size(),
          .more = table->more()};
}

Offset<wire::BlockMoved> write(Writer& w, const BlockMoved& event) {
  const auto device_id = w.id(event.device_id);
  const auto block = to_wire(event.block);
  return wire::CreateBlockMoved(w.builder(), device_id, &block, event.from, event.to, event.size, event.more);
}
BlockMoved read(Reader& r, const wire::BlockMoved* table) {
  if (!r.enter(table, "BlockMoved", wire::BlockMoved::VT_MORE)) return {};
  return {.device_id = r.id(table->device_id(), "device id"),
          .block = r.entity(table->block(), "block"),
          .from = table->from(),
          .to = table->to(),
          .size = table->size(),
          .more = table->more()};
}

// ---- checkpoints

Offset<wire::CheckpointCreated> write(Writer& w, const CheckpointCreated& event) {
  const auto request = codec::write(w, event.request);
  const auto id = to_wire(event.checkpoint);
  const auto parent = to_wire(event.parent);
  return wire::CreateCheckpointCreated(w.builder(), &id, request, pointer_to(parent), event.created_at);
}
CheckpointCreated read(Reader& r, const wire::CheckpointCreated* table) {
  if (!r.enter(table, "CheckpointCreated", wire::CheckpointCreated::VT_CREATED_AT)) return {};
  CheckpointCreated event{.checkpoint = r.entity(table->checkpoint(), "checkpoint"),
                          .request = codec::read(r, table->request()),
                          .parent = std::nullopt,
                          .created_at = table->created_at()};
  if (table->parent() != nullptr) event.parent = r.entity(table->parent(), "parent");
  return event;
}

Offset<wire::CheckpointCompleted> write(Writer& w, const CheckpointCompleted& event) {
  const auto training_run_id = w.id(event.training_run_id);
  const auto storage_path = w.text(event.storage_path);
  const auto id = to_wire(event.checkpoint);
  return wire::CreateCheckpointCompleted(w.builder(), &id, training_run_id, event.size_bytes, storage_path);
}
CheckpointCompleted read(Reader& r, const wire::CheckpointCompleted* table) {
  if (!r.enter(table, "CheckpointCompleted", wire::CheckpointCompleted::VT_STORAGE_PATH)) return {};
  return {.checkpoint = r.entity(table->checkpoint(), "checkpoint"),
          .training_run_id = r.id(table->training_run_id(), "training run id"),
          .size_bytes = table->size_bytes(),
          .storage_path = r.text(table->storage_path(), "storage path")};
}

Offset<wire::CheckpointCorrupted> write(Writer& w, const CheckpointCorrupted& event) {
  const auto training_run_id = w.id(event.training_run_id);
  const auto id = to_wire(event.checkpoint);
  return wire::CreateCheckpointCorrupted(w.builder(), &id, training_run_id);
}
CheckpointCorrupted read(Reader& r, const wire::CheckpointCorrupted* table) {
  if (!r.enter(table, "CheckpointCorrupted", wire::CheckpointCorrupted::VT_TRAINING_RUN_ID)) return {};
  return {.checkpoint = r.entity(table->checkpoint(), "checkpoint"),
          .training_run_id = r.id(table->training_run_id(), "training run id")};
}

Offset<wire::CheckpointDeleted> write(Writer& w, const CheckpointDeleted& event) {
  const auto training_run_id = w.id(event.training_run_id);
  const auto storage_path = w.text(event.storage_path);
  const auto id = to_wire(event.checkpoint);
  return wire::CreateCheckpointDeleted(w.builder(), &id, training_run_id, static_cast<wire::DeletionCause>(event.cause),
                                       storage_path, event.size_bytes, event.more);
}
CheckpointDeleted read(Reader& r, const wire::CheckpointDeleted* table) {
  if (!r.enter(table, "CheckpointDeleted", wire::CheckpointDeleted::VT_MORE)) return {};
  return {.checkpoint = r.entity(table->checkpoint(), "checkpoint"),
          .training_run_id = r.id(table->training_run_id(), "training run id"),
          .cause = r.enumerator<DeletionCause>(table->cause(), "deletion cause"),
          .storage_path = r.text(table->storage_path(), "storage path"),
          .size_bytes = table->size_bytes(),
          .more = table->more()};
}

Offset<wire::PolicySet> write(Writer& w, const PolicySet& event) {
  const auto training_run_id = w.optional_text(event.training_run_id);
  const auto policy = codec::write(w, event.policy);
  return wire::CreatePolicySet(w.builder(), training_run_id, policy);
}
PolicySet read(Reader& r, const wire::PolicySet* table) {
  if (!r.enter(table, "PolicySet", wire::PolicySet::VT_POLICY)) return {};
  return {.training_run_id = r.optional_text(table->training_run_id(), "training run id"),
          .policy = codec::read(r, table->policy())};
}

// ---- the log itself

Offset<wire::IncarnationStarted> write(Writer& w, const IncarnationStarted& event) {
  const auto root = to_wire(event.root);
  return wire::CreateIncarnationStarted(w.builder(), event.previous, event.first_sequence, &root,
                                        static_cast<wire::IncarnationCause>(event.cause));
}
IncarnationStarted read(Reader& r, const wire::IncarnationStarted* table) {
  if (!r.enter(table, "IncarnationStarted", wire::IncarnationStarted::VT_CAUSE)) return {};
  return {.previous = table->previous(),
          .first_sequence = table->first_sequence(),
          .root = r.hash(table->root(), "root"),
          .cause = r.enumerator<IncarnationCause>(table->cause(), "incarnation cause")};
}

Offset<wire::ClockAccepted> write(Writer& w, const ClockAccepted& event) {
  return wire::CreateClockAccepted(w.builder(), event.before);
}
ClockAccepted read(Reader& r, const wire::ClockAccepted* table) {
  if (!r.enter(table, "ClockAccepted", wire::ClockAccepted::VT_BEFORE)) return {};
  return {table->before()};
}

// ---- any event

template <class>
struct TableIn;
template <class Table>
struct TableIn<Offset<Table>> {
  using Type = Table;
};
template <class E>
constexpr wire::Event kTypeOf = wire::EventTraits<
    typename TableIn<decltype(write(std::declval<Writer&>(), std::declval<const E&>()))>::Type>::enum_value;

Member<wire::Event> write_event(Writer& w, const tensorforge::Event& event) {
  return visit_innermost([&w](const auto& e) { return as_member<wire::EventTraits>(write(w, e)); }, event);
}

tensorforge::Event read_event(Reader& r, const wire::Record* table) {
  return r.member<tensorforge::Event, wire::EventTraits, wire::ModelRegistered, wire::StateTransitioned,
                  wire::ValidationRecorded, wire::PoolCreated, wire::BlockAllocated, wire::AllocationRefused,
                  wire::BlockFreed, wire::BlockCached, wire::BlockPinned, wire::BlockUnpinned, wire::BlockTouched,
                  wire::BlockEvicted, wire::BlockMoved, wire::CheckpointCreated, wire::CheckpointCompleted,
                  wire::CheckpointCorrupted, wire::CheckpointDeleted, wire::PolicySet, wire::IncarnationStarted,
                  wire::ClockAccepted>(table->event_type(), table->event(), "event",
                                       [&r](const auto* member) { return read(r, member); });
}

void finish_record(flatbuffers::FlatBufferBuilder& builder, const Record& record, Offset<flatbuffers::String> actor,
                   const Member<wire::Event>& event) {
  const auto session = to_wire(record.session);
  const auto note_hash = to_wire(record.note_hash);
  const auto root = wire::CreateRecord(builder, record.sequence, record.time, record.wall_time, record.incarnation,
                                       actor, static_cast<wire::ActorSource>(record.actor_source), pointer_to(session),
                                       record.command_number, record.answered_below, to_scalar(record.opened_at),
                                       record.part, record.parts, record.batch_index, record.batch_size,
                                       pointer_to(note_hash), event.type, event.offset);
  builder.Finish(root, wire::RecordIdentifier());
}

/// Whether its envelope has the fields that enclose() changes and, but for the actor's source, no others: what has its
/// default is not written.
bool is_usual(const Record& record) {
  return record.sequence != 0 && record.time != 0 && record.wall_time != 0 && record.incarnation != 0 &&
         record.session && record.command_number != 0 && record.answered_below != 0 && !record.opened_at &&
         record.part == 0 && record.parts == 1 && record.batch_index == 0 && record.batch_size == 0 &&
         !record.note_hash;
}

/// What finish_record() does, for usual ones. A field that is added to Record has to be changed here too, or looked at
/// in is_usual(): the assertion tells.
void enclose(Writer& w, const Record& record, Offset<flatbuffers::String> actor, const Member<wire::Event>& event) {
  thread_local std::array<Envelope, static_cast<std::size_t>(wire::ActorSource::MAX) + 1> envelopes;
  Envelope& envelope = envelopes.at(static_cast<std::size_t>(record.actor_source));
  const std::string_view front = envelope.around(w.builder().GetSize(), [&](auto& builder, Offset<void> inside) {
    finish_record(builder, record, inside.o, {event.type, inside});
  });
  auto* kept = flatbuffers::GetMutableRoot<wire::Record>(w.enclose(front));
  kept->mutate_sequence(record.sequence);
  kept->mutate_time(record.time);
  kept->mutate_wall_time(record.wall_time);
  kept->mutate_incarnation(record.incarnation);
  *kept->mutable_session() = to_wire(*record.session);
  kept->mutate_command_number(record.command_number);
  kept->mutate_answered_below(record.answered_below);
  auto* fields = reinterpret_cast<flatbuffers::Table*>(kept);
  fields->SetPointer(wire::Record::VT_ACTOR, w.at(actor));
  fields->SetField(wire::Record::VT_EVENT_TYPE, event.type);
  fields->SetPointer(wire::Record::VT_EVENT, w.at(event.offset));
}

/// Writes the record from the start, over what this thread wrote last.
[[maybe_unused]] bool is_what_finish_record_makes(const std::string& enclosed, const Record& record) {
  Writer w(kMaxRecordBytes);
  const auto actor = w.id(record.actor);
  finish_record(w.builder(), record, actor, write_event(w, record.event));
  return enclosed == w.finished().value();
}

}  // namespace

Result<std::string_view> encode_record_view(const Record& record) {
  Writer w(kMaxRecordBytes);
  const auto actor = w.id(record.actor);
  const auto event = write_event(w, record.event);
  if (!is_usual(record)) {
    finish_record(w.builder(), record, actor, event);
    return w.finished();
  }
  enclose(w, record, actor, event);
  assert(!w.finished().ok() || is_what_finish_record_makes(std::string(*w.finished()), record));
  return w.finished();  // which the assertion may have moved
}

Result<std::string> encode_record(const Record& record) {
  const Result<std::string_view> bytes = encode_record_view(record);
  if (!bytes.ok()) return bytes.status();
  return std::string(*bytes);
}

Result<Record> decode_record(std::span<const std::byte> bytes) {
  Reader r(Source::Log, bytes.size());
  const VerifiedBuffer<wire::Record> buffer(bytes, wire::RecordIdentifier(), Framing::Plain, kMaxRecordBytes);
  const wire::Record* table = buffer.root();
  if (table == nullptr) {
    r.damaged(fmt::format("{} bytes that are not a record", bytes.size()));
    return r.status();
  }
  Record record;
  if (!r.enter(table, "record", wire::Record::VT_EVENT)) return r.status();
  record.sequence = table->sequence();
  record.time = table->time();
  record.wall_time = table->wall_time();
  record.incarnation = table->incarnation();
  record.actor = r.id(table->actor(), "actor");
  record.actor_source = r.enumerator<ActorSource>(table->actor_source(), "actor source");
  if (table->session() != nullptr) record.session = r.bytes16(table->session(), "session");
  record.command_number = table->command_number();
  record.answered_below = table->answered_below();
  record.opened_at = from_scalar(table->opened_at());
  record.part = table->part();
  record.parts = table->parts();
  record.batch_index = table->batch_index();
  record.batch_size = table->batch_size();
  if (table->note_hash() != nullptr) record.note_hash = r.hash(table->note_hash(), "note hash");
  record.event = read_event(r, table);
  if (!r.ok()) return r.status();
  return record;
}

std::string encode_note(const Note& note) {
  Writer w(std::numeric_limits<std::size_t>::max());
  const auto reason = w.text(note.reason);
  const auto display_name = w.text(note.display_name);
  const auto peer_address = w.text(note.peer_address);
  const auto root = wire::CreateNote(w.builder(), reason, display_name, peer_address);
  return w.finish(root.Union(), wire::NoteIdentifier()).value();
}

Result<Note> decode_note(std::span<const std::byte> bytes) {
  Reader r(Source::Log, bytes.size());
  const VerifiedBuffer<wire::Note> buffer(bytes, wire::NoteIdentifier(), Framing::Plain,
                                          std::numeric_limits<std::size_t>::max());
  const wire::Note* table = buffer.root();
  if (table == nullptr) r.damaged(fmt::format("{} bytes that are not a note", bytes.size()));
  if (!r.enter(table, "note", wire::Note::VT_PEER_ADDRESS)) return r.status();
  Note note{.reason = r.text(table->reason(), "reason"),
            .display_name = r.text(table->display_name(), "display name"),
            .peer_address = r.text(table->peer_address(), "peer address")};
  if (!r.ok()) return r.status();
  return note;
}

}  // namespace codec

std::string_view event_name(const Event& event) {
  return codec::visit_innermost(
      [](const auto& e) -> std::string_view {
        return wire::EnumNameEvent(codec::kTypeOf<std::remove_cvref_t<decltype(e)>>);
      },
      event);
}

namespace {

template <class E>
StreamRef stream_of_one(const E& event) {
  if constexpr (requires { event.model.view(); }) {
    return {kModelStreams, event.model.view().model_id};
  } else if constexpr (requires { event.validation.model_id; }) {
    return {kModelStreams, event.validation.model_id};
  } else if constexpr (requires { event.model_id; }) {
    return {kModelStreams, event.model_id};
  } else if constexpr (requires { event.device.device_id; }) {
    return {kPoolStreams, event.device.device_id};
  } else if constexpr (requires { event.device_id; }) {
    return {kPoolStreams, event.device_id};
  } else if constexpr (requires { event.request.training_run_id; }) {
    return {kRunStreams, event.request.training_run_id};
  } else {
    return {kRunStreams, event.training_run_id};
  }
}
StreamRef stream_of_one(const checkpoint::PolicySet& event) {
  return event.training_run_id ? StreamRef{kRunStreams, *event.training_run_id} : StreamRef{kServerStream, {}};
}
StreamRef stream_of_one(const IncarnationStarted&) { return {kServerStream, {}}; }
StreamRef stream_of_one(const ClockAccepted&) { return {kServerStream, {}}; }

}  // namespace

std::string StreamRef::name() const { return std::string(kind).append(id); }

StreamRef parse_stream(std::string_view name) {
  const std::size_t slash = name.find('/');
  const std::size_t kind_bytes = slash == std::string_view::npos ? name.size() : slash + 1;
  return {name.substr(0, kind_bytes), name.substr(kind_bytes)};
}

StreamRef stream_of(const Event& event) {
  return codec::visit_innermost([](const auto& e) { return stream_of_one(e); }, event);
}

std::vector<std::string> streams_of(const Event& event) { return {stream_of(event).name()}; }

}  // namespace tensorforge
