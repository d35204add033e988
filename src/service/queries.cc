#include "service/queries.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "platform/names.h"
#include "platform/resilience.h"
#include "service/pages.h"

namespace tensorforge::service {
namespace {

using names::quoted;

/// Of BestModel: what it copies and compares on the writer's thread is bounded.
constexpr std::size_t kMaxCandidates = 10'000;
/// Of PlanDefragment: as many moves as one Defragment makes, and one to see whether there are more.
constexpr std::size_t kOneMore = 1;
/// Checkpoints that are copied before their bytes are looked at: a page of large ones is full long before it has as
/// many as were asked for.
constexpr std::size_t kListedAtOnce = 64;

std::string model_name(std::string_view id, const registry::ModelVersion& version) {
  return fmt::format("model {} {}", quoted(id), registry::format_version(version));
}

std::string token_of(const registry::ModelMetadata& model) {
  return model.model_id + '@' + registry::format_version(model.version);  // an id has no '@'
}
Result<std::optional<registry::VersionKey>> version_key_of(const Page& page) {
  if (!page.token) return std::nullopt;
  const std::size_t at = page.token->rfind('@');
  if (at == std::string::npos) return bad_token(page);
  const auto version = registry::parse_version(std::string_view(*page.token).substr(at + 1));
  if (!version) return bad_token(page);
  return registry::VersionKey{page.token->substr(0, at), *version};
}

/// One overload for each query; a refusal is the status, else what the reply carries.
class Answerer {
 public:
  Answerer(const Reading& reading, Reply& reply) : reading_(reading), state_(reading.state), reply_(reply) {}

  // ---- models

  Result<ReplyResult> operator()(const query::GetModel& q) {
    const std::optional<registry::ModelView> model =
        q.version ? state_.registry.find(q.model_id, *q.version) : state_.registry.latest(q.model_id);
    if (model) return result::Models{{copy_of(*model)}};
    if (!q.version) return unknown_model(q.model_id);
    return absl::NotFoundError(fmt::format("{} is unknown", model_name(q.model_id, *q.version)));
  }
  Result<ReplyResult> operator()(const query::ListVersions& q) {
    if (!state_.registry.latest(q.model_id)) return unknown_model(q.model_id);
    std::optional<registry::ModelVersion> after;
    if (q.page.token) {
      after = registry::parse_version(*q.page.token);
      if (!after) return bad_token(q.page);
    }
    const Result<std::size_t> size = page_size(q.page);
    if (!size.ok()) return size.status();
    std::vector<registry::ModelVersion> versions;
    for (const auto& model : state_.registry.list_versions(q.model_id, after, *size + 1)) {
      versions.push_back(model.version);
    }
    cut(versions, *size, [](const auto& last) { return registry::format_version(last); });
    return result::Versions{std::move(versions)};
  }
  Result<ReplyResult> operator()(const query::ListModels& q) {
    return models(q.page, [&](const auto& after, std::size_t limit) { return state_.registry.list(after, limit); });
  }
  Result<ReplyResult> operator()(const query::FindModels& q) {
    return models(q.page, [&](const auto& after, std::size_t limit) {
      return state_.registry.find_by_state(q.state, after, limit);
    });
  }
  Result<ReplyResult> operator()(const query::GetValidation& q) {
    const auto found = validation(q.model_id, q.version);
    if (!found.ok()) return found.status();
    return result::ValidationFound{**found};
  }
  Result<ReplyResult> operator()(const query::CompareShapes& q) {
    const auto a = state_.registry.find(q.a_model_id, q.a_version);
    if (!a) return unknown_version(q.a_model_id, q.a_version);
    const auto b = state_.registry.find(q.b_model_id, q.b_version);
    if (!b) return unknown_version(q.b_model_id, q.b_version);
    return result::Number{
        registry::shape_compatibility(a->input_shape, a->output_shape, b->input_shape, b->output_shape)};
  }
  Result<ReplyResult> operator()(const query::CheckSla& q) {
    const auto found = validation(q.model_id, q.version);
    if (!found.ok()) return found.status();
    const registry::ValidationResult& v = **found;
    if (registry::meets_sla(v, q.max_latency_ms, q.min_accuracy)) return result::Verdict{true, ""};
    return result::Verdict{false, fmt::format("p99 is {} ms and may be {}, accuracy is {} and has to be {}",
                                              v.latency_p99_ms, q.max_latency_ms, v.accuracy_score, q.min_accuracy)};
  }
  Result<ReplyResult> operator()(const query::BestModel& q) { return best_model(q); }
  Result<ReplyResult> operator()(const query::RollbackPriority& q) {
    const auto current = validation(q.model_id, q.current);
    if (!current.ok()) return current.status();
    const auto baseline = validation(q.model_id, q.baseline);
    if (!baseline.ok()) return baseline.status();
    return result::Number{registry::rollback_priority(**current, **baseline)};
  }

  // ---- pools

  Result<ReplyResult> operator()(const query::ListPools& q) {
    const Result<std::size_t> size = page_size(q.page);
    if (!size.ok()) return size.status();
    std::vector<gpu_memory::GpuDevice> pools;
    for (const auto* device : state_.gpu_memory.pools(q.page.token, *size + 1)) pools.push_back(*device);
    cut(pools, *size, [](const auto& last) { return last.device_id; });
    return result::Pools{std::move(pools)};
  }
  Result<ReplyResult> operator()(const query::GetPoolStats& q) {
    const auto stats = state_.gpu_memory.stats(q.device_id);
    if (!stats) return unknown_pool(q.device_id);
    const Config& config = reading_.config;
    // Cached memory is available to the next allocation: it counts neither as pressure nor as used up.
    return result::PoolStats{
        *stats, gpu_memory::memory_pressure(stats->allocated_bytes + stats->pinned_bytes, stats->total_bytes),
        gpu_memory::should_defragment(*stats, config.fragmentation_threshold, config.defragment_min_block_bytes),
        gpu_memory::estimate_oom_seconds(stats->free_bytes + stats->cached_bytes,
                                         reading_.allocation_rate(q.device_id))};
  }
  Result<ReplyResult> operator()(const query::ListBlocks& q) {
    return blocks(q.device_id, q.page, [&](std::size_t from, std::size_t limit) {
      return state_.gpu_memory.blocks(q.device_id, from, limit);
    });
  }
  Result<ReplyResult> operator()(const query::GetBlock& q) {
    if (!state_.gpu_memory.has_pool(q.device_id)) return unknown_pool(q.device_id);
    auto block = state_.gpu_memory.block(q.device_id, q.block_id);
    if (block) return result::Blocks{{*std::move(block)}};
    return absl::NotFoundError(fmt::format("pool {}: block {} is unknown", quoted(q.device_id), quoted(q.block_id)));
  }
  Result<ReplyResult> operator()(const query::BlocksForTensor& q) {
    return blocks(q.device_id, q.page, [&](std::size_t from, std::size_t limit) {
      return state_.gpu_memory.blocks_for_tensor(q.device_id, q.tensor_id, from, limit);
    });
  }
  Result<ReplyResult> operator()(const query::PlanDefragment& q) {
    if (!state_.gpu_memory.has_pool(q.device_id)) return unknown_pool(q.device_id);
    const std::size_t limit = reading_.config.max_changes;
    result::Moves plan{state_.gpu_memory.plan_defragment(q.device_id, limit + kOneMore), false};
    if (plan.moves.size() > limit) {
      plan.moves.resize(limit);
      plan.more = true;
    }
    return plan;
  }

  // ---- checkpoints

  Result<ReplyResult> operator()(const query::GetCheckpoint& q) {
    auto found = state_.checkpoint.find(q.checkpoint_id);
    if (!found) return unknown_checkpoint(q.checkpoint_id);
    return result::Checkpoints{{*std::move(found)}};
  }
  Result<ReplyResult> operator()(const query::ListCheckpoints& q) {
    return checkpoints(q.training_run_id, q.page, [&](const auto& after, std::size_t limit) {
      return state_.checkpoint.list_for_run(q.training_run_id, after, limit);
    });
  }
  Result<ReplyResult> operator()(const query::LatestCheckpoint& q) {
    if (!state_.checkpoint.has_run(q.training_run_id)) return unknown_run(q.training_run_id);
    auto latest = state_.checkpoint.latest(q.training_run_id);
    if (latest) return result::Checkpoints{{*std::move(latest)}};
    return absl::NotFoundError(fmt::format("run {} has no Complete checkpoint", quoted(q.training_run_id)));
  }
  Result<ReplyResult> operator()(const query::FindRestorePoint& q) {
    const std::string& run = q.criteria.training_run_id;
    if (!state_.checkpoint.has_run(run)) return unknown_run(run);
    auto found = state_.checkpoint.find_restore_point(q.criteria);
    if (found) return result::Checkpoints{{*std::move(found)}};
    return absl::NotFoundError(fmt::format("run {} has no checkpoint that can be restored and meets the criteria",  //
                                           quoted(run)));
  }
  Result<ReplyResult> operator()(const query::RestorationChain& q) { return chain(q); }
  Result<ReplyResult> operator()(const query::ValidateCheckpoint& q) {
    if (!state_.checkpoint.find(q.checkpoint_id)) return unknown_checkpoint(q.checkpoint_id);
    const absl::Status valid = state_.checkpoint.validate(q.checkpoint_id);
    return result::Verdict{valid.ok(), std::string(valid.message())};
  }
  Result<ReplyResult> operator()(const query::CheckpointDue& q) {
    // A run without a checkpoint, or one that is not known yet, was last saved at step 0.
    const auto latest = state_.checkpoint.latest(q.training_run_id);
    const std::uint64_t last = latest ? latest->step : 0;
    const std::uint64_t interval = q.interval.value_or(reading_.config.checkpoint_interval_steps);
    return result::Due{resilience::CheckpointManager(interval).should_checkpoint(last, q.step), last, interval};
  }
  Result<ReplyResult> operator()(const query::FindCheckpoints& q) {
    return checkpoints(q.training_run_id, q.page, [&](const auto& after, std::size_t limit) {
      return state_.checkpoint.find_by_metric(q.training_run_id, q.metric_key, q.threshold, q.ascending, after, limit);
    });
  }
  Result<ReplyResult> operator()(const query::GetPolicy& q) {
    const auto own = q.training_run_id ? state_.checkpoint.policy(*q.training_run_id) : std::nullopt;
    if (own) return result::Policy{*own, false};
    return result::Policy{state_.checkpoint.default_policy(), q.training_run_id.has_value()};
  }

  // ---- those that need more than the state
  Result<ReplyResult> operator()(const query::ReadLog&) { return not_here(); }
  Result<ReplyResult> operator()(const query::ReadHistory&) { return not_here(); }
  Result<ReplyResult> operator()(const query::VerifyLog&) { return not_here(); }
  Result<ReplyResult> operator()(const query::GetStatus&) { return not_here(); }
  Result<ReplyResult> operator()(const query::TakeSnapshot&) { return not_here(); }

 private:
  static absl::Status not_here() { return absl::InternalError("this query is not answered from the state"); }
  static absl::Status unknown_model(std::string_view id) {
    return absl::NotFoundError(fmt::format("model {} is unknown", quoted(id)));
  }
  static absl::Status unknown_version(std::string_view id, const registry::ModelVersion& version) {
    return absl::NotFoundError(fmt::format("{} is unknown", model_name(id, version)));
  }
  static absl::Status unknown_pool(std::string_view id) {
    return absl::NotFoundError(fmt::format("pool {} is unknown", quoted(id)));
  }
  static absl::Status unknown_checkpoint(std::string_view id) {
    return absl::NotFoundError(fmt::format("checkpoint {} is unknown", quoted(id)));
  }
  static absl::Status unknown_run(std::string_view id) {
    return absl::NotFoundError(fmt::format("run {} is unknown", quoted(id)));
  }

  /// Cuts a list that has one element more than the page, if there are more, and sets the token.
  template <class T, class TokenOf>
  void cut(std::vector<T>& list, std::size_t limit, const TokenOf& next_token) {
    std::size_t bytes = 0;
    std::size_t kept = 0;
    while (kept < std::min(limit, list.size())) {
      bytes += codec::page_bytes(list[kept]);
      if (kept > 0 && bytes > reading_.config.max_reply_bytes) break;
      ++kept;
    }
    if (kept == list.size()) return;
    list.erase(list.begin() + static_cast<std::ptrdiff_t>(kept), list.end());
    reply_.next_page_token = next_token(list.back());
  }

  Result<const registry::ValidationResult*> validation(std::string_view id, const registry::ModelVersion& version) {
    if (!state_.registry.find(id, version)) return unknown_version(id, version);
    const auto* found = state_.registry.validation(id, version);
    if (found == nullptr) return absl::NotFoundError(fmt::format("{} has no validation", model_name(id, version)));
    return found;
  }

  template <class List>
  Result<ReplyResult> models(const Page& page, const List& list) {
    const auto after = version_key_of(page);
    if (!after.ok()) return after.status();
    const Result<std::size_t> size = page_size(page);
    if (!size.ok()) return size.status();
    std::vector<registry::ModelMetadata> found;
    std::size_t bytes = 0;
    for (const registry::ModelView& model : list(*after, *size + 1)) {
      found.push_back(copy_of(model));
      bytes += codec::page_bytes(model);
      if (bytes > reading_.config.max_reply_bytes && found.size() > 1) break;  // cut() takes the last one off
    }
    cut(found, *size, [](const auto& last) { return token_of(last); });
    return result::Models{std::move(found)};
  }

  template <class List>
  Result<ReplyResult> blocks(std::string_view device_id, const Page& page, const List& list) {
    if (!state_.gpu_memory.has_pool(device_id)) return unknown_pool(device_id);
    std::uint64_t from = 0;
    if (page.token) {
      const auto parsed = number_token(page);
      if (!parsed.ok()) return parsed.status();
      from = *parsed;
    }
    const Result<std::size_t> size = page_size(page);
    if (!size.ok()) return size.status();
    std::vector<gpu_memory::MemoryBlock> found = list(from, *size + 1);
    cut(found, *size, [](const auto& last) { return std::to_string(last.offset + 1); });
    return result::Blocks{std::move(found)};
  }

  template <class List>
  Result<ReplyResult> checkpoints(std::string_view run, const Page& page, const List& list) {
    if (!state_.checkpoint.has_run(run)) return unknown_run(run);
    if (page.token) {
      const std::string* run_of_token = state_.checkpoint.run_of(*page.token);
      if (run_of_token == nullptr || *run_of_token != run) return bad_token(page);
    }
    const Result<std::size_t> size = page_size(page);
    if (!size.ok()) return size.status();
    std::vector<checkpoint::CheckpointMeta> found;
    std::size_t bytes = 0;
    std::optional<std::string> after = page.token;
    while (found.size() <= *size && bytes <= reading_.config.max_reply_bytes) {  // cut() takes off what is too much
      std::vector<checkpoint::CheckpointMeta> next = list(after, std::min(*size + 1 - found.size(), kListedAtOnce));
      if (next.empty()) break;
      after = next.back().checkpoint_id;
      for (const checkpoint::CheckpointMeta& checkpoint : next) bytes += codec::page_bytes(checkpoint);
      std::move(next.begin(), next.end(), std::back_inserter(found));
    }
    cut(found, *size, [](const auto& last) { return last.checkpoint_id; });
    return result::Checkpoints{std::move(found)};
  }

  Result<ReplyResult> chain(const query::RestorationChain& q) {
    if (!state_.checkpoint.find(q.checkpoint_id)) return unknown_checkpoint(q.checkpoint_id);
    const Result<std::size_t> size = page_size(q.page);
    if (!size.ok()) return size.status();
    std::vector<checkpoint::CheckpointMeta> all = state_.checkpoint.restoration_chain(q.checkpoint_id);
    const Config& config = reading_.config;
    result::Chain chain;
    chain.length = all.size();
    chain.size_bytes = checkpoint::chain_size(all, q.checkpoint_id);
    chain.estimated_restore_ms = checkpoint::estimate_restore_time(
        all, config.restore_base_ms, config.restore_per_checkpoint_ms, config.restore_bytes_per_ms);
    if (q.page.token) {
      const auto last =
          std::find_if(all.begin(), all.end(), [&](const auto& each) { return each.checkpoint_id == *q.page.token; });
      if (last == all.end()) return bad_token(q.page);
      all.erase(all.begin(), last + 1);
    }
    cut(all, *size, [](const auto& last) { return last.checkpoint_id; });
    chain.checkpoints = std::move(all);
    return chain;
  }

  Result<ReplyResult> best_model(const query::BestModel& q) {
    // select_best_model() tells a model's id; each candidate goes by its index here, so that its version is known too.
    std::vector<std::pair<registry::ModelMetadata, registry::ValidationResult>> candidates;
    std::vector<registry::VersionKey> behind;
    for (const std::string& id : q.model_ids) {
      if (!state_.registry.latest(id)) return unknown_model(id);
      for (const auto& model : state_.registry.list_versions(id, std::nullopt, kMaxCandidates + 1)) {
        const auto* validated = state_.registry.validation(id, model.version);
        if (validated == nullptr) continue;
        if (candidates.size() == kMaxCandidates) {
          return absl::ResourceExhaustedError(
              fmt::format("over {} validated versions to choose from; ask for fewer models", kMaxCandidates));
        }
        registry::ModelMetadata candidate;
        candidate.model_id = std::to_string(behind.size());
        candidate.version = model.version;
        candidate.state = model.state;
        candidates.emplace_back(std::move(candidate), *validated);
        behind.push_back({id, model.version});
      }
    }
    const std::optional<std::string> best = registry::select_best_model(candidates);
    if (!best) return result::BestModelFound{};
    std::size_t index = 0;
    std::from_chars(best->data(), best->data() + best->size(), index);
    return result::BestModelFound{behind[index].model_id, behind[index].version};
  }

  const Reading& reading_;
  const State& state_;
  Reply& reply_;
};

}  // namespace

Reply answer(const Reading& reading, const Query& query) {
  Reply reply;
  reply.sequence = reading.state.sequence;
  reply.incarnation = reading.state.incarnation();
  Answerer answerer(reading, reply);
  Result<ReplyResult> answered = std::visit(answerer, query);
  if (answered.ok()) {
    reply.result = *std::move(answered);
  } else {
    reply.status = answered.status();
  }
  return reply;
}

}  // namespace tensorforge::service
