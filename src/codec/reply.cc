#include "codec/reply.h"

#include <array>
#include <cassert>

#include <fmt/format.h>

#include "codec/domains.h"
#include "codec/envelope.h"
#include "codec/reader.h"
#include "codec/request.h"
#include "codec/writer.h"
#include "platform/names.h"
#include "reply_generated.h"

namespace tensorforge {

// Written out: clang 14 crashes on a default for a type that contains itself.
bool result::BatchResult::operator==(const BatchResult& other) const { return replies == other.replies; }

namespace codec {
namespace {

// ---- values that only replies have

Offset<wire::Move> write(Writer& w, const gpu_memory::Move& move) {
  const auto block_id = w.id(move.block_id);
  return wire::CreateMove(w.builder(), block_id, move.from, move.to, move.size);
}
gpu_memory::Move read(Reader& r, const wire::Move* table) {
  if (!r.enter(table, "Move", wire::Move::VT_SIZE)) return {};
  return {
      .block_id = r.id(table->block_id(), "block id"), .from = table->from(), .to = table->to(), .size = table->size()};
}

Offset<wire::Block> write(Writer& w, const gpu_memory::MemoryBlock& block) {
  const auto block_id = w.id(block.block_id);
  const auto tensor_id = w.optional_text(block.tensor_id);
  return wire::CreateBlock(w.builder(), block_id, block.offset, block.size,
                           static_cast<wire::BlockStatus>(block.status), tensor_id, block.allocated_at,
                           block.last_accessed, block.alignment, block.priority);
}
gpu_memory::MemoryBlock read(Reader& r, const wire::Block* table) {
  if (!r.enter(table, "Block", wire::Block::VT_PRIORITY)) return {};
  return {.block_id = r.id(table->block_id(), "block id"),
          .offset = table->offset(),
          .size = table->size(),
          .status = r.enumerator<gpu_memory::BlockStatus>(table->status(), "block status"),
          .tensor_id = r.optional_text(table->tensor_id(), "tensor id"),
          .allocated_at = table->allocated_at(),
          .last_accessed = table->last_accessed(),
          .alignment = table->alignment(),
          .priority = table->priority()};
}

Offset<wire::Checkpoint> write(Writer& w, const checkpoint::CheckpointMeta& meta) {
  const auto checkpoint_id = w.id(meta.checkpoint_id);
  const auto training_run_id = w.id(meta.training_run_id);
  const auto parent_id = w.optional_text(meta.parent_id);
  const auto metrics = write_metrics(w, meta.metrics);
  const auto storage_path = w.text(meta.storage_path);
  return wire::CreateCheckpoint(w.builder(), checkpoint_id, training_run_id, meta.epoch, meta.step,
                                static_cast<wire::CheckpointType>(meta.checkpoint_type),
                                static_cast<wire::CheckpointState>(meta.state), meta.size_bytes, meta.created_at,
                                parent_id, metrics, storage_path);
}
checkpoint::CheckpointMeta read(Reader& r, const wire::Checkpoint* table) {
  if (!r.enter(table, "Checkpoint", wire::Checkpoint::VT_STORAGE_PATH)) return {};
  return {.checkpoint_id = r.id(table->checkpoint_id(), "checkpoint id"),
          .training_run_id = r.id(table->training_run_id(), "training run id"),
          .epoch = table->epoch(),
          .step = table->step(),
          .checkpoint_type = r.enumerator<checkpoint::CheckpointType>(table->checkpoint_type(), "checkpoint type"),
          .state = r.enumerator<checkpoint::CheckpointState>(table->state(), "checkpoint state"),
          .size_bytes = table->size_bytes(),
          .created_at = table->created_at(),
          .parent_id = r.optional_text(table->parent_id(), "parent id"),
          .metrics = read_metrics(r, table->metrics()),
          .storage_path = r.text(table->storage_path(), "storage path")};
}

Offset<wire::DeletedCheckpoint> write(Writer& w, const result::DeletedCheckpoint& deleted) {
  const auto checkpoint_id = w.id(deleted.checkpoint_id);
  const auto storage_path = w.text(deleted.storage_path);
  const auto training_run_id = w.id(deleted.training_run_id);
  return wire::CreateDeletedCheckpoint(w.builder(), checkpoint_id, storage_path, deleted.size_bytes, training_run_id);
}
result::DeletedCheckpoint read(Reader& r, const wire::DeletedCheckpoint* table) {
  if (!r.enter(table, "DeletedCheckpoint", wire::DeletedCheckpoint::VT_TRAINING_RUN_ID)) return {};
  return {.checkpoint_id = r.id(table->checkpoint_id(), "checkpoint id"),
          .storage_path = r.text(table->storage_path(), "storage path"),
          .size_bytes = table->size_bytes(),
          .training_run_id = r.id(table->training_run_id(), "training run id")};
}

Offset<wire::LogRecord> write(Writer& w, const result::LogRecord& record) {
  const auto bytes = w.bytes(record.record);
  const auto note = w.bytes(record.note);
  const auto salt = to_wire(record.salt);
  return wire::CreateLogRecord(w.builder(), bytes, pointer_to(salt), note);
}
result::LogRecord read(Reader& r, const wire::LogRecord* table) {
  if (!r.enter(table, "LogRecord", wire::LogRecord::VT_NOTE)) return {};
  result::LogRecord record{.record = r.bytes(table->record()), .salt = std::nullopt, .note = r.bytes(table->note())};
  if (table->salt() != nullptr) record.salt = r.bytes16(table->salt(), "salt");
  return record;
}

Offset<wire::Reply> write(Writer& w, const Reply& reply);
Reply read(Reader& r, const wire::Reply* table);

/// A vector of tables, each by its own write or read.
template <class Values>
auto write_list(Writer& w, const Values& values) {
  return w.list(values, [&w](const auto& value) { return write(w, value); });
}
template <class Table>
auto read_list(Reader& r, const flatbuffers::Vector<Offset<Table>>* values) {
  return r.list(values, [&r](const Table* value) { return read(r, value); });
}

// ---- results of commands

Offset<wire::Registered> write(Writer& w, const result::Registered& value) {
  const auto model_id = w.id(value.model_id);
  const auto version = to_wire(value.version);
  return wire::CreateRegistered(w.builder(), model_id, &version, static_cast<wire::DeploymentState>(value.state),
                                value.registered_at);
}
result::Registered read(Reader& r, const wire::Registered* table) {
  if (!r.enter(table, "Registered", wire::Registered::VT_REGISTERED_AT)) return {};
  return {.model_id = r.id(table->model_id(), "model id"),
          .version = r.version(table->version(), "version"),
          .state = r.enumerator<registry::DeploymentState>(table->state(), "deployment state"),
          .registered_at = table->registered_at()};
}

Offset<wire::Transitioned> write(Writer& w, const result::Transitioned& value) {
  const auto model_id = w.id(value.model_id);
  const auto version = to_wire(value.version);
  return wire::CreateTransitioned(w.builder(), model_id, &version, static_cast<wire::DeploymentState>(value.from),
                                  static_cast<wire::DeploymentState>(value.to));
}
result::Transitioned read(Reader& r, const wire::Transitioned* table) {
  if (!r.enter(table, "Transitioned", wire::Transitioned::VT_TO)) return {};
  return {.model_id = r.id(table->model_id(), "model id"),
          .version = r.version(table->version(), "version"),
          .from = r.enumerator<registry::DeploymentState>(table->from(), "deployment state"),
          .to = r.enumerator<registry::DeploymentState>(table->to(), "deployment state")};
}

Offset<wire::Allocated> write(Writer& w, const result::Allocated& value) {
  const auto block_id = w.id(value.block_id);
  return wire::CreateAllocated(w.builder(), block_id, value.offset, value.actual_size, value.evicted_blocks);
}
result::Allocated read(Reader& r, const wire::Allocated* table) {
  if (!r.enter(table, "Allocated", wire::Allocated::VT_EVICTED_BLOCKS)) return {};
  return {.block_id = r.id(table->block_id(), "block id"),
          .offset = table->offset(),
          .actual_size = table->actual_size(),
          .evicted_blocks = table->evicted_blocks()};
}

Offset<wire::Evicted> write(Writer& w, const result::Evicted& value) {
  return wire::CreateEvicted(w.builder(), value.freed_bytes, value.blocks, value.more);
}
result::Evicted read(Reader& r, const wire::Evicted* table) {
  if (!r.enter(table, "Evicted", wire::Evicted::VT_MORE)) return {};
  return {.freed_bytes = table->freed_bytes(), .blocks = table->blocks(), .more = table->more()};
}

Offset<wire::Moves> write(Writer& w, const result::Moves& value) {
  const auto moves = write_list(w, value.moves);
  return wire::CreateMoves(w.builder(), moves, value.more);
}
result::Moves read(Reader& r, const wire::Moves* table) {
  if (!r.enter(table, "Moves", wire::Moves::VT_MORE)) return {};
  return {.moves = read_list(r, table->moves()), .more = table->more()};
}

Offset<wire::Collected> write(Writer& w, const result::Collected& value) {
  const auto deleted = write_list(w, value.deleted);
  return wire::CreateCollected(w.builder(), deleted, value.more);
}
result::Collected read(Reader& r, const wire::Collected* table) {
  if (!r.enter(table, "Collected", wire::Collected::VT_MORE)) return {};
  return {.deleted = read_list(r, table->deleted()), .more = table->more()};
}

Offset<wire::Done> write(Writer& w, const result::Done&) { return wire::CreateDone(w.builder()); }
result::Done read(Reader& r, const wire::Done* table) {
  r.enter(table, "Done", wire::Done::VT_RESERVED);
  return {};
}

// ---- results of queries

Offset<wire::Models> write(Writer& w, const result::Models& value) {
  const auto models = write_list(w, value.models);
  return wire::CreateModels(w.builder(), models);
}
result::Models read(Reader& r, const wire::Models* table) {
  if (!r.enter(table, "Models", wire::Models::VT_MODELS)) return {};
  return {.models = read_list(r, table->models())};
}

Offset<wire::Versions> write(Writer& w, const result::Versions& value) {
  std::vector<wire::Version> versions;
  versions.reserve(value.versions.size());
  for (const auto& version : value.versions) versions.push_back(to_wire(version));
  return wire::CreateVersions(w.builder(), w.builder().CreateVectorOfStructs(versions));
}
result::Versions read(Reader& r, const wire::Versions* table) {
  if (!r.enter(table, "Versions", wire::Versions::VT_VERSIONS)) return {};
  return {r.structs(table->versions(), [&r](const wire::Version* version) { return r.version(version, "version"); })};
}

Offset<wire::ValidationFound> write(Writer& w, const result::ValidationFound& value) {
  return wire::CreateValidationFound(w.builder(), codec::write(w, value.validation));
}
result::ValidationFound read(Reader& r, const wire::ValidationFound* table) {
  if (!r.enter(table, "ValidationFound", wire::ValidationFound::VT_VALIDATION)) return {};
  return {.validation = codec::read(r, table->validation())};
}

Offset<wire::Number> write(Writer& w, const result::Number& value) {
  return wire::CreateNumber(w.builder(), value.value);
}
result::Number read(Reader& r, const wire::Number* table) {
  if (!r.enter(table, "Number", wire::Number::VT_VALUE)) return {};
  return {.value = r.real(table->value())};
}

Offset<wire::Verdict> write(Writer& w, const result::Verdict& value) {
  const auto problem = w.text(value.problem);
  return wire::CreateVerdict(w.builder(), value.holds, problem);
}
result::Verdict read(Reader& r, const wire::Verdict* table) {
  if (!r.enter(table, "Verdict", wire::Verdict::VT_PROBLEM)) return {};
  return {.holds = table->holds(), .problem = r.text(table->problem(), "problem")};
}

Offset<wire::BestModelFound> write(Writer& w, const result::BestModelFound& value) {
  const auto model_id = w.optional_text(value.model_id);
  const auto version = to_wire(value.version);
  return wire::CreateBestModelFound(w.builder(), model_id, value.model_id ? &version : nullptr);
}
result::BestModelFound read(Reader& r, const wire::BestModelFound* table) {
  if (!r.enter(table, "BestModelFound", wire::BestModelFound::VT_VERSION) || table->model_id() == nullptr) return {};
  return {.model_id = r.id(table->model_id(), "model id"), .version = r.version(table->version(), "version")};
}

Offset<wire::Pools> write(Writer& w, const result::Pools& value) {
  const auto pools = write_list(w, value.pools);
  return wire::CreatePools(w.builder(), pools);
}
result::Pools read(Reader& r, const wire::Pools* table) {
  if (!r.enter(table, "Pools", wire::Pools::VT_POOLS)) return {};
  return {.pools = read_list(r, table->pools())};
}

Offset<wire::PoolStats> write(Writer& w, const result::PoolStats& value) {
  const gpu_memory::PoolStats& stats = value.stats;
  return wire::CreatePoolStats(w.builder(), stats.total_bytes, stats.allocated_bytes, stats.free_bytes,
                               stats.pinned_bytes, stats.cached_bytes, stats.fragmentation_ratio,
                               stats.largest_free_block, stats.block_count, stats.allocation_count,
                               value.memory_pressure, value.should_defragment, value.seconds_to_oom);
}
result::PoolStats read(Reader& r, const wire::PoolStats* table) {
  if (!r.enter(table, "PoolStats", wire::PoolStats::VT_SECONDS_TO_OOM)) return {};
  return {.stats = {.total_bytes = table->total_bytes(),
                    .allocated_bytes = table->allocated_bytes(),
                    .free_bytes = table->free_bytes(),
                    .pinned_bytes = table->pinned_bytes(),
                    .cached_bytes = table->cached_bytes(),
                    .fragmentation_ratio = r.real(table->fragmentation_ratio()),
                    .largest_free_block = table->largest_free_block(),
                    .block_count = table->block_count(),
                    .allocation_count = table->allocation_count()},
          .memory_pressure = r.real(table->memory_pressure()),
          .should_defragment = table->should_defragment(),
          .seconds_to_oom = r.real(table->seconds_to_oom())};
}

Offset<wire::Blocks> write(Writer& w, const result::Blocks& value) {
  const auto blocks = write_list(w, value.blocks);
  return wire::CreateBlocks(w.builder(), blocks);
}
result::Blocks read(Reader& r, const wire::Blocks* table) {
  if (!r.enter(table, "Blocks", wire::Blocks::VT_BLOCKS)) return {};
  return {.blocks = read_list(r, table->blocks())};
}

Offset<wire::Checkpoints> write(Writer& w, const result::Checkpoints& value) {
  const auto checkpoints = write_list(w, value.checkpoints);
  return wire::CreateCheckpoints(w.builder(), checkpoints);
}
result::Checkpoints read(Reader& r, const wire::Checkpoints* table) {
  if (!r.enter(table, "Checkpoints", wire::Checkpoints::VT_CHECKPOINTS)) return {};
  return {.checkpoints = read_list(r, table->checkpoints())};
}

Offset<wire::Chain> write(Writer& w, const result::Chain& value) {
  const auto checkpoints = write_list(w, value.checkpoints);
  return wire::CreateChain(w.builder(), checkpoints, value.size_bytes, value.estimated_restore_ms, value.length);
}
result::Chain read(Reader& r, const wire::Chain* table) {
  if (!r.enter(table, "Chain", wire::Chain::VT_LENGTH)) return {};
  return {.checkpoints = read_list(r, table->checkpoints()),
          .size_bytes = table->size_bytes(),
          .estimated_restore_ms = table->estimated_restore_ms(),
          .length = table->length()};
}

Offset<wire::Due> write(Writer& w, const result::Due& value) {
  return wire::CreateDue(w.builder(), value.due, value.last_step, value.interval);
}
result::Due read(Reader& r, const wire::Due* table) {
  if (!r.enter(table, "Due", wire::Due::VT_INTERVAL)) return {};
  return {.due = table->due(), .last_step = table->last_step(), .interval = table->interval()};
}

Offset<wire::Policy> write(Writer& w, const result::Policy& value) {
  const auto policy = codec::write(w, value.policy);
  return wire::CreatePolicy(w.builder(), policy, value.inherited);
}
result::Policy read(Reader& r, const wire::Policy* table) {
  if (!r.enter(table, "Policy", wire::Policy::VT_INHERITED)) return {};
  return {.policy = codec::read(r, table->policy()), .inherited = table->inherited()};
}

Offset<wire::LogRecords> write(Writer& w, const result::LogRecords& value) {
  const auto records = write_list(w, value.records);
  return wire::CreateLogRecords(w.builder(), records);
}
result::LogRecords read(Reader& r, const wire::LogRecords* table) {
  if (!r.enter(table, "LogRecords", wire::LogRecords::VT_RECORDS)) return {};
  return {.records = read_list(r, table->records())};
}

Offset<wire::LogVerified> write(Writer& w, const result::LogVerified& value) {
  const auto root = to_wire(value.root);
  return wire::CreateLogVerified(w.builder(), value.sequence, &root, value.chunks, value.bytes);
}
result::LogVerified read(Reader& r, const wire::LogVerified* table) {
  if (!r.enter(table, "LogVerified", wire::LogVerified::VT_BYTES)) return {};
  return {.sequence = table->sequence(),
          .root = r.hash(table->root(), "root"),
          .chunks = table->chunks(),
          .bytes = table->bytes()};
}

Offset<wire::Status> write(Writer& w, const result::Status& value) {
  const auto state_digest = w.text(value.state_digest);
  const auto log_id = to_wire(value.log_id);
  const auto root = to_wire(value.root);
  const auto version = w.text(value.version);
  const auto ack = w.text(value.ack);
  const auto changes_refused_because = w.text(value.changes_refused_because);
  return wire::CreateStatus(w.builder(), value.sequence, value.anchored_sequence, state_digest, value.incarnation,
                            &log_id, value.verified_to, &root, version, ack, value.started_at, value.time, value.models,
                            value.model_versions, value.pools, value.live_blocks, value.checkpoints, value.sessions,
                            value.connections, value.refused, changes_refused_because, value.group_commit_p50_us,
                            value.group_commit_p99_us, value.snapshot_sequence);
}
result::Status read(Reader& r, const wire::Status* table) {
  if (!r.enter(table, "Status", wire::Status::VT_SNAPSHOT_SEQUENCE)) return {};
  return {.sequence = table->sequence(),
          .anchored_sequence = table->anchored_sequence(),
          .state_digest = r.text(table->state_digest(), "state digest"),
          .incarnation = table->incarnation(),
          .log_id = r.bytes16(table->log_id(), "log id"),
          .verified_to = table->verified_to(),
          .root = r.hash(table->root(), "root"),
          .version = r.text(table->version(), "version"),
          .ack = r.text(table->ack(), "ack"),
          .started_at = table->started_at(),
          .time = table->time(),
          .models = table->models(),
          .model_versions = table->model_versions(),
          .pools = table->pools(),
          .live_blocks = table->live_blocks(),
          .checkpoints = table->checkpoints(),
          .sessions = table->sessions(),
          .connections = table->connections(),
          .refused = table->refused(),
          .changes_refused_because = r.text(table->changes_refused_because(), "changes refused because"),
          .group_commit_p50_us = table->group_commit_p50_us(),
          .group_commit_p99_us = table->group_commit_p99_us(),
          .snapshot_sequence = table->snapshot_sequence()};
}

Offset<wire::SnapshotTaken> write(Writer& w, const result::SnapshotTaken& value) {
  return wire::CreateSnapshotTaken(w.builder(), value.sequence, value.bytes);
}
result::SnapshotTaken read(Reader& r, const wire::SnapshotTaken* table) {
  if (!r.enter(table, "SnapshotTaken", wire::SnapshotTaken::VT_BYTES)) return {};
  return {.sequence = table->sequence(), .bytes = table->bytes()};
}

// ---- replies; those to the commands of a Batch stand in the reply to the Batch

Offset<wire::BatchResult> write(Writer& w, const result::BatchResult& value);
result::BatchResult read(Reader& r, const wire::BatchResult* table);

Member<wire::Result> write_result(Writer& w, const Reply& reply) {
  return std::visit([&w](const auto& value) { return as_member<wire::ResultTraits>(write(w, value)); }, reply.result);
}

Offset<wire::Reply> write(Writer& w, const Reply& reply) {
  const std::string_view message(reply.status.message().data(), reply.status.message().size());
  const auto message_text = w.text(message);
  const Member<wire::Result> result = reply.status.ok() ? write_result(w, reply) : Member<wire::Result>{};
  const auto next_page_token = w.optional_bytes(reply.next_page_token);
  return wire::CreateReply(w.builder(), reply.correlation_id, static_cast<std::uint8_t>(reply.status.code()),
                           message_text, reply.sequence, result.type, result.offset, next_page_token,
                           reply.incarnation);
}

absl::StatusCode read_code(Reader& r, const wire::Reply* table) {
  constexpr auto kLastCode = static_cast<std::uint8_t>(absl::StatusCode::kUnauthenticated);
  if (table->code() > kLastCode) r.newer(fmt::format("code {} is unknown", table->code()));
  return static_cast<absl::StatusCode>(table->code());
}
absl::Status read_status(Reader& r, const wire::Reply* table) {
  const absl::StatusCode code = read_code(r, table);
  return {code, r.text(table->message(), "message")};
}

ReplyResult read_result(Reader& r, const wire::Reply* table) {
  return r.member<ReplyResult, wire::ResultTraits, wire::Registered, wire::Transitioned, wire::Allocated, wire::Evicted,
                  wire::Moves, wire::Collected, wire::BatchResult, wire::Done, wire::Models, wire::Versions,
                  wire::ValidationFound, wire::Number, wire::Verdict, wire::BestModelFound, wire::Pools,
                  wire::PoolStats, wire::Blocks, wire::Checkpoints, wire::Chain, wire::Due, wire::Policy,
                  wire::LogRecords, wire::LogVerified, wire::Status, wire::SnapshotTaken>(
      table->result_type(), table->result(), "result", [&r](const auto* member) { return read(r, member); });
}

Reply read(Reader& r, const wire::Reply* table) {
  Reply reply;
  if (!r.enter(table, "Reply", wire::Reply::VT_INCARNATION)) return reply;
  reply.correlation_id = table->correlation_id();
  reply.status = read_status(r, table);
  reply.sequence = table->sequence();
  reply.incarnation = table->incarnation();
  if (reply.status.ok()) reply.result = read_result(r, table);
  if (table->next_page_token() != nullptr) reply.next_page_token = r.bytes(table->next_page_token());
  return reply;
}

Offset<wire::BatchResult> write(Writer& w, const result::BatchResult& value) {
  return wire::CreateBatchResult(w.builder(), write_list(w, value.replies));
}
result::BatchResult read(Reader& r, const wire::BatchResult* table) {
  if (!r.enter(table, "BatchResult", wire::BatchResult::VT_REPLIES)) return {};
  return {read_list(r, table->replies())};
}

Offset<wire::Welcome> write(Writer& w, const Welcome& welcome) {
  const auto server = w.text(welcome.server);
  const auto log_id = to_wire(welcome.log_id);
  return wire::CreateWelcome(w.builder(), welcome.protocol, &log_id, welcome.incarnation, welcome.sequence,
                             welcome.opened_at, server);
}
Welcome read(Reader& r, const wire::Welcome* table) {
  if (!r.enter(table, "Welcome", wire::Welcome::VT_SERVER)) return {};
  return {.protocol = table->protocol(),
          .log_id = r.bytes16(table->log_id(), "log id"),
          .incarnation = table->incarnation(),
          .sequence = table->sequence(),
          .opened_at = table->opened_at(),
          .server = r.text(table->server(), "server")};
}

}  // namespace

namespace {

template <class Message>
absl::Status append_frame(const Message& message, std::string& out) {
  Writer w(kMaxFrameBytes);
  const auto member = as_member<wire::ServerMessageTraits>(write(w, message));
  const auto root = wire::CreateServerFrame(w.builder(), member.type, member.offset);
  return w.append_size_prefixed(root.Union(), wire::ServerFrameIdentifier(), out);
}

[[maybe_unused]] std::string encoded(const Reply& reply) {
  std::string frame;
  append_frame(reply, frame).IgnoreError();
  return frame;
}

[[maybe_unused]] bool says(std::string_view frame, const Reply& reply) {
  const Result<ServerMessage> message = decode_server_frame(std::as_bytes(std::span(frame)));
  return message.ok() && encoded(std::get<Reply>(*message)) == encoded(reply);
}

/// Whether all that the frames of two such replies differ in are numbers and what they give: what has its default is
/// not written.
bool is_plain(const Reply& reply) {
  return reply.status.ok() && !reply.next_page_token && reply.correlation_id != 0 && reply.sequence != 0 &&
         reply.incarnation != 0;
}

/// Whether it is numbers and an id that those of two plain ones differ in, if the ids are as long.
bool is_plain(const result::Registered& registered) {
  return registered.state == registry::DeploymentState{} && registered.registered_at != 0 &&
         registered.model_id.size() <= names::kMaxIdBytes;
}

/// The frame of `reply`, a plain Reply or a ModelReply. It says what append_frame() does, if in other bytes at times:
/// there, a table of the result and one around it may share what says which fields they have. A field that is added to
/// Reply has to be changed here too, or looked at in is_plain(): the assertion on a Reply tells.
absl::Status append_plain(Writer& w, const auto& reply, const Member<wire::Result>& result, std::string& out) {
  thread_local Envelope envelope;
  const std::string_view front = envelope.around(w.builder().GetSize(), [&](auto& builder, Offset<void> inside) {
    constexpr int kAny = 1;  // and not the default
    const auto root = wire::CreateReply(builder, kAny, 0, 0, kAny, result.type, inside, 0, kAny);
    const auto frame = wire::CreateServerFrame(builder, wire::ServerMessage::Reply, root.Union());
    builder.FinishSizePrefixed(frame, wire::ServerFrameIdentifier());
  });
  constexpr flatbuffers::uoffset_t kPrefixBytes = sizeof(flatbuffers::uoffset_t);
  std::uint8_t* const begin = w.enclose(front);
  flatbuffers::WriteScalar(begin, w.builder().GetSize() - kPrefixBytes);
  auto* frame = flatbuffers::GetMutableRoot<wire::ServerFrame>(begin + kPrefixBytes);
  auto* kept = static_cast<wire::Reply*>(frame->mutable_message());
  kept->mutate_correlation_id(reply.correlation_id);
  kept->mutate_sequence(reply.sequence);
  kept->mutate_incarnation(reply.incarnation);
  auto* fields = reinterpret_cast<flatbuffers::Table*>(kept);
  fields->SetField(wire::Reply::VT_RESULT_TYPE, result.type);
  fields->SetPointer(wire::Reply::VT_RESULT, w.at(result.offset));
  const Result<std::string_view> bytes = w.finished();
  if (bytes.ok()) out.append(*bytes);
  return bytes.status();
}

/// Encodes one for each length of an id, and then changes that where it lies. A field that is added to Reply or
/// Registered has to be changed too, or looked at in is_plain(): the assertion tells.
absl::Status append_registered(const Reply& reply, const result::Registered& registered, std::string& out) {
  thread_local std::array<std::string, names::kMaxIdBytes + 1> frames;
  std::string& frame = frames[registered.model_id.size()];
  if (frame.empty()) {
    if (absl::Status status = append_frame(reply, frame); !status.ok()) return status;
  } else {
    auto* root = flatbuffers::GetMutableRoot<wire::ServerFrame>(frame.data() + sizeof(flatbuffers::uoffset_t));
    auto* to = static_cast<wire::Reply*>(root->mutable_message());
    to->mutate_correlation_id(reply.correlation_id);
    to->mutate_sequence(reply.sequence);
    to->mutate_incarnation(reply.incarnation);
    auto* result = static_cast<wire::Registered*>(to->mutable_result());
    registered.model_id.copy(reinterpret_cast<char*>(result->mutable_model_id()->Data()), registered.model_id.size());
    *result->mutable_version() = to_wire(registered.version);
    result->mutate_registered_at(registered.registered_at);
    assert(frame == encoded(reply));
  }
  out.append(frame);
  return absl::OkStatus();
}

}  // namespace

absl::Status append_server_frame(const Reply& reply, std::string& out) {
  if (!is_plain(reply)) return append_frame(reply, out);
  const auto* registered = std::get_if<result::Registered>(&reply.result);
  if (registered != nullptr && is_plain(*registered)) return append_registered(reply, *registered, out);
  Writer w(kMaxFrameBytes);
  [[maybe_unused]] const std::size_t before = out.size();
  absl::Status status = append_plain(w, reply, write_result(w, reply), out);
  assert(!status.ok() || says(std::string_view(out).substr(before), reply));
  return status;
}

absl::Status append_server_frame(const ModelReply& reply, std::string& out) {
  Writer w(kMaxFrameBytes);
  const auto model = codec::write(w, reply.model);
  const auto models = wire::CreateModels(w.builder(), w.builder().CreateVector(&model, 1));
  return append_plain(w, reply, as_member<wire::ResultTraits>(models), out);
}

Result<std::string> encode_server_frame(const ServerMessage& message) {
  std::string frame;
  absl::Status status = std::visit([&](const auto& m) { return append_frame(m, frame); }, message);
  if (!status.ok()) return status;
  return frame;
}

Result<ServerMessage> decode_server_frame(std::span<const std::byte> frame) {
  Reader r(Source::Server, frame.size());
  const VerifiedBuffer<wire::ServerFrame> verified(frame, wire::ServerFrameIdentifier(), Framing::SizePrefixed,
                                                   kMaxFrameBytes);
  const wire::ServerFrame* table = verified.root();
  if (table == nullptr) r.damaged("malformed");
  if (!r.enter(table, "ServerFrame", wire::ServerFrame::VT_MESSAGE)) return r.status();
  ServerMessage message = r.member<ServerMessage, wire::ServerMessageTraits, wire::Welcome, wire::Reply>(
      table->message_type(), table->message(), "message", [&r](const auto* member) { return read(r, member); });
  if (!r.ok()) return r.status();
  return message;
}

namespace {

template <class Table>
std::optional<ReplyView::Version> version_of(const Table* table) {
  if (table == nullptr || table->model_id() == nullptr || table->version() == nullptr) return std::nullopt;
  const wire::Version& version = *table->version();
  return ReplyView::Version{{table->model_id()->c_str(), table->model_id()->size()},
                            {version.major(), version.minor(), version.patch()}};
}

std::optional<ReplyView::Version> version_of(const wire::Reply& reply) {
  if (const auto* registered = reply.result_as_Registered()) return version_of(registered);
  const auto* models = reply.result_as_Models();
  if (models == nullptr || models->models() == nullptr || models->models()->size() != 1) return std::nullopt;
  return version_of(models->models()->Get(0));
}

}  // namespace

Result<std::optional<ReplyView>> view_reply(std::span<const std::byte> frame) {
  if (reinterpret_cast<std::uintptr_t>(frame.data()) % alignof(std::uint64_t) != 0) {
    return absl::InvalidArgumentError("a frame is read in place where it is aligned");
  }
  const VerifiedBuffer<wire::ServerFrame> verified(frame, wire::ServerFrameIdentifier(), Framing::SizePrefixed,
                                                   kMaxFrameBytes);
  if (verified.root() == nullptr) return absl::InvalidArgumentError("frame: malformed");
  const wire::Reply* reply = verified.root()->message_as_Reply();
  if (reply == nullptr) return std::nullopt;
  Reader r(Source::Server, frame.size());
  const absl::StatusCode code = read_code(r, reply);
  if (!r.ok()) return r.status();
  return ReplyView{reply->correlation_id(), code, reply->sequence(), reply->incarnation(), version_of(*reply)};
}

}  // namespace codec
}  // namespace tensorforge
