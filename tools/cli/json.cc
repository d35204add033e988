#include "json.h"

#include <type_traits>

#include <fmt/format.h>

namespace tensorforge::cli {
namespace {

using registry::format_version;

Json name_of(auto enumerator) { return std::string(to_string(enumerator)); }
std::string hex(std::uint32_t incarnation) { return fmt::format("{:08x}", incarnation); }
std::string block_id(EntityId id) { return format_entity_id(gpu_memory::kBlockIdPrefix, id); }
std::string checkpoint_id(EntityId id) { return format_entity_id(checkpoint::kCheckpointIdPrefix, id); }

template <class Map>
Json object_of(const Map& map) {
  Json object = Json::object();
  for (const auto& [key, value] : map) object[key] = value;
  return object;
}
template <class T>
Json array_of(const std::vector<T>& values) {
  Json array = Json::array();
  for (const T& value : values) array.push_back(to_json(value));
  return array;
}
template <class T>
Json one_or_all(const std::vector<T>& values) {
  return values.size() == 1 ? to_json(values.front()) : array_of(values);
}
Json request_json(const gpu_memory::AllocationRequest& request) {
  return {{"tensor_id", request.tensor_id},
          {"size", request.size},
          {"alignment", request.alignment},
          {"pinned", request.pinned},
          {"priority", request.priority}};
}
Json request_json(const checkpoint::CreateCheckpointRequest& request) {
  return {{"training_run_id", request.training_run_id},
          {"epoch", request.epoch},
          {"step", request.step},
          {"checkpoint_type", name_of(request.checkpoint_type)},
          {"metrics", object_of(request.metrics)}};
}

// ---- events

Json event_json(const registry::ModelRegistered& event) { return {{"model", to_json(copy_of(event.model.view()))}}; }
Json event_json(const registry::StateTransitioned& event) {
  return {{"model_id", event.model_id},
          {"version", format_version(event.version)},
          {"from", name_of(event.from)},
          {"to", name_of(event.to)}};
}
Json event_json(const registry::ValidationRecorded& event) { return {{"validation", to_json(event.validation)}}; }

Json event_json(const gpu_memory::PoolCreated& event) { return {{"device", to_json(event.device)}}; }
Json event_json(const gpu_memory::BlockAllocated& event) {
  return {{"device_id", event.device_id},
          {"block_id", block_id(event.block)},
          {"request", request_json(event.request)},
          {"offset", event.offset},
          {"actual_size", event.actual_size},
          {"evicted", event.evicted},
          {"at", event.at}};
}
Json event_json(const gpu_memory::AllocationRefused& event) {
  return {{"device_id", event.device_id},
          {"request", request_json(event.request)},
          {"cause", name_of(event.cause)},
          {"actual_size", event.actual_size},
          {"total_bytes", event.total_bytes},
          {"free_bytes", event.free_bytes},
          {"evictable_bytes", event.evictable_bytes},
          {"largest_free_block", event.largest_free_block}};
}
Json block_event(const std::string& device_id, EntityId block) {
  return {{"device_id", device_id}, {"block_id", block_id(block)}};
}
Json event_json(const gpu_memory::BlockFreed& event) { return block_event(event.device_id, event.block); }
Json event_json(const gpu_memory::BlockCached& event) { return block_event(event.device_id, event.block); }
Json event_json(const gpu_memory::BlockPinned& event) { return block_event(event.device_id, event.block); }
Json event_json(const gpu_memory::BlockUnpinned& event) { return block_event(event.device_id, event.block); }
Json event_json(const gpu_memory::BlockTouched& event) {
  Json json = block_event(event.device_id, event.block);
  json["at"] = event.at;
  return json;
}
Json event_json(const gpu_memory::BlockEvicted& event) {
  Json json = block_event(event.device_id, event.block);
  json["size"] = event.size;
  json["more"] = event.more;
  return json;
}
Json event_json(const gpu_memory::BlockMoved& event) {
  Json json = block_event(event.device_id, event.block);
  json["from"] = event.from;
  json["to"] = event.to;
  json["size"] = event.size;
  json["more"] = event.more;
  return json;
}

Json event_json(const checkpoint::CheckpointCreated& event) {
  Json json{{"checkpoint_id", checkpoint_id(event.checkpoint)}};
  json.update(request_json(event.request));
  if (event.parent) json["parent_id"] = checkpoint_id(*event.parent);
  json["created_at"] = event.created_at;
  return json;
}
Json checkpoint_event(EntityId id, const std::string& run) {
  return {{"checkpoint_id", checkpoint_id(id)}, {"training_run_id", run}};
}
Json event_json(const checkpoint::CheckpointCompleted& event) {
  Json json = checkpoint_event(event.checkpoint, event.training_run_id);
  json["size_bytes"] = event.size_bytes;
  json["storage_path"] = event.storage_path;
  return json;
}
Json event_json(const checkpoint::CheckpointCorrupted& event) {
  return checkpoint_event(event.checkpoint, event.training_run_id);
}
Json event_json(const checkpoint::CheckpointDeleted& event) {
  Json json = checkpoint_event(event.checkpoint, event.training_run_id);
  json["cause"] = name_of(event.cause);
  json["storage_path"] = event.storage_path;
  json["size_bytes"] = event.size_bytes;
  json["more"] = event.more;
  return json;
}
Json event_json(const checkpoint::PolicySet& event) {
  Json json = Json::object();
  if (event.training_run_id) json["training_run_id"] = *event.training_run_id;
  json.update(to_json(event.policy));
  return json;
}

Json event_json(const IncarnationStarted& event) {
  return {{"previous", hex(event.previous)},
          {"first_sequence", event.first_sequence},
          {"root", format_hash(event.root)},
          {"cause", name_of(event.cause)}};
}
Json event_json(const ClockAccepted& event) { return {{"before", event.before}}; }

// ---- results

Json result_json(const result::Done&) { return Json::object(); }
Json result_json(const result::Registered& r) {
  return {{"model_id", r.model_id},
          {"version", format_version(r.version)},
          {"state", name_of(r.state)},
          {"registered_at", r.registered_at}};
}
Json result_json(const result::Transitioned& r) {
  return {{"model_id", r.model_id},
          {"version", format_version(r.version)},
          {"from", name_of(r.from)},
          {"to", name_of(r.to)}};
}
Json result_json(const result::Allocated& r) {
  return {{"success", true},
          {"block_id", r.block_id},
          {"offset", r.offset},
          {"actual_size", r.actual_size},
          {"evicted_blocks", r.evicted_blocks}};
}
Json result_json(const result::Evicted& r) { return {{"freed_bytes", r.freed_bytes}, {"blocks", r.blocks}}; }
Json result_json(const result::Moves& r) { return {{"moved", r.moves.size()}, {"moves", array_of(r.moves)}}; }
Json result_json(const result::Collected& r) { return {{"deleted", array_of(r.deleted)}}; }
Json result_json(const result::BatchResult& r) {
  Json replies = Json::array();
  for (const Reply& reply : r.replies) replies.push_back(to_json(reply.result));
  return {{"replies", replies}};
}
Json result_json(const result::Models& r) { return one_or_all(r.models); }
Json result_json(const result::Versions& r) { return array_of(r.versions); }
Json result_json(const result::ValidationFound& r) { return to_json(r.validation); }
Json result_json(const result::Number& r) { return {{"value", r.value}}; }
Json result_json(const result::Verdict& r) {
  Json json{{"holds", r.holds}};
  if (!r.problem.empty()) json["problem"] = r.problem;
  return json;
}
Json result_json(const result::BestModelFound& r) {
  if (!r.model_id) return Json::object();
  return {{"model_id", *r.model_id}, {"version", format_version(r.version)}};
}
Json result_json(const result::Pools& r) { return one_or_all(r.pools); }
Json result_json(const result::PoolStats& r) { return to_json(r); }
Json result_json(const result::Blocks& r) { return one_or_all(r.blocks); }
Json result_json(const result::Checkpoints& r) { return one_or_all(r.checkpoints); }
Json result_json(const result::Chain& r) {
  return {{"checkpoints", array_of(r.checkpoints)},
          {"length", r.length},
          {"size_bytes", r.size_bytes},
          {"estimated_restore_ms", r.estimated_restore_ms}};
}
Json result_json(const result::Due& r) {
  return {{"due", r.due}, {"last_step", r.last_step}, {"interval", r.interval}};
}
Json result_json(const result::Policy& r) {
  Json json = to_json(r.policy);
  json["inherited"] = r.inherited;
  return json;
}
Json result_json(const result::LogRecords& r) { return {{"records", r.records.size()}}; }
Json result_json(const result::LogVerified& r) { return to_json(r); }
Json result_json(const result::SnapshotTaken& r) { return {{"sequence", r.sequence}, {"bytes", r.bytes}}; }
Json result_json(const result::Status& r) { return to_json(r); }

}  // namespace

Json to_json(const registry::ModelVersion& version) { return format_version(version); }

Json to_json(const registry::ModelMetadata& model) {
  return {{"model_id", model.model_id},
          {"name", model.name},
          {"version", format_version(model.version)},
          {"framework", model.framework},
          {"input_shape", model.input_shape},
          {"output_shape", model.output_shape},
          {"size_bytes", model.size_bytes},
          {"checksum", model.checksum},
          {"registered_at", model.registered_at},
          {"state", name_of(model.state)},
          {"tags", object_of(model.tags)}};
}

Json to_json(const registry::ValidationResult& validation) {
  return {{"model_id", validation.model_id},
          {"version", format_version(validation.version)},
          {"passed", validation.passed},
          {"latency_p50_ms", validation.latency_p50_ms},
          {"latency_p99_ms", validation.latency_p99_ms},
          {"accuracy_score", validation.accuracy_score},
          {"errors", validation.errors}};
}

Json to_json(const gpu_memory::GpuDevice& device) {
  const auto& [major, minor] = device.compute_capability;
  return {{"device_id", device.device_id},
          {"total_memory", device.total_memory},
          {"memory_clock_mhz", device.memory_clock_mhz},
          {"compute_capability", fmt::format("{}.{}", major, minor)}};
}

Json to_json(const gpu_memory::MemoryBlock& block) {
  Json json{
      {"block_id", block.block_id}, {"offset", block.offset}, {"size", block.size}, {"status", name_of(block.status)}};
  if (block.tensor_id) json["tensor_id"] = *block.tensor_id;
  json["allocated_at"] = block.allocated_at;
  json["last_accessed"] = block.last_accessed;
  json["alignment"] = block.alignment;
  json["priority"] = block.priority;
  return json;
}

Json to_json(const gpu_memory::Move& move) {
  return {{"block_id", move.block_id}, {"from", move.from}, {"to", move.to}, {"size", move.size}};
}

Json to_json(const checkpoint::CheckpointMeta& meta) {
  Json json{{"checkpoint_id", meta.checkpoint_id},
            {"training_run_id", meta.training_run_id},
            {"epoch", meta.epoch},
            {"step", meta.step},
            {"checkpoint_type", name_of(meta.checkpoint_type)},
            {"state", name_of(meta.state)},
            {"size_bytes", meta.size_bytes},
            {"created_at", meta.created_at}};
  if (meta.parent_id) json["parent_id"] = *meta.parent_id;
  json["metrics"] = object_of(meta.metrics);
  json["storage_path"] = meta.storage_path;
  return json;
}

Json to_json(const checkpoint::GcPolicy& policy) {
  return {{"max_checkpoints_per_run", policy.max_checkpoints_per_run},
          {"max_age_seconds", policy.max_age_seconds},
          {"keep_best_n", policy.keep_best_n},
          {"metric_key", policy.metric_key},
          {"metric_ascending", policy.metric_ascending}};
}

Json to_json(const result::PoolStats& answer) {
  const gpu_memory::PoolStats& stats = answer.stats;
  return {{"total_bytes", stats.total_bytes},
          {"allocated_bytes", stats.allocated_bytes},
          {"free_bytes", stats.free_bytes},
          {"pinned_bytes", stats.pinned_bytes},
          {"cached_bytes", stats.cached_bytes},
          {"fragmentation_ratio", stats.fragmentation_ratio},
          {"largest_free_block", stats.largest_free_block},
          {"block_count", stats.block_count},
          {"allocation_count", stats.allocation_count},
          {"memory_pressure", answer.memory_pressure},
          {"should_defragment", answer.should_defragment},
          {"seconds_to_oom", answer.seconds_to_oom}};
}

Json to_json(const result::DeletedCheckpoint& deleted) {
  return {{"checkpoint_id", deleted.checkpoint_id},
          {"storage_path", deleted.storage_path},
          {"size_bytes", deleted.size_bytes},
          {"training_run_id", deleted.training_run_id}};
}

Json to_json(const result::LogVerified& verified) {
  return {{"sequence", verified.sequence},
          {"root", format_hash(verified.root)},
          {"chunks", verified.chunks},
          {"bytes", verified.bytes}};
}

Json to_json(const result::Status& status) {
  Json json{{"sequence", status.sequence},
            {"anchored_sequence", status.anchored_sequence},
            {"state_digest", status.state_digest},
            {"incarnation", hex(status.incarnation)},
            {"log_id", format_session(status.log_id)},
            {"verified_to", status.verified_to},
            {"root", format_hash(status.root)},
            {"version", status.version},
            {"ack", status.ack},
            {"started_at", status.started_at},
            {"time", status.time},
            {"models", status.models},
            {"model_versions", status.model_versions},
            {"pools", status.pools},
            {"live_blocks", status.live_blocks},
            {"checkpoints", status.checkpoints},
            {"sessions", status.sessions},
            {"connections", status.connections},
            {"refused", status.refused},
            {"group_commit_p50_us", status.group_commit_p50_us},
            {"group_commit_p99_us", status.group_commit_p99_us},
            {"snapshot_sequence", status.snapshot_sequence}};
  if (!status.changes_refused_because.empty()) json["changes_refused_because"] = status.changes_refused_because;
  return json;
}

Json to_json(const Event& event) {
  return std::visit([](const auto& domain) { return std::visit([](const auto& e) { return event_json(e); }, domain); },
                    event);
}

Json log_entry(const Record& record, const std::optional<Note>& note) {
  Json json{{"sequence", record.sequence},   {"time", record.time},
            {"wall_time", record.wall_time}, {"incarnation", hex(record.incarnation)},
            {"actor", record.actor},         {"actor_source", name_of(record.actor_source)}};
  if (record.session) {
    json["session"] = format_session(*record.session);
    json["request_id"] = fmt::format("{}-{}", format_session(*record.session), record.command_number);
    json["command_number"] = record.command_number;
    json["answered_below"] = record.answered_below;
  }
  if (record.opened_at) json["opened_at"] = *record.opened_at;
  json["part"] = record.part;
  json["parts"] = record.parts;
  if (record.batch_size > 0) {
    json["batch_index"] = record.batch_index;
    json["batch_size"] = record.batch_size;
  }
  json["streams"] = streams_of(record.event);
  json["event"] = std::string(event_name(record.event));
  json["data"] = to_json(record.event);
  if (record.note_hash) json["note_hash"] = format_hash(*record.note_hash);
  if (note) {
    if (!note->reason.empty()) json["reason"] = note->reason;
    if (!note->display_name.empty()) json["display_name"] = note->display_name;
    if (!note->peer_address.empty()) json["peer_address"] = note->peer_address;
  }
  return json;
}

Json to_json(const ReplyResult& result) {
  return std::visit([](const auto& r) { return result_json(r); }, result);
}

std::string dump(const Json& json, int indent) { return json.dump(indent, ' ', false, Json::error_handler_t::replace); }

}  // namespace tensorforge::cli
