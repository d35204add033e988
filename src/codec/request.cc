#include "codec/request.h"

#include <type_traits>

#include <fmt/format.h>

#include "codec/domains.h"
#include "codec/reader.h"
#include "codec/writer.h"
#include "command_generated.h"

namespace tensorforge::codec {
namespace {

Offset<wire::Page> write(Writer& w, const Page& page) {
  const auto token = w.optional_bytes(page.token);
  return wire::CreatePage(w.builder(), page.size, token);
}
/// Absent is the first page, of the default size.
Page read_page(Reader& r, const wire::Page* table) {
  if (table == nullptr || !r.enter(table, "page", wire::Page::VT_TOKEN)) return {};
  Page page{.size = table->size(), .token = std::nullopt};
  if (table->token() != nullptr) page.token = r.bytes(table->token());
  return page;
}

// ---- commands

Offset<wire::RegisterModel> write(Writer& w, const registry::RegisterModel& value) {
  return wire::CreateRegisterModel(w.builder(), codec::write(w, value.model.view()));
}
registry::RegisterModel read(Reader& r, const wire::RegisterModel* table) {
  if (!r.enter(table, "RegisterModel", wire::RegisterModel::VT_MODEL)) return {};
  return {.model = codec::read_packed(r, table->model())};
}

Offset<wire::TransitionState> write(Writer& w, const registry::TransitionState& value) {
  const auto model_id = w.id(value.model_id);
  const auto version = to_wire(value.version);
  return wire::CreateTransitionState(w.builder(), model_id, &version, static_cast<wire::DeploymentState>(value.to));
}
registry::TransitionState read(Reader& r, const wire::TransitionState* table) {
  if (!r.enter(table, "TransitionState", wire::TransitionState::VT_TO)) return {};
  return {.model_id = r.id(table->model_id(), "model id"),
          .version = r.version(table->version(), "version"),
          .to = r.enumerator<registry::DeploymentState>(table->to(), "deployment state")};
}

Offset<wire::RecordValidation> write(Writer& w, const registry::RecordValidation& value) {
  return wire::CreateRecordValidation(w.builder(), codec::write(w, value.validation));
}
registry::RecordValidation read(Reader& r, const wire::RecordValidation* table) {
  if (!r.enter(table, "RecordValidation", wire::RecordValidation::VT_VALIDATION)) return {};
  return {.validation = codec::read(r, table->validation())};
}

Offset<wire::CreatePool> write(Writer& w, const gpu_memory::CreatePool& value) {
  return wire::CreateCreatePool(w.builder(), codec::write(w, value.device));
}
gpu_memory::CreatePool read(Reader& r, const wire::CreatePool* table) {
  if (!r.enter(table, "CreatePool", wire::CreatePool::VT_DEVICE)) return {};
  return {.device = codec::read(r, table->device())};
}

Offset<wire::Allocate> write(Writer& w, const gpu_memory::Allocate& value) {
  const auto device_id = w.id(value.device_id);
  const auto request = codec::write(w, value.request);
  return wire::CreateAllocate(w.builder(), device_id, request);
}
gpu_memory::Allocate read(Reader& r, const wire::Allocate* table) {
  if (!r.enter(table, "Allocate", wire::Allocate::VT_REQUEST)) return {};
  return {.device_id = r.id(table->device_id(), "device id"), .request = codec::read(r, table->request())};
}

/// Of the commands that say no more than which block they are for.
template <class Table, class C>
Offset<Table> write_block_command(Writer& w, const C& command) {
  const auto device_id = w.id(command.device_id);
  const auto block_id = w.id(command.block_id);
  typename Table::Builder builder(w.builder());
  builder.add_device_id(device_id);
  builder.add_block_id(block_id);
  return builder.Finish();
}
template <class C, class Table>
C read_block_command(Reader& r, const Table* table, std::string_view name) {
  if (!r.enter(table, name, Table::VT_BLOCK_ID)) return {};
  return {.device_id = r.id(table->device_id(), "device id"), .block_id = r.id(table->block_id(), "block id")};
}

Offset<wire::FreeBlock> write(Writer& w, const gpu_memory::FreeBlock& value) {
  return write_block_command<wire::FreeBlock>(w, value);
}
gpu_memory::FreeBlock read(Reader& r, const wire::FreeBlock* table) {
  return read_block_command<gpu_memory::FreeBlock>(r, table, "FreeBlock");
}

Offset<wire::CacheBlock> write(Writer& w, const gpu_memory::CacheBlock& value) {
  return write_block_command<wire::CacheBlock>(w, value);
}
gpu_memory::CacheBlock read(Reader& r, const wire::CacheBlock* table) {
  return read_block_command<gpu_memory::CacheBlock>(r, table, "CacheBlock");
}

Offset<wire::PinBlock> write(Writer& w, const gpu_memory::PinBlock& value) {
  return write_block_command<wire::PinBlock>(w, value);
}
gpu_memory::PinBlock read(Reader& r, const wire::PinBlock* table) {
  return read_block_command<gpu_memory::PinBlock>(r, table, "PinBlock");
}

Offset<wire::UnpinBlock> write(Writer& w, const gpu_memory::UnpinBlock& value) {
  return write_block_command<wire::UnpinBlock>(w, value);
}
gpu_memory::UnpinBlock read(Reader& r, const wire::UnpinBlock* table) {
  return read_block_command<gpu_memory::UnpinBlock>(r, table, "UnpinBlock");
}

Offset<wire::TouchBlock> write(Writer& w, const gpu_memory::TouchBlock& value) {
  return write_block_command<wire::TouchBlock>(w, value);
}
gpu_memory::TouchBlock read(Reader& r, const wire::TouchBlock* table) {
  return read_block_command<gpu_memory::TouchBlock>(r, table, "TouchBlock");
}

Offset<wire::Evict> write(Writer& w, const gpu_memory::Evict& value) {
  const auto device_id = w.id(value.device_id);
  return wire::CreateEvict(w.builder(), device_id, value.needed);
}
gpu_memory::Evict read(Reader& r, const wire::Evict* table) {
  if (!r.enter(table, "Evict", wire::Evict::VT_NEEDED)) return {};
  return {.device_id = r.id(table->device_id(), "device id"), .needed = table->needed()};
}

Offset<wire::Defragment> write(Writer& w, const gpu_memory::Defragment& value) {
  const auto device_id = w.id(value.device_id);
  return wire::CreateDefragment(w.builder(), device_id);
}
gpu_memory::Defragment read(Reader& r, const wire::Defragment* table) {
  if (!r.enter(table, "Defragment", wire::Defragment::VT_DEVICE_ID)) return {};
  return {.device_id = r.id(table->device_id(), "device id")};
}

Offset<wire::CreateCheckpoint> write(Writer& w, const checkpoint::CreateCheckpoint& value) {
  return wire::CreateCreateCheckpoint(w.builder(), codec::write(w, value.request));
}
checkpoint::CreateCheckpoint read(Reader& r, const wire::CreateCheckpoint* table) {
  if (!r.enter(table, "CreateCheckpoint", wire::CreateCheckpoint::VT_REQUEST)) return {};
  return {.request = codec::read(r, table->request())};
}

Offset<wire::CompleteCheckpoint> write(Writer& w, const checkpoint::CompleteCheckpoint& value) {
  const auto checkpoint_id = w.id(value.checkpoint_id);
  const auto storage_path = w.text(value.storage_path);
  return wire::CreateCompleteCheckpoint(w.builder(), checkpoint_id, value.size_bytes, storage_path);
}
checkpoint::CompleteCheckpoint read(Reader& r, const wire::CompleteCheckpoint* table) {
  if (!r.enter(table, "CompleteCheckpoint", wire::CompleteCheckpoint::VT_STORAGE_PATH)) return {};
  return {.checkpoint_id = r.id(table->checkpoint_id(), "checkpoint id"),
          .size_bytes = table->size_bytes(),
          .storage_path = r.text(table->storage_path(), "storage path")};
}

Offset<wire::CorruptCheckpoint> write(Writer& w, const checkpoint::CorruptCheckpoint& value) {
  const auto checkpoint_id = w.id(value.checkpoint_id);
  return wire::CreateCorruptCheckpoint(w.builder(), checkpoint_id);
}
checkpoint::CorruptCheckpoint read(Reader& r, const wire::CorruptCheckpoint* table) {
  if (!r.enter(table, "CorruptCheckpoint", wire::CorruptCheckpoint::VT_CHECKPOINT_ID)) return {};
  return {.checkpoint_id = r.id(table->checkpoint_id(), "checkpoint id")};
}

Offset<wire::RemoveCheckpoint> write(Writer& w, const checkpoint::RemoveCheckpoint& value) {
  const auto checkpoint_id = w.id(value.checkpoint_id);
  return wire::CreateRemoveCheckpoint(w.builder(), checkpoint_id);
}
checkpoint::RemoveCheckpoint read(Reader& r, const wire::RemoveCheckpoint* table) {
  if (!r.enter(table, "RemoveCheckpoint", wire::RemoveCheckpoint::VT_CHECKPOINT_ID)) return {};
  return {.checkpoint_id = r.id(table->checkpoint_id(), "checkpoint id")};
}

Offset<wire::CollectGarbage> write(Writer& w, const checkpoint::CollectGarbage&) {
  return wire::CreateCollectGarbage(w.builder());
}
checkpoint::CollectGarbage read(Reader& r, const wire::CollectGarbage* table) {
  r.enter(table, "CollectGarbage", wire::CollectGarbage::VT_RESERVED);
  return {};
}

Offset<wire::SetPolicy> write(Writer& w, const checkpoint::SetPolicy& value) {
  const auto training_run_id = w.optional_text(value.training_run_id);
  const auto policy = codec::write(w, value.policy);
  return wire::CreateSetPolicy(w.builder(), training_run_id, policy);
}
checkpoint::SetPolicy read(Reader& r, const wire::SetPolicy* table) {
  if (!r.enter(table, "SetPolicy", wire::SetPolicy::VT_POLICY)) return {};
  return {.training_run_id = r.optional_text(table->training_run_id(), "training run id"),
          .policy = codec::read(r, table->policy())};
}

Offset<wire::AcceptClock> write(Writer& w, const AcceptClock&) { return wire::CreateAcceptClock(w.builder()); }
AcceptClock read(Reader& r, const wire::AcceptClock* table) {
  r.enter(table, "AcceptClock", wire::AcceptClock::VT_RESERVED);
  return {};
}

// ---- batches

SingleCommand read_single(Reader& r, const wire::BatchItem* item) {
  return r.member<SingleCommand, wire::CommandTraits, wire::RegisterModel, wire::TransitionState,
                  wire::RecordValidation, wire::CreatePool, wire::Allocate, wire::FreeBlock, wire::CacheBlock,
                  wire::PinBlock, wire::UnpinBlock, wire::TouchBlock, wire::Evict, wire::Defragment,
                  wire::CreateCheckpoint, wire::CompleteCheckpoint, wire::CorruptCheckpoint, wire::RemoveCheckpoint,
                  wire::CollectGarbage, wire::SetPolicy, wire::AcceptClock, wire::Batch>(
      item->command_type(), item->command(), "command", [&r](const auto* member) -> SingleCommand {
        if constexpr (std::is_same_v<decltype(member), const wire::Batch*>) {
          r.damaged("a Batch may not stand in a Batch");
          return {};
        } else {
          return read(r, member);
        }
      });
}

Member<wire::Command> write_command(Writer& w, const SingleCommand& command) {
  return visit_innermost([&w](const auto& c) { return as_member<wire::CommandTraits>(write(w, c)); }, command);
}

Offset<wire::BatchItem> write(Writer& w, const BatchItem& item) {
  const auto command = write_command(w, item.command);
  return wire::CreateBatchItem(w.builder(), command.type, command.offset, to_scalar(item.if_sequence));
}
BatchItem read(Reader& r, const wire::BatchItem* table) {
  if (!r.enter(table, "batch item", wire::BatchItem::VT_IF_SEQUENCE)) return {};
  return {.command = read_single(r, table), .if_sequence = from_scalar(table->if_sequence())};
}

Offset<wire::Batch> write(Writer& w, const Batch& batch) {
  const auto items = w.list(batch.items, [&w](const BatchItem& item) { return write(w, item); });
  return wire::CreateBatch(w.builder(), items);
}
Batch read(Reader& r, const wire::Batch* table) {
  if (!r.enter(table, "Batch", wire::Batch::VT_ITEMS)) return {};
  const std::size_t count = table->items() == nullptr ? 0 : table->items()->size();
  if (count == 0 || count > kMaxBatchItems) {
    r.damaged(fmt::format("Batch of {} commands; it takes 1 to {}", count, kMaxBatchItems));
    return {};
  }
  return {r.list(table->items(), [&r](const wire::BatchItem* item) { return read(r, item); })};
}

Member<wire::Command> write_command(Writer& w, const Command& command) {
  return visit_innermost([&w](const auto& c) { return as_member<wire::CommandTraits>(write(w, c)); }, command);
}
// Straight into the body: to move a variant is to ask which of its alternatives it holds.
RequestBody read_command(Reader& r, const wire::Request* request) {
  return r.member<RequestBody, wire::CommandTraits, wire::RegisterModel, wire::TransitionState, wire::RecordValidation,
                  wire::CreatePool, wire::Allocate, wire::FreeBlock, wire::CacheBlock, wire::PinBlock, wire::UnpinBlock,
                  wire::TouchBlock, wire::Evict, wire::Defragment, wire::CreateCheckpoint, wire::CompleteCheckpoint,
                  wire::CorruptCheckpoint, wire::RemoveCheckpoint, wire::CollectGarbage, wire::SetPolicy,
                  wire::AcceptClock, wire::Batch>(request->command_type(), request->command(), "command",
                                                  [&r](const auto* member) { return read(r, member); });
}
// ---- queries

Offset<wire::GetModel> write(Writer& w, const query::GetModel& value) {
  const auto model_id = w.id(value.model_id);
  const auto version = to_wire(value.version);
  return wire::CreateGetModel(w.builder(), model_id, pointer_to(version));
}
query::GetModel read(Reader& r, const wire::GetModel* table) {
  if (!r.enter(table, "GetModel", wire::GetModel::VT_VERSION)) return {};
  query::GetModel value{.model_id = r.id(table->model_id(), "model id"), .version = std::nullopt};
  if (table->version() != nullptr) value.version = r.version(table->version(), "version");
  return value;
}

Offset<wire::ListVersions> write(Writer& w, const query::ListVersions& value) {
  const auto model_id = w.id(value.model_id);
  const auto page = write(w, value.page);
  return wire::CreateListVersions(w.builder(), model_id, page);
}
query::ListVersions read(Reader& r, const wire::ListVersions* table) {
  if (!r.enter(table, "ListVersions", wire::ListVersions::VT_PAGE)) return {};
  return {.model_id = r.id(table->model_id(), "model id"), .page = read_page(r, table->page())};
}

Offset<wire::ListModels> write(Writer& w, const query::ListModels& value) {
  const auto page = write(w, value.page);
  return wire::CreateListModels(w.builder(), page);
}
query::ListModels read(Reader& r, const wire::ListModels* table) {
  if (!r.enter(table, "ListModels", wire::ListModels::VT_PAGE)) return {};
  return {.page = read_page(r, table->page())};
}

Offset<wire::FindModels> write(Writer& w, const query::FindModels& value) {
  const auto page = write(w, value.page);
  return wire::CreateFindModels(w.builder(), static_cast<wire::DeploymentState>(value.state), page);
}
query::FindModels read(Reader& r, const wire::FindModels* table) {
  if (!r.enter(table, "FindModels", wire::FindModels::VT_PAGE)) return {};
  return {.state = r.enumerator<registry::DeploymentState>(table->state(), "deployment state"),
          .page = read_page(r, table->page())};
}

Offset<wire::GetValidation> write(Writer& w, const query::GetValidation& value) {
  const auto model_id = w.id(value.model_id);
  const auto version = to_wire(value.version);
  return wire::CreateGetValidation(w.builder(), model_id, &version);
}
query::GetValidation read(Reader& r, const wire::GetValidation* table) {
  if (!r.enter(table, "GetValidation", wire::GetValidation::VT_VERSION)) return {};
  return {.model_id = r.id(table->model_id(), "model id"), .version = r.version(table->version(), "version")};
}

Offset<wire::CompareShapes> write(Writer& w, const query::CompareShapes& value) {
  const auto a_model_id = w.id(value.a_model_id);
  const auto a_version = to_wire(value.a_version);
  const auto b_model_id = w.id(value.b_model_id);
  const auto b_version = to_wire(value.b_version);
  return wire::CreateCompareShapes(w.builder(), a_model_id, &a_version, b_model_id, &b_version);
}
query::CompareShapes read(Reader& r, const wire::CompareShapes* table) {
  if (!r.enter(table, "CompareShapes", wire::CompareShapes::VT_B_VERSION)) return {};
  return {.a_model_id = r.id(table->a_model_id(), "a model id"),
          .a_version = r.version(table->a_version(), "a version"),
          .b_model_id = r.id(table->b_model_id(), "b model id"),
          .b_version = r.version(table->b_version(), "b version")};
}

Offset<wire::CheckSla> write(Writer& w, const query::CheckSla& value) {
  const auto model_id = w.id(value.model_id);
  const auto version = to_wire(value.version);
  return wire::CreateCheckSla(w.builder(), model_id, &version, value.max_latency_ms, value.min_accuracy);
}
query::CheckSla read(Reader& r, const wire::CheckSla* table) {
  if (!r.enter(table, "CheckSla", wire::CheckSla::VT_MIN_ACCURACY)) return {};
  return {.model_id = r.id(table->model_id(), "model id"),
          .version = r.version(table->version(), "version"),
          .max_latency_ms = r.real(table->max_latency_ms()),
          .min_accuracy = r.real(table->min_accuracy())};
}

Offset<wire::BestModel> write(Writer& w, const query::BestModel& value) {
  const auto model_ids = write_texts(w, value.model_ids);
  return wire::CreateBestModel(w.builder(), model_ids);
}
query::BestModel read(Reader& r, const wire::BestModel* table) {
  if (!r.enter(table, "BestModel", wire::BestModel::VT_MODEL_IDS)) return {};
  return {.model_ids = read_texts(r, table->model_ids(), "model id")};
}

Offset<wire::RollbackPriority> write(Writer& w, const query::RollbackPriority& value) {
  const auto model_id = w.id(value.model_id);
  const auto current = to_wire(value.current);
  const auto baseline = to_wire(value.baseline);
  return wire::CreateRollbackPriority(w.builder(), model_id, &current, &baseline);
}
query::RollbackPriority read(Reader& r, const wire::RollbackPriority* table) {
  if (!r.enter(table, "RollbackPriority", wire::RollbackPriority::VT_BASELINE)) return {};
  return {.model_id = r.id(table->model_id(), "model id"),
          .current = r.version(table->current(), "current"),
          .baseline = r.version(table->baseline(), "baseline")};
}

Offset<wire::ListPools> write(Writer& w, const query::ListPools& value) {
  const auto page = write(w, value.page);
  return wire::CreateListPools(w.builder(), page);
}
query::ListPools read(Reader& r, const wire::ListPools* table) {
  if (!r.enter(table, "ListPools", wire::ListPools::VT_PAGE)) return {};
  return {.page = read_page(r, table->page())};
}

Offset<wire::GetPoolStats> write(Writer& w, const query::GetPoolStats& value) {
  const auto device_id = w.id(value.device_id);
  return wire::CreateGetPoolStats(w.builder(), device_id);
}
query::GetPoolStats read(Reader& r, const wire::GetPoolStats* table) {
  if (!r.enter(table, "GetPoolStats", wire::GetPoolStats::VT_DEVICE_ID)) return {};
  return {.device_id = r.id(table->device_id(), "device id")};
}

Offset<wire::ListBlocks> write(Writer& w, const query::ListBlocks& value) {
  const auto device_id = w.id(value.device_id);
  const auto page = write(w, value.page);
  return wire::CreateListBlocks(w.builder(), device_id, page);
}
query::ListBlocks read(Reader& r, const wire::ListBlocks* table) {
  if (!r.enter(table, "ListBlocks", wire::ListBlocks::VT_PAGE)) return {};
  return {.device_id = r.id(table->device_id(), "device id"), .page = read_page(r, table->page())};
}

Offset<wire::GetBlock> write(Writer& w, const query::GetBlock& value) {
  const auto device_id = w.id(value.device_id);
  const auto block_id = w.id(value.block_id);
  return wire::CreateGetBlock(w.builder(), device_id, block_id);
}
query::GetBlock read(Reader& r, const wire::GetBlock* table) {
  if (!r.enter(table, "GetBlock", wire::GetBlock::VT_BLOCK_ID)) return {};
  return {.device_id = r.id(table->device_id(), "device id"), .block_id = r.id(table->block_id(), "block id")};
}

Offset<wire::BlocksForTensor> write(Writer& w, const query::BlocksForTensor& value) {
  const auto device_id = w.id(value.device_id);
  const auto tensor_id = w.id(value.tensor_id);
  const auto page = write(w, value.page);
  return wire::CreateBlocksForTensor(w.builder(), device_id, tensor_id, page);
}
query::BlocksForTensor read(Reader& r, const wire::BlocksForTensor* table) {
  if (!r.enter(table, "BlocksForTensor", wire::BlocksForTensor::VT_PAGE)) return {};
  return {.device_id = r.id(table->device_id(), "device id"),
          .tensor_id = r.id(table->tensor_id(), "tensor id"),
          .page = read_page(r, table->page())};
}

Offset<wire::PlanDefragment> write(Writer& w, const query::PlanDefragment& value) {
  const auto device_id = w.id(value.device_id);
  return wire::CreatePlanDefragment(w.builder(), device_id);
}
query::PlanDefragment read(Reader& r, const wire::PlanDefragment* table) {
  if (!r.enter(table, "PlanDefragment", wire::PlanDefragment::VT_DEVICE_ID)) return {};
  return {.device_id = r.id(table->device_id(), "device id")};
}

Offset<wire::GetCheckpoint> write(Writer& w, const query::GetCheckpoint& value) {
  const auto checkpoint_id = w.id(value.checkpoint_id);
  return wire::CreateGetCheckpoint(w.builder(), checkpoint_id);
}
query::GetCheckpoint read(Reader& r, const wire::GetCheckpoint* table) {
  if (!r.enter(table, "GetCheckpoint", wire::GetCheckpoint::VT_CHECKPOINT_ID)) return {};
  return {.checkpoint_id = r.id(table->checkpoint_id(), "checkpoint id")};
}

Offset<wire::ListCheckpoints> write(Writer& w, const query::ListCheckpoints& value) {
  const auto training_run_id = w.id(value.training_run_id);
  const auto page = write(w, value.page);
  return wire::CreateListCheckpoints(w.builder(), training_run_id, page);
}
query::ListCheckpoints read(Reader& r, const wire::ListCheckpoints* table) {
  if (!r.enter(table, "ListCheckpoints", wire::ListCheckpoints::VT_PAGE)) return {};
  return {.training_run_id = r.id(table->training_run_id(), "training run id"), .page = read_page(r, table->page())};
}

Offset<wire::LatestCheckpoint> write(Writer& w, const query::LatestCheckpoint& value) {
  const auto training_run_id = w.id(value.training_run_id);
  return wire::CreateLatestCheckpoint(w.builder(), training_run_id);
}
query::LatestCheckpoint read(Reader& r, const wire::LatestCheckpoint* table) {
  if (!r.enter(table, "LatestCheckpoint", wire::LatestCheckpoint::VT_TRAINING_RUN_ID)) return {};
  return {.training_run_id = r.id(table->training_run_id(), "training run id")};
}

Offset<wire::FindRestorePoint> write(Writer& w, const query::FindRestorePoint& value) {
  const checkpoint::RestoreCriteria& criteria = value.criteria;
  const auto training_run_id = w.id(criteria.training_run_id);
  return wire::CreateFindRestorePoint(w.builder(), training_run_id, to_scalar(criteria.max_epoch),
                                      to_scalar(criteria.max_step), criteria.require_complete, criteria.prefer_full);
}
query::FindRestorePoint read(Reader& r, const wire::FindRestorePoint* table) {
  if (!r.enter(table, "FindRestorePoint", wire::FindRestorePoint::VT_PREFER_FULL)) return {};
  return {{.training_run_id = r.id(table->training_run_id(), "training run id"),
           .max_epoch = from_scalar(table->max_epoch()),
           .max_step = from_scalar(table->max_step()),
           .require_complete = table->require_complete(),
           .prefer_full = table->prefer_full()}};
}

Offset<wire::RestorationChain> write(Writer& w, const query::RestorationChain& value) {
  const auto checkpoint_id = w.id(value.checkpoint_id);
  const auto page = write(w, value.page);
  return wire::CreateRestorationChain(w.builder(), checkpoint_id, page);
}
query::RestorationChain read(Reader& r, const wire::RestorationChain* table) {
  if (!r.enter(table, "RestorationChain", wire::RestorationChain::VT_PAGE)) return {};
  return {.checkpoint_id = r.id(table->checkpoint_id(), "checkpoint id"), .page = read_page(r, table->page())};
}

Offset<wire::ValidateCheckpoint> write(Writer& w, const query::ValidateCheckpoint& value) {
  const auto checkpoint_id = w.id(value.checkpoint_id);
  return wire::CreateValidateCheckpoint(w.builder(), checkpoint_id);
}
query::ValidateCheckpoint read(Reader& r, const wire::ValidateCheckpoint* table) {
  if (!r.enter(table, "ValidateCheckpoint", wire::ValidateCheckpoint::VT_CHECKPOINT_ID)) return {};
  return {.checkpoint_id = r.id(table->checkpoint_id(), "checkpoint id")};
}

Offset<wire::CheckpointDue> write(Writer& w, const query::CheckpointDue& value) {
  const auto training_run_id = w.id(value.training_run_id);
  return wire::CreateCheckpointDue(w.builder(), training_run_id, value.step, to_scalar(value.interval));
}
query::CheckpointDue read(Reader& r, const wire::CheckpointDue* table) {
  if (!r.enter(table, "CheckpointDue", wire::CheckpointDue::VT_INTERVAL)) return {};
  return {.training_run_id = r.id(table->training_run_id(), "training run id"),
          .step = table->step(),
          .interval = from_scalar(table->interval())};
}

Offset<wire::FindCheckpoints> write(Writer& w, const query::FindCheckpoints& value) {
  const auto training_run_id = w.id(value.training_run_id);
  const auto metric_key = w.id(value.metric_key);
  const auto page = write(w, value.page);
  return wire::CreateFindCheckpoints(w.builder(), training_run_id, metric_key, value.threshold, value.ascending, page);
}
query::FindCheckpoints read(Reader& r, const wire::FindCheckpoints* table) {
  if (!r.enter(table, "FindCheckpoints", wire::FindCheckpoints::VT_PAGE)) return {};
  return {.training_run_id = r.id(table->training_run_id(), "training run id"),
          .metric_key = r.id(table->metric_key(), "metric key"),
          .threshold = r.real(table->threshold()),
          .ascending = table->ascending(),
          .page = read_page(r, table->page())};
}

Offset<wire::GetPolicy> write(Writer& w, const query::GetPolicy& value) {
  const auto training_run_id = w.optional_text(value.training_run_id);
  return wire::CreateGetPolicy(w.builder(), training_run_id);
}
query::GetPolicy read(Reader& r, const wire::GetPolicy* table) {
  if (!r.enter(table, "GetPolicy", wire::GetPolicy::VT_TRAINING_RUN_ID)) return {};
  return {.training_run_id = r.optional_text(table->training_run_id(), "training run id")};
}

Offset<wire::ReadLog> write(Writer& w, const query::ReadLog& value) {
  return wire::CreateReadLog(w.builder(), value.first, value.page_size);
}
query::ReadLog read(Reader& r, const wire::ReadLog* table) {
  if (!r.enter(table, "ReadLog", wire::ReadLog::VT_PAGE_SIZE)) return {};
  return {.first = table->first(), .page_size = table->page_size()};
}

Offset<wire::ReadHistory> write(Writer& w, const query::ReadHistory& value) {
  const auto stream = w.id(value.stream);
  const auto page = write(w, value.page);
  return wire::CreateReadHistory(w.builder(), stream, page);
}
query::ReadHistory read(Reader& r, const wire::ReadHistory* table) {
  if (!r.enter(table, "ReadHistory", wire::ReadHistory::VT_PAGE)) return {};
  return {.stream = r.id(table->stream(), "stream"), .page = read_page(r, table->page())};
}

Offset<wire::VerifyLog> write(Writer& w, const query::VerifyLog&) { return wire::CreateVerifyLog(w.builder()); }
query::VerifyLog read(Reader& r, const wire::VerifyLog* table) {
  r.enter(table, "VerifyLog", wire::VerifyLog::VT_RESERVED);
  return {};
}

Offset<wire::GetStatus> write(Writer& w, const query::GetStatus&) { return wire::CreateGetStatus(w.builder()); }
query::GetStatus read(Reader& r, const wire::GetStatus* table) {
  r.enter(table, "GetStatus", wire::GetStatus::VT_RESERVED);
  return {};
}

Offset<wire::TakeSnapshot> write(Writer& w, const query::TakeSnapshot&) {
  return wire::CreateTakeSnapshot(w.builder());
}
query::TakeSnapshot read(Reader& r, const wire::TakeSnapshot* table) {
  r.enter(table, "TakeSnapshot", wire::TakeSnapshot::VT_RESERVED);
  return {};
}

Member<wire::Query> write_query(Writer& w, const Query& query) {
  return std::visit([&w](const auto& q) { return as_member<wire::QueryTraits>(write(w, q)); }, query);
}
RequestBody read_query(Reader& r, const wire::Request* request) {
  return r.member<RequestBody, wire::QueryTraits, wire::GetModel, wire::ListVersions, wire::ListModels,
                  wire::FindModels, wire::GetValidation, wire::CompareShapes, wire::CheckSla, wire::BestModel,
                  wire::RollbackPriority, wire::ListPools, wire::GetPoolStats, wire::ListBlocks, wire::GetBlock,
                  wire::BlocksForTensor, wire::PlanDefragment, wire::GetCheckpoint, wire::ListCheckpoints,
                  wire::LatestCheckpoint, wire::FindRestorePoint, wire::RestorationChain, wire::ValidateCheckpoint,
                  wire::CheckpointDue, wire::FindCheckpoints, wire::GetPolicy, wire::ReadLog, wire::ReadHistory,
                  wire::VerifyLog, wire::GetStatus, wire::TakeSnapshot>(
      request->query_type(), request->query(), "query", [&r](const auto* member) { return read(r, member); });
}

// ---- frames

Offset<wire::Hello> write(Writer& w, const Hello& hello) {
  const auto actor = w.text(hello.actor);
  const auto client = w.text(hello.client);
  const auto session = to_wire(hello.session);
  return wire::CreateHello(w.builder(), hello.lowest_protocol, hello.highest_protocol, pointer_to(session),
                           to_scalar(hello.opened_at), actor, hello.seen_sequence, hello.seen_incarnation, client);
}
Hello read(Reader& r, const wire::Hello* table) {
  if (!r.enter(table, "Hello", Reader::kAnyField)) return {};
  // Who brings a token expects it to be checked.
  if (table->token() != nullptr) r.newer("Hello has a token");
  Hello hello{.lowest_protocol = table->lowest_protocol(),
              .highest_protocol = table->highest_protocol(),
              .session = std::nullopt,
              .opened_at = from_scalar(table->opened_at()),
              .actor = r.text(table->actor(), "actor"),
              .seen_sequence = table->seen_sequence(),
              .seen_incarnation = table->seen_incarnation(),
              .client = r.text(table->client(), "client")};
  if (table->session() != nullptr) hello.session = r.bytes16(table->session(), "session");
  return hello;
}

Offset<wire::Request> write(Writer& w, const Request& request) {
  const auto reason = w.text(request.reason);
  Member<wire::Command> command;
  Member<wire::Query> query;
  if (const auto* asked = std::get_if<Command>(&request.body)) {
    command = write_command(w, *asked);
  } else {
    query = write_query(w, std::get<Query>(request.body));
  }
  return wire::CreateRequest(w.builder(), request.correlation_id, request.command_number, request.answered_below,
                             to_scalar(request.if_sequence), reason, command.type, command.offset, query.type,
                             query.offset);
}
RequestBody read_body(Reader& r, const wire::Request* table) {
  const bool has_command = table->command_type() != wire::Command::NONE;
  const bool has_query = table->query_type() != wire::Query::NONE;
  if (has_command == has_query) {
    r.damaged("Request takes a command or a query, and one only");
    return {};
  }
  return has_command ? read_command(r, table) : read_query(r, table);
}
Request read(Reader& r, const wire::Request* table) {
  if (!r.enter(table, "Request", wire::Request::VT_QUERY)) return {};
  return {.correlation_id = table->correlation_id(),
          .command_number = table->command_number(),
          .answered_below = table->answered_below(),
          .if_sequence = from_scalar(table->if_sequence()),
          .reason = r.text(table->reason(), "reason"),
          .body = read_body(r, table)};
}

/// A function of its own: where every return names one variable, the compiler makes that where the caller wants it.
Result<ClientMessage> read_message(Reader& r, const wire::ClientFrame* table) {
  auto message = r.member<Result<ClientMessage>, wire::ClientMessageTraits, wire::Hello, wire::Request>(
      table->message_type(), table->message(), "message", [&r](const auto* member) { return read(r, member); });
  if (!r.ok()) message = r.status();
  return message;
}

template <class Message>
absl::Status append_frame(const Message& message, std::string& out) {
  Writer w(kMaxFrameBytes);
  const auto member = as_member<wire::ClientMessageTraits>(write(w, message));
  const auto root = wire::CreateClientFrame(w.builder(), member.type, member.offset);
  return w.append_size_prefixed(root.Union(), wire::ClientFrameIdentifier(), out);
}

}  // namespace

absl::Status append_client_frame(const Request& request, std::string& out) { return append_frame(request, out); }

Result<std::string> encode_client_frame(const ClientMessage& message) {
  std::string frame;
  absl::Status status = std::visit([&](const auto& m) { return append_frame(m, frame); }, message);
  if (!status.ok()) return status;
  return frame;
}

Result<ClientMessage> decode_client_frame(std::span<const std::byte> frame) {
  Reader r(Source::Client, frame.size());
  const VerifiedBuffer<wire::ClientFrame> verified(frame, wire::ClientFrameIdentifier(), Framing::SizePrefixed,
                                                   kMaxFrameBytes);
  const wire::ClientFrame* table = verified.root();
  if (table == nullptr) r.damaged("malformed");
  if (!r.enter(table, "ClientFrame", wire::ClientFrame::VT_MESSAGE)) return r.status();
  return read_message(r, table);
}

std::optional<std::uint64_t> correlation_id_of(std::span<const std::byte> frame) {
  const VerifiedBuffer<wire::ClientFrame> verified(frame, wire::ClientFrameIdentifier(), Framing::SizePrefixed,
                                                   kMaxFrameBytes);
  const wire::ClientFrame* table = verified.root();
  const wire::Request* request = table == nullptr ? nullptr : table->message_as_Request();
  if (request == nullptr || request->correlation_id() == 0) return std::nullopt;
  return request->correlation_id();
}

}  // namespace tensorforge::codec
