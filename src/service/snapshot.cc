#include "service/snapshot.h"

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "checkpoint/snapshot.h"
#include "codec/snapshot.h"
#include "fmt/format.h"
#include "gpu_memory/snapshot.h"
#include "registry/snapshot.h"

namespace tensorforge::service {
namespace {

/// A page is full at about this many bytes; one entity has at most some 50 KiB.
constexpr std::size_t kPageBytes = std::size_t{200} << 10U;

// About what an entity takes on a page: its texts, and the rest of it.
constexpr std::size_t kTextBytes = 12, kTableBytes = 96;

std::size_t bytes_of(std::string_view text) { return text.size() + kTextBytes; }
std::size_t bytes_of(const registry::PackedModel& packed) {
  const registry::ModelView model = packed.view();
  std::size_t bytes = kTableBytes + bytes_of(model.model_id) + bytes_of(model.name) + bytes_of(model.framework) +
                      bytes_of(model.checksum) + 8 * (model.input_shape.size() + model.output_shape.size());
  for (const auto& [key, value] : model.tags) bytes += 2 * kTextBytes + bytes_of(key) + bytes_of(value);
  return bytes;
}
std::size_t bytes_of(const registry::ValidationResult& validation) {
  std::size_t bytes = kTableBytes + bytes_of(validation.model_id);
  for (const std::string& error : validation.errors) bytes += bytes_of(error);
  return bytes;
}
std::size_t bytes_of(const gpu_memory::GpuDevice& device) { return kTableBytes + bytes_of(device.device_id); }
std::size_t bytes_of(const gpu_memory::LiveBlock& block) { return kTableBytes + bytes_of(block.tensor_id); }
std::size_t bytes_of(const checkpoint::StoredCheckpoint& stored) {
  std::size_t bytes = kTableBytes + bytes_of(stored.created.request.training_run_id) + bytes_of(stored.storage_path);
  for (const auto& [key, value] : stored.created.request.metrics) bytes += 2 * kTextBytes + bytes_of(key);
  return bytes;
}
std::size_t bytes_of(const checkpoint::PolicySet& policy) {
  return kTableBytes + bytes_of(policy.policy.metric_key) + bytes_of(policy.training_run_id.value_or(""));
}
std::size_t bytes_of(const SnapshotSessions::Session& session) { return kTableBytes + 24 * session.entries.size(); }
std::size_t bytes_of(const SnapshotStreams::Stream& stream) { return 24 + bytes_of(stream.name); }

absl::Status write_page(const SnapshotPart& part, const AddPage& add) {
  const Result<std::string> page = codec::encode_snapshot_part(part);
  return page.ok() ? add(*page) : page.status();
}

/// Gathers the entities of one kind into pages. The first error sticks.
template <class Part, auto kItems>
class Pages {
 public:
  explicit Pages(const AddPage& add, Part empty = {}) : add_(add), empty_(empty), part_(std::move(empty)) {}

  template <class Item>
  void push(Item&& item) {
    if (!status_.ok()) return;
    bytes_ += bytes_of(item);
    (part_.*kItems).push_back(std::forward<Item>(item));
    if (bytes_ >= kPageBytes) flush();
  }
  absl::Status finish() {
    if (status_.ok() && !(part_.*kItems).empty()) flush();
    return status_;
  }

 private:
  void flush() {
    status_ = write_page(std::exchange(part_, empty_), add_);
    bytes_ = 0;
  }

  const AddPage& add_;
  const Part empty_;
  Part part_;
  std::size_t bytes_{};
  absl::Status status_;
};

SnapshotFacts facts_of(const State& state) {
  SnapshotFacts facts;
  facts.sequence = state.sequence;
  facts.time = state.time;
  for (const Incarnation& each : state.incarnations) facts.incarnations.push_back({each.id, each.first_sequence});
  facts.horizon = state.sessions.horizon();
  facts.next_block_number = state.gpu_memory.next_block_number();
  facts.next_checkpoint_number = checkpoint::next_checkpoint_number(state.checkpoint);
  facts.registry = state.registry.digest();
  facts.gpu_memory = state.gpu_memory.digest();
  facts.checkpoint = state.checkpoint.digest();
  SnapshotFacts::Counts& counts = facts.counts;
  counts.models = state.registry.version_count();
  registry::for_each_version(state.registry,
                             [&](const auto&, const auto* validation) { counts.validations += validation ? 1 : 0; });
  counts.pools = state.gpu_memory.pool_count();
  counts.blocks = state.gpu_memory.live_block_count();
  counts.checkpoints = checkpoint::stored_checkpoint_count(state.checkpoint);
  counts.policies = checkpoint::policy_count(state.checkpoint);
  counts.sessions = state.sessions.size();
  counts.streams = state.stream_count();
  return facts;
}

absl::Status save_registry(const registry::State& state, const AddPage& add) {
  Pages<SnapshotModels, &SnapshotModels::models> models(add);
  registry::for_each_version(state, [&](const auto& model, const auto*) { models.push(registry::PackedModel(model)); });
  if (absl::Status status = models.finish(); !status.ok()) return status;
  Pages<SnapshotValidations, &SnapshotValidations::validations> validations(add);
  registry::for_each_version(state, [&](const auto&, const auto* validation) {
    if (validation != nullptr) validations.push(*validation);
  });
  return validations.finish();
}

absl::Status save_gpu_memory(const gpu_memory::State& state, const AddPage& add) {
  const std::vector<const gpu_memory::GpuDevice*> devices = state.pools(std::nullopt, state.pool_count());
  Pages<SnapshotPools, &SnapshotPools::pools> pools(add);
  for (const auto* device : devices) pools.push(*device);
  if (absl::Status status = pools.finish(); !status.ok()) return status;
  for (const auto* device : devices) {
    Pages<SnapshotBlocks, &SnapshotBlocks::blocks> blocks(add, {device->device_id, {}});
    gpu_memory::for_each_live_block(state, device->device_id, [&](const auto& block) { blocks.push(block); });
    if (absl::Status status = blocks.finish(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status save_checkpoints(const checkpoint::State& state, const AddPage& add) {
  Pages<SnapshotCheckpoints, &SnapshotCheckpoints::checkpoints> checkpoints(add);
  checkpoint::for_each_checkpoint(state, [&](const auto& stored) { checkpoints.push(stored); });
  if (absl::Status status = checkpoints.finish(); !status.ok()) return status;
  Pages<SnapshotPolicies, &SnapshotPolicies::policies> policies(add);
  checkpoint::for_each_policy(state, [&](const auto& policy) { policies.push(policy); });
  return policies.finish();
}

absl::Status save_sessions(const Sessions& sessions, const AddPage& add) {
  Pages<SnapshotSessions, &SnapshotSessions::sessions> pages(add);
  sessions.for_each([&](const SessionId& id, const Sessions::Session& session) {
    SnapshotSessions::Session saved{id, session.opened_at, session.answered_below, {}};
    for (const Sessions::Entry& entry : session.entries) {
      saved.entries.push_back({entry.number, entry.first, entry.count});
    }
    pages.push(std::move(saved));
  });
  return pages.finish();
}

absl::Status save_streams(const State& state, const AddPage& add) {
  Pages<SnapshotStreams, &SnapshotStreams::streams> pages(add);
  // In the order of their names: those of models come before all others.
  state.registry.for_each_model([&](std::string_view model_id, Sequence last) {
    pages.push(SnapshotStreams::Stream{StreamRef{kModelStreams, model_id}.name(), last});
  });
  std::vector<std::pair<std::string, Sequence>> others(state.last_of_others.begin(), state.last_of_others.end());
  std::sort(others.begin(), others.end());
  for (auto& [name, last] : others) pages.push(SnapshotStreams::Stream{std::move(name), last});
  return pages.finish();
}

absl::Status damaged(std::string_view what) { return absl::DataLossError(fmt::format("snapshot: {}", what)); }

/// Puts a state together, part by part.
class Loading {
 public:
  explicit Loading(const SessionLimits& limits) { state_.sessions = Sessions(limits); }

  absl::Status take(SnapshotPart&& part) {
    if (part.index() < last_part_ || (part.index() == 0) == has_facts_) return damaged("its parts are out of order");
    last_part_ = part.index();
    return std::visit([this](auto& each) { return restore(std::move(each)); }, part);
  }

  Result<State> finish() {
    if (!has_facts_) return damaged("it says nothing");
    absl::Status status = gpu_memory::restore_next_block_number(state_.gpu_memory, facts_.next_block_number);
    if (!status.ok()) return status;
    status = checkpoint::restore_next_checkpoint_number(state_.checkpoint, facts_.next_checkpoint_number);
    if (!status.ok()) return status;
    const SnapshotFacts found = facts_of(state_);
    if (found == facts_ && streams_ == facts_.counts.streams) return std::move(state_);
    return damaged(found.counts == facts_.counts ? "its digests are not those of the state in it"
                                                 : "it does not hold as much as it says");
  }

 private:
  absl::Status restore(SnapshotFacts&& facts) {
    has_facts_ = true;
    facts_ = std::move(facts);
    state_.sequence = facts_.sequence;
    state_.time = facts_.time;
    for (const auto& each : facts_.incarnations) {
      const bool rises = state_.incarnations.empty() ? each.first_sequence > 0
                                                     : each.first_sequence > state_.incarnations.back().first_sequence;
      if (!rises || each.first_sequence > facts_.sequence) return damaged("its incarnations are out of order");
      state_.incarnations.push_back({each.id, each.first_sequence});
    }
    if (state_.incarnations.empty()) return damaged("it has no incarnation");
    state_.sessions.restore_horizon(facts_.horizon);
    return absl::OkStatus();
  }
  absl::Status restore(SnapshotModels&& part) {
    return each(part.models, [this](auto& model) { return registry::restore(state_.registry, std::move(model)); });
  }
  absl::Status restore(SnapshotValidations&& part) {
    return each(part.validations, [this](const auto& one) { return registry::restore(state_.registry, one); });
  }
  absl::Status restore(SnapshotPools&& part) {
    return each(part.pools, [this](const auto& device) { return gpu_memory::restore(state_.gpu_memory, device); });
  }
  absl::Status restore(SnapshotBlocks&& part) {
    return each(part.blocks,
                [&](const auto& block) { return gpu_memory::restore(state_.gpu_memory, part.device_id, block); });
  }
  absl::Status restore(SnapshotCheckpoints&& part) {
    return each(part.checkpoints,
                [this](auto& stored) { return checkpoint::restore(state_.checkpoint, std::move(stored)); });
  }
  absl::Status restore(SnapshotPolicies&& part) {
    return each(part.policies, [this](const auto& policy) { return checkpoint::restore(state_.checkpoint, policy); });
  }
  absl::Status restore(SnapshotSessions&& part) {
    return each(part.sessions, [this](const auto& saved) {
      Sessions::Session session{saved.opened_at, saved.answered_below, {}};
      session.entries.reserve(saved.entries.size());
      for (const auto& entry : saved.entries) session.entries.push_back({entry.number, entry.first, entry.count});
      return state_.sessions.restore(saved.id, std::move(session));
    });
  }
  absl::Status restore(SnapshotStreams&& part) {
    streams_ += part.streams.size();
    return each(part.streams, [this](auto& stream) {
      if (stream.last == 0) return absl::DataLossError("a stream has no event");
      if (const StreamRef parsed = parse_stream(stream.name); parsed.kind == kModelStreams) {
        return registry::restore(state_.registry, parsed.id, stream.last);
      }
      const bool is_new = state_.last_of_others.try_emplace(std::move(stream.name), stream.last).second;
      return is_new ? absl::OkStatus() : absl::DataLossError("a stream is given twice");
    });
  }

  template <class Items, class RestoreOne>
  static absl::Status each(Items& items, RestoreOne restore_one) {
    for (auto& item : items) {
      if (absl::Status status = restore_one(item); !status.ok()) return damaged(std::string(status.message()));
    }
    return absl::OkStatus();
  }

  State state_;
  SnapshotFacts facts_;
  bool has_facts_{};
  std::size_t last_part_{};
  std::uint64_t streams_{};  // given so far: a model is there without its own
};

}  // namespace

absl::Status save_state(const State& state, const AddPage& add) {
  absl::Status status = write_page(facts_of(state), add);
  if (status.ok()) status = save_registry(state.registry, add);
  if (status.ok()) status = save_gpu_memory(state.gpu_memory, add);
  if (status.ok()) status = save_checkpoints(state.checkpoint, add);
  if (status.ok()) status = save_sessions(state.sessions, add);
  return status.ok() ? save_streams(state, add) : status;
}

Result<State> load_state(const NextPage& next, const SessionLimits& limits) {
  Loading loading(limits);
  for (;;) {
    const Result<std::optional<std::string_view>> page = next();
    if (!page.ok()) return page.status();
    if (!*page) return loading.finish();
    Result<SnapshotPart> part = codec::decode_snapshot_part(std::as_bytes(std::span(**page)));
    if (!part.ok()) return part.status();
    if (absl::Status status = loading.take(*std::move(part)); !status.ok()) return status;
  }
}

std::uint64_t live_entities(const State& state) {
  return state.registry.version_count() + state.gpu_memory.pool_count() + state.gpu_memory.live_block_count() +
         checkpoint::stored_checkpoint_count(state.checkpoint) + state.sessions.size();
}

}  // namespace tensorforge::service
