#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "platform/names.h"
#include "registry/state_machine.h"

namespace tensorforge::registry {
namespace {

std::string describe(std::string_view model_id, const ModelVersion& version) {
  return fmt::format("model {} {}", names::quoted(model_id), format_version(version));
}

absl::Status unknown(std::string_view model_id, const ModelVersion& version) {
  return absl::NotFoundError(fmt::format("{} is not registered", describe(model_id, version)));
}

absl::Status check_rank(std::string_view what, std::span<const std::size_t> shape) {
  if (shape.size() <= names::kMaxRank) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} has {} dimensions; the limit is {}", what, shape.size(), names::kMaxRank));
}

/// `what`: of which there are `count`, with `bytes` of text together.
absl::Status check_entries(std::string_view what, std::size_t count, std::size_t bytes) {
  if (count > names::kMaxEntries) {
    return absl::InvalidArgumentError(fmt::format("there are {} {}; the limit is {}", count, what, names::kMaxEntries));
  }
  if (bytes > names::kMaxEntriesBytes) {
    return absl::InvalidArgumentError(
        fmt::format("the {} have {} bytes together; the limit is {}", what, bytes, names::kMaxEntriesBytes));
  }
  return absl::OkStatus();
}

absl::Status check_tags(const TagsView& tags) {
  std::size_t bytes = 0;
  for (const auto& [key, value] : tags) {
    if (absl::Status status = names::check_key("tag key", key); !status.ok()) return status;
    if (!names::is_utf8(value)) {
      return absl::InvalidArgumentError(
          fmt::format("tag {}: the value {} is not valid UTF-8", names::quoted(key), names::quoted(value)));
    }
    bytes += key.size() + value.size();
  }
  return check_entries("tags", tags.size(), bytes);
}

absl::Status check_errors(const std::vector<std::string>& errors) {
  std::size_t bytes = 0;
  for (const std::string& error : errors) {
    if (!names::is_utf8(error)) {
      return absl::InvalidArgumentError(fmt::format("error {} is not valid UTF-8", names::quoted(error)));
    }
    bytes += error.size();
  }
  return check_entries("errors", errors.size(), bytes);
}

absl::Status check_finite(std::string_view what, double value) {
  if (std::isfinite(value)) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{} is {}; it must be a finite number", what, value));
}

absl::Status check(const ModelView& model) {
  absl::Status status = names::check_id("model id", model.model_id);
  status.Update(names::check_text("name", model.name, names::kMaxIdBytes));
  status.Update(names::check_text("framework", model.framework, names::kMaxIdBytes));
  status.Update(names::check_text("checksum", model.checksum, names::kMaxIdBytes));
  status.Update(check_rank("input shape", model.input_shape));
  status.Update(check_rank("output shape", model.output_shape));
  status.Update(check_tags(model.tags));
  if (!status.ok() || model.state == DeploymentState::Registered) return status;
  return absl::InvalidArgumentError(fmt::format("{}: cannot be registered as {}; a new version starts in Registered",
                                                describe(model.model_id, model.version), to_string(model.state)));
}

absl::Status check(const ValidationResult& validation) {
  absl::Status status = names::check_id("model id", validation.model_id);
  status.Update(check_finite("latency p50", validation.latency_p50_ms));
  status.Update(check_finite("latency p99", validation.latency_p99_ms));
  status.Update(check_finite("accuracy", validation.accuracy_score));
  status.Update(check_errors(validation.errors));
  return status;
}

std::string list_allowed(DeploymentState from) {
  std::string list;
  for (const DeploymentState to : allowed_transitions(from)) {
    if (!list.empty()) list += ", ";
    list += to_string(to);
  }
  return list.empty() ? "nothing" : list;
}

Result<Events> decide_one(const State& state, RegisterModel&& command) {
  const ModelView model = command.model.view();
  if (absl::Status status = check(model); !status.ok()) return status;
  if (const std::optional<ModelView> known = state.find(model.model_id, model.version)) {
    return absl::AlreadyExistsError(fmt::format("{} is registered already, and in {}; register another version",
                                                describe(model.model_id, model.version), to_string(known->state)));
  }
  Events events;
  events.emplace_back(ModelRegistered{std::move(command.model)});
  return events;
}

Result<Events> decide_one(const State& state, TransitionState&& command) {
  const auto& [model_id, version, to] = command;
  if (absl::Status status = names::check_id("model id", model_id); !status.ok()) return status;
  const std::optional<ModelView> model = state.find(model_id, version);
  if (!model) return unknown(model_id, version);
  const DeploymentState from = model->state;
  if (can_transition_state(from, to)) return Events{StateTransitioned{model_id, version, from, to}};
  return absl::FailedPreconditionError(fmt::format("{}: cannot go from {} to {}; allowed: {}",
                                                   describe(model_id, version), to_string(from), to_string(to),
                                                   list_allowed(from)));
}

Result<Events> decide_one(const State& state, RecordValidation&& command) {
  ValidationResult& validation = command.validation;
  if (absl::Status status = check(validation); !status.ok()) return status;
  if (!state.find(validation.model_id, validation.version)) {
    return unknown(validation.model_id, validation.version);
  }
  Events events;
  events.emplace_back(ValidationRecorded{std::move(validation)});
  return events;
}

}  // namespace

Result<Events> decide(const State& state, Command command) {
  return std::visit([&](auto& one) { return decide_one(state, std::move(one)); }, command);
}

}  // namespace tensorforge::registry
