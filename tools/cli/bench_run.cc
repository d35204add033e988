#include "bench_run.h"

#include <algorithm>
#include <iterator>

#include <fmt/compile.h>

#include "model_table.h"
#include "platform/enum_names.h"
#include "platform/prefetch.h"
#include "program.h"

namespace tensorforge::cli::bench {
namespace {

constexpr auto kOperations = enum_names<Operation>("register", "get", "alloc", "checkpoint", "mixed");
constexpr std::size_t kTensors = 4'096;  // whose blocks they are
static_assert(kMaxKeys <= 1'000'000, "a key has six digits in an id");

codec::VersionRequestFrame frame_of(auto request) {
  Result<codec::VersionRequestFrame> frame = codec::VersionRequestFrame::make(std::move(request));
  if (!frame.ok()) throw refusal(frame.status());
  return *std::move(frame);
}

}  // namespace

std::string_view to_string(Operation operation) { return kOperations.to_string(operation); }

Run::Run(const Plan& of) : plan(of), random_(std::random_device{}()) {
  prefix_ = fmt::format("bench/{:08x}", static_cast<std::uint32_t>(random_()));
  const Result<std::vector<registry::ModelMetadata>> table = parse_model_table(built_in_model_table());
  if (!table.ok()) throw refusal(table.status());
  table_.assign(table->begin(), table->end());
  for (const registry::ModelMetadata& row : *table) {
    id_starts_.push_back(fmt::format("{}/{}-", prefix_, row.model_id));
  }
}

void Run::prepare_frames() {
  for (std::size_t row = 0; row < table_.size(); ++row) {
    registry::ModelView model = table_[row].view();
    const IdBuffer id = model_id(row, 0);
    model.model_id = {id.data(), id.size()};
    registrations_.push_back(frame_of(registry::RegisterModel{registry::PackedModel(model)}));
  }
  for (const auto& [id, version] : models) {
    gets_.resize(std::max(gets_.size(), id.size() + 1));
    std::optional<codec::VersionRequestFrame>& frame = gets_[id.size()];
    if (!frame) frame = frame_of(query::GetModel{id, version});
  }
}

Run::IdBuffer Run::model_id(std::size_t row, std::uint64_t key) const {
  IdBuffer id;
  fmt::format_to(std::back_inserter(id), FMT_COMPILE("{}{:06}"), id_starts_[row], key);
  return id;
}

Run::NextVersion Run::next_version() {
  const std::uint64_t number = versions_made_++;
  const std::uint64_t key = number % plan.keys;
  const std::uint64_t release = number / plan.keys;  // 64 bits of it do not fit one of the three numbers
  const std::size_t row = key % table_.size();
  return {
      row, model_id(row, key), {1, static_cast<std::uint32_t>(release >> 32U), static_cast<std::uint32_t>(release)}};
}

registry::PackedModel Run::next_model() {
  const NextVersion next = next_version();
  registry::ModelView model = table_[next.row].view();
  model.model_id = next.id();
  model.version = next.version;
  return registry::PackedModel(model);
}

const Run::Version& Run::next_to_read() {
  const Version& next = models[picks_[next_pick_]];
  picks_[next_pick_] = static_cast<std::uint32_t>(below(models.size()));
  prefetch_object(&models[picks_[next_pick_]]);
  next_pick_ = (next_pick_ + 1) % picks_.size();
  prefetch_bytes(models[picks_[(next_pick_ + picks_.size() / 2) % picks_.size()]].first.data(), kCacheLineBytes);
  return next;
}

gpu_memory::Allocate Run::next_block(std::size_t client) {
  return {device(client), {fmt::format("layer{}", below(kTensors)), 1 + below(kMaxBlockBytes), 256, false, 0}};
}

std::string Run::device(std::size_t client) const { return fmt::format("{}/gpu{}", prefix_, client % plan.keys); }

checkpoint::CreateCheckpoint Run::next_checkpoint(std::size_t client, std::uint64_t step) const {
  checkpoint::CreateCheckpointRequest request;
  request.training_run_id = fmt::format("{}/run{}", prefix_, client % plan.keys);
  request.step = step;
  request.epoch = static_cast<std::uint32_t>(step / 1'000);
  request.metrics["loss"] = 1.0 / static_cast<double>(step);
  return {std::move(request)};
}

checkpoint::CompleteCheckpoint Run::completion_of(std::string checkpoint_id) {
  return {std::move(checkpoint_id), 1 << 20U, "bench://checkpoint"};
}

void Run::note_errors(std::uint64_t count, const absl::Status& what) {
  errors += count;
  if (first_error.ok()) first_error = what;
}

}  // namespace tensorforge::cli::bench
