#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "platform/result.h"

namespace tensorforge::registry {

/// Semantic Versioning 2.0.0 (https://semver.org), the core without pre-release and build.
struct ModelVersion {
  std::uint32_t major{}, minor{}, patch{};
  friend auto operator<=>(const ModelVersion&, const ModelVersion&) = default;
};

/// The lifecycle. Forward is Registered, Validating, Staging, Canary, Production, Deprecated, Archived, one step at a
/// time; Validating and Staging can go back to Registered, and Canary to Staging. Nothing leaves Archived.
enum class DeploymentState { Registered, Validating, Staging, Canary, Production, Deprecated, Archived };
std::string_view to_string(DeploymentState);
std::optional<DeploymentState> parse_deployment_state(std::string_view name);

struct ModelMetadata {
  std::string model_id, name;
  ModelVersion version;
  std::string framework;
  std::vector<std::size_t> input_shape, output_shape;
  std::uint64_t size_bytes{};
  std::string checksum;
  std::uint64_t registered_at{};  ///< ms since the Unix epoch
  DeploymentState state{DeploymentState::Registered};
  std::map<std::string, std::string> tags;
  bool operator==(const ModelMetadata&) const = default;
};

struct ValidationResult {
  std::string model_id;
  ModelVersion version;
  bool passed{};
  double latency_p50_ms{}, latency_p99_ms{}, accuracy_score{};
  std::vector<std::string> errors;
  bool operator==(const ValidationResult&) const = default;
};

/// -1, 0 or 1: `a` is lower than, the same as, or higher than `b`.
int compare_versions(const ModelVersion& a, const ModelVersion& b);
/// Exactly three decimal numbers joined by `.`: no sign, no space, no leading zero, each at most 4294967295.
std::optional<ModelVersion> parse_version(std::string_view text);
/// The exact inverse of parse_version: "1.2.0".
std::string format_version(const ModelVersion&);

bool can_transition_state(DeploymentState from, DeploymentState to);
/// Where a version in `from` can go; empty for Archived.
std::vector<DeploymentState> allowed_transitions(DeploymentState from);

/// How alike two models' interfaces are, in [0, 1]; exactly 1 when all shapes are equal. The mean of the input score
/// and the output score; a score is the number of indices where both shapes have the same dimension, over the larger
/// rank, and 1 for two empty shapes.
double shape_compatibility(std::span<const std::size_t> input_a, std::span<const std::size_t> output_a,
                           std::span<const std::size_t> input_b, std::span<const std::size_t> output_b);

/// p99 <= `max_latency_ms` and accuracy >= `min_accuracy`. A NaN anywhere makes it false, and so does a measured figure
/// that is infinite; a limit may be infinite ("any latency"). `passed` and `errors` are not read.
bool meets_sla(const ValidationResult&, double max_latency_ms, double min_accuracy);

/// The model id of the best candidate in Production or Canary: the highest accuracy, then the lower p99, then the
/// higher version, then the earlier candidate. A NaN accuracy or p99 disqualifies and an infinite one ranks last.
/// nullopt: none qualifies. `passed` and `errors` are not read.
std::optional<std::string> select_best_model(std::span<const std::pair<ModelMetadata, ValidationResult>> candidates);

/// How urgent it is to go back from `current` to `baseline`: 10 for each error, 50 for each 100 % that p99 grew by, and
/// 100 for each 1.0 of accuracy lost. 0: nothing got worse. Never negative. A term with a NaN in it is 0, and so is
/// the latency's when the baseline's p99 is not positive.
double rollback_priority(const ValidationResult& current, const ValidationResult& baseline);

/// The validation that raw latencies make, p50 and p99 by statistics::percentile. It passed when there are samples and
/// no errors. Without samples, or with a NaN among them, both percentiles are 0 and it did not pass.
ValidationResult validate_latencies(std::string_view model_id, const ModelVersion& version,
                                    std::span<const double> samples_ms, double accuracy,
                                    std::vector<std::string> errors);

/// Model versions, their lifecycle and their latest validations, in memory: the rules of state_machine.h behind a lock.
///
/// Limits: platform/names.h; what passes one is kInvalidArgument and changes nothing, as does a NaN or an infinity.
/// Cost:   O(log versions), and the length of what is returned.
/// Threads: safe to call from any; readers run beside each other. What is returned is a copy.
class ModelRegistry {
 public:
  ModelRegistry();
  ~ModelRegistry();
  ModelRegistry(const ModelRegistry&) = delete;
  ModelRegistry& operator=(const ModelRegistry&) = delete;

  /// kAlreadyExists    this version of this model is known.
  /// kInvalidArgument  a bad id, a limit passed, or a state other than Registered.
  absl::Status register_model(ModelMetadata);
  std::optional<ModelMetadata> get(std::string_view model_id, const ModelVersion&) const;
  /// The highest version, not the most recently registered.
  std::optional<ModelMetadata> get_latest(std::string_view model_id) const;
  std::vector<ModelVersion> list_versions(std::string_view model_id) const;  ///< ascending
  /// kNotFound            the version is unknown.
  /// kFailedPrecondition  the lifecycle does not lead there; the message says where it does.
  absl::Status transition_state(std::string_view model_id, const ModelVersion&, DeploymentState new_state);
  /// Replaces an older result. kNotFound: the version is unknown. kInvalidArgument: as register_model.
  absl::Status record_validation(ValidationResult);
  std::optional<ValidationResult> get_validation(std::string_view model_id, const ModelVersion&) const;
  std::vector<ModelMetadata> find_by_state(DeploymentState) const;  ///< by (model_id, version)
  std::size_t model_count() const;                                  ///< distinct model ids
  std::size_t version_count() const;                                ///< all versions of all models

 private:
  struct Guarded;
  std::unique_ptr<Guarded> guarded_;
};

}  // namespace tensorforge::registry

template <>
struct std::hash<tensorforge::registry::ModelVersion> {
  std::size_t operator()(const tensorforge::registry::ModelVersion& version) const noexcept {
    // Two rounds of Fibonacci hashing: low numbers are the common ones, and each part must reach the high bits.
    constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15U;
    const std::uint64_t high = ((std::uint64_t{version.major} << 32U) | version.minor) * kGolden;
    return static_cast<std::size_t>((high ^ (high >> 32U) ^ version.patch) * kGolden);
  }
};
