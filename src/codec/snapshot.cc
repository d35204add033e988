#include "codec/snapshot.h"

#include <utility>

#include <fmt/format.h>

#include "codec/domains.h"
#include "codec/reader.h"
#include "codec/writer.h"
#include "snapshot_generated.h"

namespace tensorforge::codec {
namespace {

wire::Digest to_wire_digest(const Digest& digest) { return {digest.high, digest.low}; }

Digest read_digest(Reader& r, const wire::Digest* digest, std::string_view name) {
  if (digest != nullptr) return {.high = digest->high(), .low = digest->low()};
  r.damaged(fmt::format("{} is absent", name));
  return {};
}

/// A vector of structs, absent if empty.
template <class Struct, class Values, class ToStruct>
Offset<flatbuffers::Vector<const Struct*>> write_structs(Writer& w, const Values& values, ToStruct to_struct) {
  if (values.empty()) return {};
  std::vector<Struct> out;
  out.reserve(values.size());
  for (const auto& value : values) out.push_back(to_struct(value));
  return w.builder().CreateVectorOfStructs(out);
}

// ---- facts

Offset<wire::SnapshotFacts> write(Writer& w, const SnapshotFacts& facts) {
  const auto incarnations = write_structs<wire::SnapshotIncarnation>(
      w, facts.incarnations, [](const auto& each) { return wire::SnapshotIncarnation(each.first_sequence, each.id); });
  const wire::Digest registry = to_wire_digest(facts.registry);
  const wire::Digest gpu_memory = to_wire_digest(facts.gpu_memory);
  const wire::Digest checkpoint = to_wire_digest(facts.checkpoint);
  const SnapshotFacts::Counts& counts = facts.counts;
  return wire::CreateSnapshotFacts(w.builder(), facts.sequence, facts.time, incarnations, facts.horizon,
                                   facts.next_block_number, facts.next_checkpoint_number, &registry, &gpu_memory,
                                   &checkpoint, counts.models, counts.validations, counts.pools, counts.blocks,
                                   counts.checkpoints, counts.policies, counts.sessions, counts.streams);
}
SnapshotFacts read(Reader& r, const wire::SnapshotFacts* table) {
  if (!r.enter(table, "facts", wire::SnapshotFacts::VT_STREAMS)) return {};
  return {.sequence = table->sequence(),
          .time = table->time(),
          .incarnations = r.structs(table->incarnations(),
                                    [](const auto* each) {
                                      return SnapshotFacts::Incarnation{each->id(), each->first_sequence()};
                                    }),
          .horizon = table->horizon(),
          .next_block_number = table->next_block_number(),
          .next_checkpoint_number = table->next_checkpoint_number(),
          .registry = read_digest(r, table->registry(), "registry digest"),
          .gpu_memory = read_digest(r, table->gpu_memory(), "gpu_memory digest"),
          .checkpoint = read_digest(r, table->checkpoint(), "checkpoint digest"),
          .counts = {table->models(), table->validations(), table->pools(), table->blocks(), table->checkpoints(),
                     table->policies(), table->sessions(), table->streams()}};
}

// ---- models

Offset<wire::SnapshotModels> write(Writer& w, const SnapshotModels& part) {
  return wire::CreateSnapshotModels(
      w.builder(), w.list(part.models, [&w](const auto& model) { return codec::write(w, model.view()); }));
}
SnapshotModels read(Reader& r, const wire::SnapshotModels* table) {
  if (!r.enter(table, "models", wire::SnapshotModels::VT_MODELS)) return {};
  return {r.list(table->models(), [&r](const wire::Model* model) { return codec::read_packed(r, model); })};
}

Offset<wire::SnapshotValidations> write(Writer& w, const SnapshotValidations& part) {
  return wire::CreateSnapshotValidations(
      w.builder(), w.list(part.validations, [&w](const auto& each) { return codec::write(w, each); }));
}
SnapshotValidations read(Reader& r, const wire::SnapshotValidations* table) {
  if (!r.enter(table, "validations", wire::SnapshotValidations::VT_VALIDATIONS)) return {};
  return {r.list(table->validations(), [&r](const wire::Validation* each) { return codec::read(r, each); })};
}

// ---- pools

Offset<wire::SnapshotPools> write(Writer& w, const SnapshotPools& part) {
  return wire::CreateSnapshotPools(w.builder(),
                                   w.list(part.pools, [&w](const auto& device) { return codec::write(w, device); }));
}
SnapshotPools read(Reader& r, const wire::SnapshotPools* table) {
  if (!r.enter(table, "pools", wire::SnapshotPools::VT_POOLS)) return {};
  return {r.list(table->pools(), [&r](const wire::Device* device) { return codec::read(r, device); })};
}

Offset<wire::SnapshotBlock> write_block(Writer& w, const gpu_memory::LiveBlock& block) {
  const auto tensor_id = w.id(block.tensor_id);
  const wire::EntityId id = to_wire(block.id);
  return wire::CreateSnapshotBlock(w.builder(), &id, block.offset, block.size,
                                   static_cast<wire::BlockStatus>(block.status), tensor_id, block.allocated_at,
                                   block.last_accessed, block.alignment, block.priority);
}
gpu_memory::LiveBlock read_block(Reader& r, const wire::SnapshotBlock* table) {
  if (!r.enter(table, "block", wire::SnapshotBlock::VT_PRIORITY)) return {};
  return {.id = r.entity(table->block(), "block"),
          .offset = table->offset(),
          .size = table->size(),
          .status = r.enumerator<gpu_memory::BlockStatus>(table->status(), "block status"),
          .tensor_id = r.id(table->tensor_id(), "tensor id"),
          .allocated_at = table->allocated_at(),
          .last_accessed = table->last_accessed(),
          .alignment = table->alignment(),
          .priority = table->priority()};
}

Offset<wire::SnapshotBlocks> write(Writer& w, const SnapshotBlocks& part) {
  const auto device_id = w.id(part.device_id);
  const auto blocks = w.list(part.blocks, [&w](const auto& block) { return write_block(w, block); });
  return wire::CreateSnapshotBlocks(w.builder(), device_id, blocks);
}
SnapshotBlocks read(Reader& r, const wire::SnapshotBlocks* table) {
  if (!r.enter(table, "blocks", wire::SnapshotBlocks::VT_BLOCKS)) return {};
  return {.device_id = r.id(table->device_id(), "device id"),
          .blocks = r.list(table->blocks(), [&r](const wire::SnapshotBlock* block) { return read_block(r, block); })};
}

// ---- checkpoints

Offset<wire::SnapshotCheckpoint> write_checkpoint(Writer& w, const checkpoint::StoredCheckpoint& stored) {
  const auto request = codec::write(w, stored.created.request);
  const auto storage_path = w.text(stored.storage_path);
  const wire::EntityId id = to_wire(stored.created.checkpoint);
  const auto parent = to_wire(stored.created.parent);
  return wire::CreateSnapshotCheckpoint(w.builder(), &id, request, pointer_to(parent), stored.created.created_at,
                                        static_cast<wire::CheckpointState>(stored.state), stored.size_bytes,
                                        storage_path);
}
checkpoint::StoredCheckpoint read_checkpoint(Reader& r, const wire::SnapshotCheckpoint* table) {
  checkpoint::StoredCheckpoint stored;
  if (!r.enter(table, "checkpoint", wire::SnapshotCheckpoint::VT_STORAGE_PATH)) return stored;
  stored.created.checkpoint = r.entity(table->checkpoint(), "checkpoint");
  stored.created.request = codec::read(r, table->request());
  if (table->parent() != nullptr) stored.created.parent = r.entity(table->parent(), "parent");
  stored.created.created_at = table->created_at();
  stored.state = r.enumerator<checkpoint::CheckpointState>(table->state(), "checkpoint state");
  stored.size_bytes = table->size_bytes();
  stored.storage_path = r.text(table->storage_path(), "storage path");
  return stored;
}

Offset<wire::SnapshotCheckpoints> write(Writer& w, const SnapshotCheckpoints& part) {
  return wire::CreateSnapshotCheckpoints(
      w.builder(), w.list(part.checkpoints, [&w](const auto& each) { return write_checkpoint(w, each); }));
}
SnapshotCheckpoints read(Reader& r, const wire::SnapshotCheckpoints* table) {
  if (!r.enter(table, "checkpoints", wire::SnapshotCheckpoints::VT_CHECKPOINTS)) return {};
  return {
      r.list(table->checkpoints(), [&r](const wire::SnapshotCheckpoint* each) { return read_checkpoint(r, each); })};
}

Offset<wire::SnapshotPolicies> write(Writer& w, const SnapshotPolicies& part) {
  return wire::CreateSnapshotPolicies(w.builder(), w.list(part.policies, [&w](const auto& each) {
    const auto training_run_id = w.optional_text(each.training_run_id);
    const auto policy = codec::write(w, each.policy);
    return wire::CreateSnapshotPolicy(w.builder(), training_run_id, policy);
  }));
}
SnapshotPolicies read(Reader& r, const wire::SnapshotPolicies* table) {
  if (!r.enter(table, "policies", wire::SnapshotPolicies::VT_POLICIES)) return {};
  return {r.list(table->policies(), [&r](const wire::SnapshotPolicy* each) -> checkpoint::PolicySet {
    if (!r.enter(each, "policy", wire::SnapshotPolicy::VT_POLICY)) return {};
    return {.training_run_id = r.optional_text(each->training_run_id(), "training run id"),
            .policy = codec::read(r, each->policy())};
  })};
}

// ---- the service's own

Offset<wire::SnapshotSessions> write(Writer& w, const SnapshotSessions& part) {
  return wire::CreateSnapshotSessions(w.builder(), w.list(part.sessions, [&w](const auto& session) {
    const auto entries = write_structs<wire::SnapshotEntry>(w, session.entries, [](const auto& entry) {
      return wire::SnapshotEntry(entry.number, entry.first, entry.count);
    });
    const wire::Bytes16 id = to_wire(session.id);
    return wire::CreateSnapshotSession(w.builder(), &id, session.opened_at, session.answered_below, entries);
  }));
}
SnapshotSessions read(Reader& r, const wire::SnapshotSessions* table) {
  if (!r.enter(table, "sessions", wire::SnapshotSessions::VT_SESSIONS)) return {};
  return {r.list(table->sessions(), [&r](const wire::SnapshotSession* each) -> SnapshotSessions::Session {
    if (!r.enter(each, "session", wire::SnapshotSession::VT_ENTRIES)) return {};
    return {.id = r.bytes16(each->session(), "session"),
            .opened_at = each->opened_at(),
            .answered_below = each->answered_below(),
            .entries = r.structs(each->entries(), [](const wire::SnapshotEntry* entry) {
              return SnapshotSessions::Entry{entry->number(), entry->first(), entry->count()};
            })};
  })};
}

Offset<wire::SnapshotStreams> write(Writer& w, const SnapshotStreams& part) {
  return wire::CreateSnapshotStreams(w.builder(), w.list(part.streams, [&w](const auto& stream) {
    const auto name = w.id(stream.name);
    return wire::CreateSnapshotStream(w.builder(), name, stream.last);
  }));
}
SnapshotStreams read(Reader& r, const wire::SnapshotStreams* table) {
  if (!r.enter(table, "streams", wire::SnapshotStreams::VT_STREAMS)) return {};
  return {r.list(table->streams(), [&r](const wire::SnapshotStream* each) -> SnapshotStreams::Stream {
    if (!r.enter(each, "stream", wire::SnapshotStream::VT_LAST)) return {};
    return {.name = r.id(each->name(), "stream"), .last = each->last()};
  })};
}

}  // namespace

Result<std::string> encode_snapshot_part(const SnapshotPart& part) {
  Writer w(kMaxSnapshotPageBytes);
  const auto member =
      std::visit([&w](const auto& each) { return as_member<wire::SnapshotPartTraits>(write(w, each)); }, part);
  const auto root = wire::CreateSnapshotPage(w.builder(), member.type, member.offset);
  return w.finish(root.Union(), wire::SnapshotPageIdentifier());
}

Result<SnapshotPart> decode_snapshot_part(std::span<const std::byte> bytes) {
  Reader r(Source::Snapshot, bytes.size());
  const VerifiedBuffer<wire::SnapshotPage> buffer(bytes, wire::SnapshotPageIdentifier(), Framing::Plain,
                                                  kMaxSnapshotPageBytes);
  const wire::SnapshotPage* table = buffer.root();
  if (table == nullptr) r.damaged(fmt::format("{} bytes that are not a page of one", bytes.size()));
  if (!r.enter(table, "page", wire::SnapshotPage::VT_PART)) return r.status();
  SnapshotPart part =
      r.member<SnapshotPart, wire::SnapshotPartTraits, wire::SnapshotFacts, wire::SnapshotModels,
               wire::SnapshotValidations, wire::SnapshotPools, wire::SnapshotBlocks, wire::SnapshotCheckpoints,
               wire::SnapshotPolicies, wire::SnapshotSessions, wire::SnapshotStreams>(
          table->part_type(), table->part(), "part", [&r](const auto* member) { return read(r, member); });
  if (!r.ok()) return r.status();
  return part;
}

}  // namespace tensorforge::codec
