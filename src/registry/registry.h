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

struct ModelVersion {
  std::uint32_t major{}, minor{}, patch{};
  friend auto operator<=>(const ModelVersion&, const ModelVersion&) = default;
};
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
  std::uint64_t registered_at{};
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
