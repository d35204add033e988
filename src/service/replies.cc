#include "service/replies.h"

#include <type_traits>
#include <utility>
#include <variant>

namespace tensorforge::service {
namespace {

std::string block_id(const EntityId& id) { return format_entity_id(gpu_memory::kBlockIdPrefix, id); }
std::string checkpoint_id(const EntityId& id) { return format_entity_id(checkpoint::kCheckpointIdPrefix, id); }

/// Adds what one event says to the answer of its command.
struct Answerer {
  Reply& reply;

  void operator()(const auto& domain_event) requires requires { domain_event.index(); }
  { std::visit(*this, domain_event); }

  void operator()(const registry::ModelRegistered& e) {
    const registry::ModelView model = e.model.view();
    reply.result = result::Registered{std::string(model.model_id), model.version, model.state, model.registered_at};
  }
  void operator()(const registry::StateTransitioned& e) {
    reply.result = result::Transitioned{e.model_id, e.version, e.from, e.to};
  }
  void operator()(const registry::ValidationRecorded&) {}

  void operator()(const gpu_memory::PoolCreated&) {}
  void operator()(const gpu_memory::BlockAllocated& e) {
    reply.result =
        result::Allocated{block_id(e.block), e.offset, e.actual_size, static_cast<std::uint32_t>(e.evicted.size())};
  }
  void operator()(const gpu_memory::AllocationRefused& e) {
    reply.status = absl::ResourceExhaustedError(gpu_memory::refusal_message(e));
  }
  void operator()(const gpu_memory::BlockFreed&) {}
  void operator()(const gpu_memory::BlockCached&) {}
  void operator()(const gpu_memory::BlockPinned&) {}
  void operator()(const gpu_memory::BlockUnpinned&) {}
  void operator()(const gpu_memory::BlockTouched&) {}
  void operator()(const gpu_memory::BlockEvicted& e) {
    auto& evicted = growing<result::Evicted>();
    evicted.freed_bytes += e.size;
    ++evicted.blocks;
    evicted.more = e.more;
  }
  void operator()(const gpu_memory::BlockMoved& e) {
    auto& moves = growing<result::Moves>();
    moves.moves.push_back({block_id(e.block), e.from, e.to, e.size});
    moves.more = e.more;
  }

  void operator()(const checkpoint::CheckpointCreated& e) {
    checkpoint::CheckpointMeta meta;
    meta.checkpoint_id = checkpoint_id(e.checkpoint);
    meta.training_run_id = e.request.training_run_id;
    meta.epoch = e.request.epoch;
    meta.step = e.request.step;
    meta.checkpoint_type = e.request.checkpoint_type;
    meta.state = checkpoint::CheckpointState::Creating;
    meta.created_at = e.created_at;
    if (e.parent) meta.parent_id = checkpoint_id(*e.parent);
    meta.metrics = e.request.metrics;
    reply.result = result::Checkpoints{{std::move(meta)}};
  }
  void operator()(const checkpoint::CheckpointCompleted&) {}
  void operator()(const checkpoint::CheckpointCorrupted&) {}
  void operator()(const checkpoint::CheckpointDeleted& e) {
    if (e.cause == checkpoint::DeletionCause::Removed) return;
    auto& collected = growing<result::Collected>();
    collected.deleted.push_back({checkpoint_id(e.checkpoint), e.storage_path, e.size_bytes, e.training_run_id});
    collected.more = e.more;
  }
  void operator()(const checkpoint::PolicySet&) {}

  void operator()(const IncarnationStarted&) {}
  void operator()(const ClockAccepted&) {}

 private:
  template <class T>
  T& growing() {
    if (!std::holds_alternative<T>(reply.result)) reply.result = T{};
    return std::get<T>(reply.result);
  }
};

void add_record(Reply& reply, const Record& record) {
  reply.sequence = record.sequence;
  reply.incarnation = record.incarnation;
  std::visit(Answerer{reply}, record.event);
}

Reply batch_reply(std::span<const Record> records) {
  const std::uint32_t size = records.front().batch_size;
  const std::uint32_t incarnation = records.front().incarnation;  // the last items may have no records
  result::BatchResult batch;
  Sequence before = records.front().sequence - 1;
  for (std::uint32_t index = 0; index < size; ++index) {
    Reply item;  // of an item that changed nothing: Done, at the record before
    item.sequence = before;
    item.incarnation = incarnation;
    while (!records.empty() && records.front().batch_index == index) {
      add_record(item, records.front());
      records = records.subspan(1);
    }
    before = item.sequence;
    batch.replies.push_back(std::move(item));
  }
  Reply reply;
  reply.sequence = before;
  reply.incarnation = batch.replies.back().incarnation;
  reply.result = std::move(batch);
  return reply;
}

}  // namespace

Reply reply_from_records(std::span<const Record> records) {
  if (records.front().batch_size > 0) return batch_reply(records);
  Reply reply;
  for (const Record& record : records) add_record(reply, record);
  return reply;
}

ReplyResult unchanged_result(const Command& command, Sequence sequence, std::uint32_t incarnation) {
  const auto* single = std::get_if<SingleCommand>(&command);
  if (single == nullptr) {
    Reply item;
    item.sequence = sequence;
    item.incarnation = incarnation;
    return result::BatchResult{std::vector<Reply>(std::get<Batch>(command).items.size(), item)};
  }
  if (const auto* gpu = std::get_if<gpu_memory::Command>(single)) {
    if (std::holds_alternative<gpu_memory::Evict>(*gpu)) return result::Evicted{};
    if (std::holds_alternative<gpu_memory::Defragment>(*gpu)) return result::Moves{};
  }
  if (const auto* checkpoints = std::get_if<checkpoint::Command>(single)) {
    if (std::holds_alternative<checkpoint::CollectGarbage>(*checkpoints)) return result::Collected{};
  }
  return result::Done{};
}

}  // namespace tensorforge::service
