#include "tests/codec/samples.h"

#include <limits>
#include <numeric>
#include <utility>

namespace tensorforge::samples {
namespace {

constexpr std::uint64_t kNow = 1'766'000'000'123;  // ms
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30U;
constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint32_t kIncarnation = 0x0A1B2C3D;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class Bytes>
Bytes counting_from(std::uint8_t first) {
  Bytes bytes;
  std::iota(bytes.begin(), bytes.end(), first);
  return bytes;
}
const SessionId kSession = counting_from<SessionId>(0x10);
const Hash kHash = counting_from<Hash>(0x40);
const LogId kLogId = counting_from<LogId>(0x80);
const Salt kSalt = counting_from<Salt>(0xA0);

const registry::ModelVersion kVersion{1, 2, 3};
const EntityId kBlock{kIncarnation, 17};
const EntityId kCheckpoint{kIncarnation, 42};
const std::string kDevice = "node-1/GPU-7f3a";

registry::ModelMetadata model() {
  return {.model_id = "team/vision/resnet50",
          .name = "ResNet-50 für Bilder",
          .version = kVersion,
          .framework = "pytorch",
          .input_shape = {1, 3, 224, 224},
          .output_shape = {1, 1000},
          .size_bytes = 102'400'000,
          .checksum = "sha256:9f86d081",
          .registered_at = kNow,
          .state = registry::DeploymentState::Canary,
          .tags = {{"accuracy_top1", "0.761"}, {"owner", "müller"}, {"recall@10", ""}}};
}
registry::ValidationResult validation() {
  return {.model_id = "team/vision/resnet50",
          .version = {0, 0, 4'294'967'295},
          .passed = true,
          .latency_p50_ms = 4.25,
          .latency_p99_ms = 11.5,
          .accuracy_score = 0.761,
          .errors = {"drift on class 7", ""}};
}
gpu_memory::GpuDevice device() {
  return {.device_id = kDevice, .total_memory = 80 * kGiB, .memory_clock_mhz = 1'593, .compute_capability = {8, 6}};
}
gpu_memory::AllocationRequest allocation() {
  return {.tensor_id = "layer.0/weight", .size = 1'000'001, .alignment = 512, .pinned = true, .priority = -3};
}
checkpoint::CreateCheckpointRequest checkpoint_request() {
  return {.training_run_id = "llm/run-7",
          .epoch = 3,
          .step = 12'000,
          .checkpoint_type = checkpoint::CheckpointType::Incremental,
          .metrics = {{"accuracy", 0.5}, {"loss", -1.25e-3}}};
}
checkpoint::GcPolicy policy() {
  return {.max_checkpoints_per_run = 5,
          .max_age_seconds = 86'400,
          .keep_best_n = 2,
          .metric_key = "loss",
          .metric_ascending = false};
}
checkpoint::CheckpointMeta checkpoint_meta() {
  return {.checkpoint_id = "ck-0a1b2c3d-42",
          .training_run_id = "llm/run-7",
          .epoch = 3,
          .step = 12'000,
          .checkpoint_type = checkpoint::CheckpointType::Emergency,
          .state = checkpoint::CheckpointState::Corrupted,
          .size_bytes = 7 * kGiB,
          .created_at = kNow,
          .parent_id = "ck-0a1b2c3d-41",
          .metrics = {{"loss", 2.5}},
          .storage_path = "s3://bucket/run-7/42"};
}
gpu_memory::MemoryBlock block() {
  return {.block_id = "b-0a1b2c3d-17",
          .offset = 4'096,
          .size = 1'000'448,
          .status = gpu_memory::BlockStatus::Cached,
          .tensor_id = "layer.0/weight",
          .allocated_at = kNow,
          .last_accessed = kNow + 5,
          .alignment = 512,
          .priority = -3};
}

Record around(Event event) {
  return {.sequence = 1'801,
          .time = kNow,
          .wall_time = kNow - 1,
          .incarnation = kIncarnation,
          .actor = "ci/nightly",
          .actor_source = ActorSource::Certificate,
          .session = kSession,
          .command_number = 77,
          .answered_below = 70,
          .opened_at = 0,
          .part = 1,
          .parts = 3,
          .batch_index = 2,
          .batch_size = 4,
          .note_hash = kHash,
          .event = std::move(event)};
}

Record single(Event event, const std::string& actor, ActorSource source) {
  Record record = around(std::move(event));
  record.actor = actor;
  record.actor_source = source;
  make_single(record);
  return record;
}

/// What the service itself records: every field that may be absent is.
Record alone(Event event) {
  Record record;
  record.sequence = 1;
  record.time = record.wall_time = kNow;
  record.incarnation = kIncarnation;
  record.actor = "tensorforged";
  record.actor_source = ActorSource::System;
  record.event = std::move(event);
  return record;
}

Request around(RequestBody body) {
  return {.correlation_id = 9,
          .command_number = 77,
          .answered_below = 70,
          .if_sequence = 0,
          .reason = "night build",
          .body = std::move(body)};
}

Reply around(ReplyResult result) {
  return {.correlation_id = 9,
          .status = absl::OkStatus(),
          .sequence = 1'803,
          .incarnation = kIncarnation,
          .result = std::move(result),
          .next_page_token = std::nullopt};
}

Page page() { return {.size = 50, .token = std::string("\0\xFFkey", 5)}; }

}  // namespace

void make_single(Record& record) {
  record.opened_at.reset();
  record.part = record.batch_index = record.batch_size = 0;
  record.parts = 1;
  record.note_hash.reset();
}

std::vector<Named<Record>> records() {
  using namespace registry;
  using namespace gpu_memory;
  using namespace checkpoint;
  const std::vector<tensorforge::Event> events = {
      ModelRegistered{model()},
      StateTransitioned{"bert", kVersion, DeploymentState::Deprecated, DeploymentState::Archived},
      ValidationRecorded{validation()},
      PoolCreated{device()},
      BlockAllocated{kDevice, allocation(), kBlock, 4'096, 1'000'448, {65'536, 0, kMax}, kNow},
      AllocationRefused{kDevice, allocation(), AllocationFailure::Fragmented, 1'000'448, 80 * kGiB, 9, 8, 7},
      BlockFreed{kDevice, kBlock},
      BlockCached{kDevice, kBlock},
      BlockPinned{kDevice, kBlock},
      BlockUnpinned{kDevice, kBlock},
      BlockTouched{kDevice, kBlock, kNow},
      BlockEvicted{kDevice, kBlock, 4'096, true},
      BlockMoved{kDevice, kBlock, 8'192, 4'096, 512, true},
      CheckpointCreated{kCheckpoint, checkpoint_request(), EntityId{7, 41}, kNow},
      CheckpointCompleted{kCheckpoint, "llm/run-7", 7 * kGiB, "s3://bucket/run-7/42"},
      CheckpointCorrupted{kCheckpoint, "llm/run-7"},
      CheckpointDeleted{kCheckpoint, "llm/run-7", DeletionCause::GarbageCollected, "s3://bucket/run-7/42", 7, true},
      PolicySet{"llm/run-7", policy()},
      IncarnationStarted{0xFFFFFFFF, 1'801, kHash, IncarnationCause::AcceptLoss},
      ClockAccepted{kNow - 9},
  };
  std::vector<Named<Record>> out;
  for (const auto& event : events) out.push_back({std::string(event_name(event)), around(event)});
  out.push_back({"IncarnationStarted-first", alone(IncarnationStarted{0, 1, Hash{}, IncarnationCause::FirstStart})});
  out.push_back({"PolicySet-default", alone(PolicySet{std::nullopt, {}})});
  out.push_back({"CheckpointCreated-root", alone(CheckpointCreated{kCheckpoint, {"run", 0, 0, {}, {}}, {}, kNow})});
  out.push_back({"ModelRegistered-single", single(ModelRegistered{model()}, "ann", ActorSource::Asserted)});
  out.push_back({"StateTransitioned-single",
                 single(StateTransitioned{"bert", kVersion, DeploymentState::Staging, DeploymentState::Canary},
                        "ci/nightly", ActorSource::Token)});
  out.push_back({"BlockFreed-single", single(BlockFreed{kDevice, kBlock}, "trainer-7", ActorSource::Certificate)});
  out.push_back({"CheckpointCompleted-single",
                 single(CheckpointCompleted{kCheckpoint, "llm/run-7", 7 * kGiB, "s3://bucket/run-7/42"}, "b",
                        ActorSource::Asserted)});
  return out;
}

std::vector<Named<Note>> notes() {
  return {{"Note", {.reason = "night build", .display_name = "Zoë", .peer_address = "127.0.0.1:54321"}},
          {"Note-empty", {}}};
}

std::vector<Named<ClientMessage>> client_messages() {
  using namespace registry;
  using namespace gpu_memory;
  using namespace checkpoint;
  const std::string id = "team/vision/resnet50", run = "llm/run-7", ck = "ck-0a1b2c3d-42", b = "b-0a1b2c3d-17";
  const Batch batch{{{TransitionState{id, kVersion, DeploymentState::Production}, 12},
                     {AcceptClock{}, std::nullopt},
                     {FreeBlock{kDevice, b}, 0}}};
  const std::vector<Named<tensorforge::Command>> commands = {
      {"RegisterModel", RegisterModel{model()}},
      {"TransitionState", TransitionState{id, kVersion, DeploymentState::Staging}},
      {"RecordValidation", RecordValidation{validation()}},
      {"CreatePool", CreatePool{device()}},
      {"Allocate", Allocate{kDevice, allocation()}},
      {"FreeBlock", FreeBlock{kDevice, b}},
      {"CacheBlock", CacheBlock{kDevice, b}},
      {"PinBlock", PinBlock{kDevice, b}},
      {"UnpinBlock", UnpinBlock{kDevice, b}},
      {"TouchBlock", TouchBlock{kDevice, b}},
      {"Evict", Evict{kDevice, kMax}},
      {"Defragment", Defragment{kDevice}},
      {"CreateCheckpoint", CreateCheckpoint{checkpoint_request()}},
      {"CompleteCheckpoint", CompleteCheckpoint{ck, 7 * kGiB, "s3://bucket/run-7/42"}},
      {"CorruptCheckpoint", CorruptCheckpoint{ck}},
      {"RemoveCheckpoint", RemoveCheckpoint{ck}},
      {"CollectGarbage", CollectGarbage{}},
      {"SetPolicy", SetPolicy{run, policy()}},
      {"SetPolicy-default", SetPolicy{std::nullopt, {}}},
      {"AcceptClock", AcceptClock{}},
      {"Batch", batch},
  };
  const std::vector<Named<Query>> queries = {
      {"GetModel", query::GetModel{id, kVersion}},
      {"GetModel-latest", query::GetModel{id, std::nullopt}},
      {"ListVersions", query::ListVersions{id, page()}},
      {"ListModels", query::ListModels{page()}},
      {"FindModels", query::FindModels{DeploymentState::Archived, page()}},
      {"GetValidation", query::GetValidation{id, kVersion}},
      {"CompareShapes", query::CompareShapes{id, kVersion, "bert", {4, 5, 6}}},
      {"CheckSla", query::CheckSla{id, kVersion, 12.5, 0.75}},
      {"BestModel", query::BestModel{{id, "bert"}}},
      {"RollbackPriority", query::RollbackPriority{id, kVersion, {1, 1, 0}}},
      {"ListPools", query::ListPools{page()}},
      {"GetPoolStats", query::GetPoolStats{kDevice}},
      {"ListBlocks", query::ListBlocks{kDevice, page()}},
      {"GetBlock", query::GetBlock{kDevice, b}},
      {"BlocksForTensor", query::BlocksForTensor{kDevice, "layer.0/weight", page()}},
      {"PlanDefragment", query::PlanDefragment{kDevice}},
      {"GetCheckpoint", query::GetCheckpoint{ck}},
      {"ListCheckpoints", query::ListCheckpoints{run, page()}},
      {"LatestCheckpoint", query::LatestCheckpoint{run}},
      {"FindRestorePoint", query::FindRestorePoint{{run, 3, 12'000, false, true}}},
      {"FindRestorePoint-any", query::FindRestorePoint{{run, std::nullopt, std::nullopt, true, false}}},
      {"RestorationChain", query::RestorationChain{ck, page()}},
      {"ValidateCheckpoint", query::ValidateCheckpoint{ck}},
      {"CheckpointDue", query::CheckpointDue{run, 12'500, 500}},
      {"FindCheckpoints", query::FindCheckpoints{run, "loss", -0.5, false, page()}},
      {"GetPolicy", query::GetPolicy{run}},
      {"GetPolicy-default", query::GetPolicy{std::nullopt}},
      {"ReadLog", query::ReadLog{1'801, 100}},
      {"ReadHistory", query::ReadHistory{"model/bert", page()}},
      {"VerifyLog", query::VerifyLog{}},
      {"GetStatus", query::GetStatus{}},
      {"TakeSnapshot", query::TakeSnapshot{}},
      {"ListModels-first", query::ListModels{{.size = 0, .token = std::nullopt}}},
  };
  std::vector<Named<ClientMessage>> out = {
      {"Hello", Hello{.lowest_protocol = 2,
                      .highest_protocol = 3,
                      .session = kSession,
                      .opened_at = 0,
                      .actor = "ci/nightly",
                      .seen_sequence = 1'803,
                      .seen_incarnation = kIncarnation,
                      .client = "tensorforge 0.1.0"}},
      {"Hello-first", Hello{}},
  };
  for (const auto& [name, command] : commands) out.push_back({name, around(command)});
  for (const auto& [name, query] : queries) {
    out.push_back({name, Request{.correlation_id = kMax,
                                 .command_number = 0,
                                 .answered_below = 0,
                                 .if_sequence = std::nullopt,
                                 .reason = "",
                                 .body = query}});
  }
  return out;
}

std::vector<Named<ServerMessage>> server_messages() {
  using namespace result;
  const std::string id = "team/vision/resnet50", b = "b-0a1b2c3d-17";
  using registry::DeploymentState;
  Reply refusal = around(Done{});
  refusal.status = absl::FailedPreconditionError("model \"bert\" 1.2.3: cannot go from Staging to Production");
  Reply models = around(Models{{model(), model()}});
  models.next_page_token = std::string("\0\xFFkey", 5);
  const gpu_memory::PoolStats stats{.total_bytes = 100,
                                    .allocated_bytes = 40,
                                    .free_bytes = 30,
                                    .pinned_bytes = 20,
                                    .cached_bytes = 10,
                                    .fragmentation_ratio = 0.25,
                                    .largest_free_block = 22,
                                    .block_count = 7,
                                    .allocation_count = 4};
  gpu_memory::MemoryBlock free_block;
  free_block.block_id = "free-0";
  free_block.size = 4'096;
  const Status status{.sequence = 1'803,
                      .anchored_sequence = 1'802,
                      .state_digest = "00112233445566778899aabbccddeeff",
                      .incarnation = kIncarnation,
                      .log_id = kLogId,
                      .verified_to = 1'801,
                      .root = kHash,
                      .version = "0.1.0",
                      .ack = "anchor",
                      .started_at = kNow - 10,
                      .time = kNow,
                      .models = 1,
                      .model_versions = 2,
                      .pools = 3,
                      .live_blocks = 4,
                      .checkpoints = 5,
                      .sessions = 6,
                      .connections = 7,
                      .refused = 8,
                      .changes_refused_because = "the clock"};
  Status grown_status = status;  // with the fields that came later
  grown_status.group_commit_p50_us = 900;
  grown_status.group_commit_p99_us = 1'700;
  grown_status.snapshot_sequence = 131'080;
  return {
      {"Welcome", Welcome{.protocol = 2,
                          .log_id = kLogId,
                          .incarnation = kIncarnation,
                          .sequence = 1'803,
                          .opened_at = 1'799,
                          .server = "tensorforged 0.1.0"}},
      {"refusal", refusal},
      {"Done", around(Done{})},
      {"Registered", around(Registered{id, kVersion, DeploymentState::Validating, kNow})},
      {"Transitioned", around(Transitioned{id, kVersion, DeploymentState::Canary, DeploymentState::Production})},
      {"Allocated", around(Allocated{b, 4'096, 1'000'448, 2})},
      {"Evicted", around(Evicted{8'192, 2, true})},
      {"Moves", around(Moves{{{b, 8'192, 4'096, 512}, {"b-0a1b2c3d-18", 1, 0, 1}}, true})},
      {"Collected", around(Collected{{{"ck-0a1b2c3d-42", "s3://bucket/run-7/42", 7, "llm/run-7"}}, true})},
      {"BatchResult", around(BatchResult{{around(Done{}), around(Evicted{1, 1, false})}})},
      {"Models", models},
      {"Models-none", around(Models{})},
      {"Versions", around(Versions{{kVersion, {4, 5, 6}}})},
      {"ValidationFound", around(ValidationFound{validation()})},
      {"Number", around(Number{0.75})},
      {"Verdict", around(Verdict{true, "p99 11.5 ms is over 10 ms"})},
      {"BestModelFound", around(BestModelFound{id, kVersion})},
      {"BestModelFound-none", around(BestModelFound{})},
      {"Pools", around(Pools{{device()}})},
      {"PoolStats", around(PoolStats{stats, 0.7, true, kInfinity})},
      {"Blocks", around(Blocks{{block(), free_block}})},
      {"Checkpoints", around(Checkpoints{{checkpoint_meta()}})},
      {"Chain", around(Chain{{checkpoint_meta()}, 7 * kGiB, kMax, 12})},
      {"Due", around(Due{true, 12'000, 500})},
      {"Policy", around(Policy{policy(), true})},
      {"LogRecords", around(LogRecords{{{"any bytes", kSalt, "a note"}, {std::string("\0", 1), std::nullopt, ""}}})},
      {"LogVerified", around(LogVerified{1'803, kHash, 9, 123'456})},
      {"Status", around(status)},
      {"Status-snapshot", around(grown_status)},
      {"SnapshotTaken", around(SnapshotTaken{131'080, 23'456'789})},
  };
}

std::vector<Named<SnapshotPart>> snapshot_parts() {
  const SnapshotFacts facts{.sequence = 131'080,
                            .time = kNow,
                            .incarnations = {{kIncarnation - 1, 1}, {kIncarnation, 1'801}},
                            .horizon = 1'700,
                            .next_block_number = 18,
                            .next_checkpoint_number = 43,
                            .registry = {.high = 1, .low = kMax},
                            .gpu_memory = {.high = kMax, .low = 2},
                            .checkpoint = {.high = 3, .low = 4},
                            .counts = {1, 2, 3, 4, 5, 6, 7, 8}};
  const gpu_memory::LiveBlock block{.id = kBlock,
                                    .offset = 4'096,
                                    .size = 1'000'448,
                                    .status = gpu_memory::BlockStatus::Cached,
                                    .tensor_id = "layer.0/weight",
                                    .allocated_at = kNow,
                                    .last_accessed = kNow + 5,
                                    .alignment = 512,
                                    .priority = -3};
  const checkpoint::StoredCheckpoint stored{
      .created = {kCheckpoint, checkpoint_request(), EntityId{kIncarnation, 41}, kNow},
      .state = checkpoint::CheckpointState::Deleted,
      .size_bytes = 7 * kGiB,
      .storage_path = "s3://bucket/run-7/42"};
  const SnapshotSessions::Session session{
      .id = kSession, .opened_at = 1'799, .answered_below = 70, .entries = {{70, 1'801, 3}, {77, kMax, 1}}};
  return {
      {"Facts", facts},
      {"Models", SnapshotModels{{model()}}},
      {"Validations", SnapshotValidations{{validation()}}},
      {"Pools", SnapshotPools{{device()}}},
      {"Blocks", SnapshotBlocks{kDevice, {block}}},
      {"Checkpoints", SnapshotCheckpoints{{stored}}},
      {"Policies", SnapshotPolicies{{{std::nullopt, policy()}, {"llm/run-7", {}}}}},
      {"Sessions", SnapshotSessions{{session, {.id = {}, .opened_at = 0, .answered_below = 1, .entries = {}}}}},
      {"Streams", SnapshotStreams{{{"run/llm/run-7", 1'801}, {"server", 1}}}},
  };
}

}  // namespace tensorforge::samples
