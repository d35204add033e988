#include "registry/registry.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <mutex>
#include <shared_mutex>
#include <tuple>

#include <fmt/format.h>

#include "platform/enum_names.h"
#include "platform/statistics.h"
#include "platform/workflow.h"
#include "registry/state_machine.h"

namespace tensorforge::registry {
namespace {

constexpr auto kStateNames = enum_names<DeploymentState>("Registered", "Validating", "Staging", "Canary", "Production",
                                                         "Deprecated", "Archived");
constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

const workflow::TransitionTable<DeploymentState>& lifecycle() {
  using enum DeploymentState;
  static const workflow::TransitionTable<DeploymentState> table = {
      {Registered, Validating}, {Validating, Staging},    {Validating, Registered},
      {Staging, Canary},        {Staging, Registered},    {Canary, Production},
      {Canary, Staging},        {Production, Deprecated}, {Deprecated, Archived}};
  return table;
}

// Takes the number at the start of `text`, and what follows it is left there.
std::optional<std::uint32_t> take_number(std::string_view& text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);  // no sign, no space
  if (error != std::errc()) return std::nullopt;
  const auto digits = static_cast<std::size_t>(end - text.data());
  if (digits > 1 && text.front() == '0') return std::nullopt;
  text.remove_prefix(digits);
  return number;
}

bool take_dot(std::string_view& text) {
  if (!text.starts_with('.')) return false;
  text.remove_prefix(1);
  return true;
}

double shape_score(std::span<const std::size_t> a, std::span<const std::size_t> b) {
  const std::size_t rank = std::max(a.size(), b.size());
  if (rank == 0) return 1;
  std::size_t matching = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) matching += a[i] == b[i] ? 1 : 0;
  return static_cast<double>(matching) / static_cast<double>(rank);
}

using Candidate = std::pair<ModelMetadata, ValidationResult>;

bool qualifies(const Candidate& candidate) {
  const auto& [model, validation] = candidate;
  const bool serving = model.state == DeploymentState::Production || model.state == DeploymentState::Canary;
  return serving && !std::isnan(validation.accuracy_score) && !std::isnan(validation.latency_p99_ms);
}

// Higher is better, part by part; what is infinite comes behind what is not.
auto rank_of(const Candidate& candidate) {
  const auto& [model, validation] = candidate;
  const double accuracy = validation.accuracy_score, p99 = validation.latency_p99_ms;
  return std::tuple(std::isfinite(accuracy), accuracy, std::isfinite(p99), -p99, model.version);
}

double or_zero(double term) { return std::isnan(term) ? 0 : std::max(0.0, term); }

std::vector<ModelMetadata> copies(const std::vector<ModelView>& models) {
  std::vector<ModelMetadata> copied;
  copied.reserve(models.size());
  for (const ModelView& model : models) copied.push_back(copy_of(model));
  return copied;
}

std::optional<ModelMetadata> copy(const std::optional<ModelView>& found) {
  return found ? std::optional(copy_of(*found)) : std::nullopt;
}

}  // namespace

std::string_view to_string(DeploymentState state) { return kStateNames.to_string(state); }

std::optional<DeploymentState> parse_deployment_state(std::string_view name) { return kStateNames.parse(name); }

int compare_versions(const ModelVersion& a, const ModelVersion& b) { return a < b ? -1 : (b < a ? 1 : 0); }

std::optional<ModelVersion> parse_version(std::string_view text) {
  const auto major = take_number(text);
  if (!major || !take_dot(text)) return std::nullopt;
  const auto minor = take_number(text);
  if (!minor || !take_dot(text)) return std::nullopt;
  const auto patch = take_number(text);
  if (!patch || !text.empty()) return std::nullopt;
  return ModelVersion{*major, *minor, *patch};
}

std::string format_version(const ModelVersion& version) {
  return fmt::format("{}.{}.{}", version.major, version.minor, version.patch);
}

bool can_transition_state(DeploymentState from, DeploymentState to) { return lifecycle().can_transition(from, to); }

std::vector<DeploymentState> allowed_transitions(DeploymentState from) { return lifecycle().allowed_from(from); }

double shape_compatibility(std::span<const std::size_t> input_a, std::span<const std::size_t> output_a,
                           std::span<const std::size_t> input_b, std::span<const std::size_t> output_b) {
  return (shape_score(input_a, input_b) + shape_score(output_a, output_b)) / 2;
}

bool meets_sla(const ValidationResult& result, double max_latency_ms, double min_accuracy) {
  if (!std::isfinite(result.latency_p99_ms) || !std::isfinite(result.accuracy_score)) return false;
  return result.latency_p99_ms <= max_latency_ms && result.accuracy_score >= min_accuracy;
}

std::optional<std::string> select_best_model(std::span<const Candidate> candidates) {
  const Candidate* best = nullptr;
  for (const Candidate& candidate : candidates) {
    if (!qualifies(candidate)) continue;
    if (best == nullptr || rank_of(candidate) > rank_of(*best)) best = &candidate;
  }
  return best == nullptr ? std::nullopt : std::optional(best->first.model_id);
}

double rollback_priority(const ValidationResult& current, const ValidationResult& baseline) {
  const double base_p99 = baseline.latency_p99_ms;
  const double latency_growth = base_p99 > 0 ? or_zero((current.latency_p99_ms - base_p99) / base_p99) : 0;
  const double accuracy_loss = or_zero(baseline.accuracy_score - current.accuracy_score);
  return 10 * static_cast<double>(current.errors.size()) + 50 * latency_growth + 100 * accuracy_loss;
}

ValidationResult validate_latencies(std::string_view model_id, const ModelVersion& version,
                                    std::span<const double> samples_ms, double accuracy,
                                    std::vector<std::string> errors) {
  const std::optional<double> p50 = statistics::percentile(samples_ms, 50);
  const std::optional<double> p99 = statistics::percentile(samples_ms, 99);
  const bool measured = p50 && p99;
  const bool passed = measured && errors.empty();
  return {std::string(model_id), version,  passed,           measured ? *p50 : 0,
          measured ? *p99 : 0,   accuracy, std::move(errors)};
}

struct ModelRegistry::Guarded {
  mutable std::shared_mutex mutex;
  State state;

  absl::Status execute(Command command) {
    const std::unique_lock lock(mutex);
    Result<Events> events = decide(state, std::move(command));
    if (!events.ok()) return events.status();
    for (Event& event : *events) apply(state, std::move(event));
    return absl::OkStatus();
  }
  template <class F>
  auto read(F of) const {
    const std::shared_lock lock(mutex);
    return of(state);
  }
};

ModelRegistry::ModelRegistry() : guarded_(std::make_unique<Guarded>()) {}
ModelRegistry::~ModelRegistry() = default;

// NOLINTNEXTLINE(performance-unnecessary-value-param): so the contract has it
absl::Status ModelRegistry::register_model(ModelMetadata model) { return guarded_->execute(RegisterModel{model}); }

std::optional<ModelMetadata> ModelRegistry::get(std::string_view model_id, const ModelVersion& version) const {
  return guarded_->read([&](const State& state) { return copy(state.find(model_id, version)); });
}

std::optional<ModelMetadata> ModelRegistry::get_latest(std::string_view model_id) const {
  return guarded_->read([&](const State& state) { return copy(state.latest(model_id)); });
}

std::vector<ModelVersion> ModelRegistry::list_versions(std::string_view model_id) const {
  return guarded_->read([&](const State& state) {
    std::vector<ModelVersion> versions;
    for (const ModelView& model : state.list_versions(model_id, std::nullopt, kNoLimit)) {
      versions.push_back(model.version);
    }
    return versions;
  });
}

absl::Status ModelRegistry::transition_state(std::string_view model_id, const ModelVersion& version,
                                             DeploymentState new_state) {
  return guarded_->execute(TransitionState{std::string(model_id), version, new_state});
}

absl::Status ModelRegistry::record_validation(ValidationResult validation) {
  return guarded_->execute(RecordValidation{std::move(validation)});
}

std::optional<ValidationResult> ModelRegistry::get_validation(std::string_view model_id,
                                                              const ModelVersion& version) const {
  return guarded_->read([&](const State& state) {
    const ValidationResult* found = state.validation(model_id, version);
    return found == nullptr ? std::nullopt : std::optional(*found);
  });
}

std::vector<ModelMetadata> ModelRegistry::find_by_state(DeploymentState state_wanted) const {
  return guarded_->read(
      [&](const State& state) { return copies(state.find_by_state(state_wanted, std::nullopt, kNoLimit)); });
}

std::size_t ModelRegistry::model_count() const {
  return guarded_->read([](const State& state) { return state.model_count(); });
}

std::size_t ModelRegistry::version_count() const {
  return guarded_->read([](const State& state) { return state.version_count(); });
}

}  // namespace tensorforge::registry
