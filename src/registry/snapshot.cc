#include "registry/snapshot.h"

#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "platform/names.h"

namespace tensorforge::registry {
namespace {

constexpr std::size_t kPageVersions = 1'000;

absl::Status impossible(std::string_view model_id, const ModelVersion& version, std::string_view what) {
  return absl::DataLossError(fmt::format("model {} {} is {}", names::quoted(model_id), format_version(version), what));
}

}  // namespace

void for_each_version(const State& state, const std::function<void(const ModelView&, const ValidationResult*)>& visit) {
  std::optional<VersionKey> after;
  for (;;) {
    const std::vector<ModelView> page = state.list(after, kPageVersions);
    for (const ModelView& model : page) visit(model, state.validation(model.model_id, model.version));
    if (page.size() < kPageVersions) return;
    after = VersionKey{std::string(page.back().model_id), page.back().version};
  }
}

absl::Status restore(State& state, PackedModel&& packed) {
  const ModelView model = packed.view();
  if (state.find(model.model_id, model.version)) {
    return impossible(model.model_id, model.version, "given twice");
  }
  apply(state, ModelRegistered{std::move(packed)});
  return absl::OkStatus();
}

absl::Status restore(State& state, const ValidationResult& validation) {
  if (!state.find(validation.model_id, validation.version)) {
    return impossible(validation.model_id, validation.version, "validated and not there");
  }
  if (state.validation(validation.model_id, validation.version) != nullptr) {
    return impossible(validation.model_id, validation.version, "validated twice");
  }
  apply(state, ValidationRecorded{validation});
  return absl::OkStatus();
}

absl::Status restore(State& state, std::string_view model_id, Sequence last_change) {
  if (!state.latest(model_id)) {
    return absl::DataLossError(fmt::format("model {} was changed and is not there", names::quoted(model_id)));
  }
  if (state.last_change(model_id) != 0) {
    return absl::DataLossError(fmt::format("the last change of model {} is given twice", names::quoted(model_id)));
  }
  note_change(state, model_id, last_change);
  return absl::OkStatus();
}

}  // namespace tensorforge::registry
