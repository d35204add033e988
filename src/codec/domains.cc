#include "codec/domains.h"

#include <string_view>
#include <utility>

#include "absl/container/inlined_vector.h"

namespace tensorforge::codec {
namespace {

template <class Tags>
Offset<flatbuffers::Vector<Offset<wire::Tag>>> write_tags(Writer& w, const Tags& tags) {
  return w.list(tags, [&w](const auto& tag) {
    const auto key = w.id(tag.first);
    const auto value = w.text(tag.second);
    return wire::CreateTag(w.builder(), key, value);
  });
}

template <class Model>
Offset<wire::Model> write_model(Writer& w, const Model& model) {
  const auto model_id = w.id(model.model_id);
  const auto name = w.text(model.name);
  const auto framework = w.text(model.framework);
  const auto input_shape = w.numbers(model.input_shape);
  const auto output_shape = w.numbers(model.output_shape);
  const auto checksum = w.text(model.checksum);
  const auto tags = write_tags(w, model.tags);
  const auto version = to_wire(model.version);
  return wire::CreateModel(w.builder(), model_id, name, &version, framework, input_shape, output_shape,
                           model.size_bytes, checksum, model.registered_at,
                           static_cast<wire::DeploymentState>(model.state), tags);
}

registry::ModelParts read_parts(Reader& r, const wire::Model* table) {
  registry::ModelParts model;
  if (!r.enter(table, "model", wire::Model::VT_TAGS)) return model;
  model.model_id = r.id_view(table->model_id(), "model id");
  model.name = r.text_view(table->name(), "model name");
  model.version = r.version(table->version(), "model version");
  model.framework = r.text_view(table->framework(), "framework");
  r.numbers(table->input_shape(), model.input_shape);
  r.numbers(table->output_shape(), model.output_shape);
  model.size_bytes = table->size_bytes();
  model.checksum = r.text_view(table->checksum(), "checksum");
  model.registered_at = table->registered_at();
  model.state = r.enumerator<registry::DeploymentState>(table->state(), "deployment state");
  r.entries(table->tags(), "tag", model.tags,
            [&r](const wire::Tag* tag) { return r.text_view(tag->value(), "tag value"); });
  return model;
}

}  // namespace

Offset<wire::Model> write(Writer& w, const registry::ModelMetadata& model) { return write_model(w, model); }
Offset<wire::Model> write(Writer& w, const registry::ModelView& model) { return write_model(w, model); }

registry::PackedModel read_packed(Reader& r, const wire::Model* table) {
  return registry::PackedModel(read_parts(r, table));
}
registry::ModelMetadata read(Reader& r, const wire::Model* table) { return copy_of(read_parts(r, table)); }

Offset<wire::Validation> write(Writer& w, const registry::ValidationResult& validation) {
  const auto model_id = w.id(validation.model_id);
  const auto errors = write_texts(w, validation.errors);
  const auto version = to_wire(validation.version);
  return wire::CreateValidation(w.builder(), model_id, &version, validation.passed, validation.latency_p50_ms,
                                validation.latency_p99_ms, validation.accuracy_score, errors);
}

registry::ValidationResult read(Reader& r, const wire::Validation* table) {
  registry::ValidationResult validation;
  if (!r.enter(table, "validation", wire::Validation::VT_ERRORS)) return validation;
  validation.model_id = r.id(table->model_id(), "model id");
  validation.version = r.version(table->version(), "model version");
  validation.passed = table->passed();
  validation.latency_p50_ms = r.real(table->latency_p50_ms());
  validation.latency_p99_ms = r.real(table->latency_p99_ms());
  validation.accuracy_score = r.real(table->accuracy_score());
  validation.errors = read_texts(r, table->errors(), "validation error");
  return validation;
}

Offset<wire::Device> write(Writer& w, const gpu_memory::GpuDevice& device) {
  const auto device_id = w.id(device.device_id);
  const auto [major, minor] = device.compute_capability;
  return wire::CreateDevice(w.builder(), device_id, device.total_memory, device.memory_clock_mhz, major, minor);
}

gpu_memory::GpuDevice read(Reader& r, const wire::Device* table) {
  gpu_memory::GpuDevice device;
  if (!r.enter(table, "device", wire::Device::VT_COMPUTE_MINOR)) return device;
  device.device_id = r.id(table->device_id(), "device id");
  device.total_memory = table->total_memory();
  device.memory_clock_mhz = table->memory_clock_mhz();
  device.compute_capability = {table->compute_major(), table->compute_minor()};
  return device;
}

Offset<wire::AllocationRequest> write(Writer& w, const gpu_memory::AllocationRequest& request) {
  const auto tensor_id = w.id(request.tensor_id);
  return wire::CreateAllocationRequest(w.builder(), tensor_id, request.size, request.alignment, request.pinned,
                                       request.priority);
}

gpu_memory::AllocationRequest read(Reader& r, const wire::AllocationRequest* table) {
  gpu_memory::AllocationRequest request;
  if (!r.enter(table, "allocation request", wire::AllocationRequest::VT_LEASE_UNTIL)) return request;
  // Whoever asks for a lease must not get a block without one.
  if (table->owner() != nullptr || table->lease_until() != 0) r.newer("allocation request has a lease");
  request.tensor_id = r.id(table->tensor_id(), "tensor id");
  request.size = table->size();
  request.alignment = table->alignment();
  request.pinned = table->pinned();
  request.priority = table->priority();
  return request;
}

Offset<wire::CheckpointRequest> write(Writer& w, const checkpoint::CreateCheckpointRequest& request) {
  const auto training_run_id = w.id(request.training_run_id);
  const auto metrics = write_metrics(w, request.metrics);
  return wire::CreateCheckpointRequest(w.builder(), training_run_id, request.epoch, request.step,
                                       static_cast<wire::CheckpointType>(request.checkpoint_type), metrics);
}

checkpoint::CreateCheckpointRequest read(Reader& r, const wire::CheckpointRequest* table) {
  checkpoint::CreateCheckpointRequest request;
  if (!r.enter(table, "checkpoint request", wire::CheckpointRequest::VT_RUN_ATTEMPT)) return request;
  if (table->world() != 0 || table->run_attempt() != 0) r.newer("checkpoint request has a world or run attempt");
  request.training_run_id = r.id(table->training_run_id(), "training run id");
  request.epoch = table->epoch();
  request.step = table->step();
  request.checkpoint_type = r.enumerator<checkpoint::CheckpointType>(table->checkpoint_type(), "checkpoint type");
  request.metrics = read_metrics(r, table->metrics());
  return request;
}

Offset<wire::GcPolicy> write(Writer& w, const checkpoint::GcPolicy& policy) {
  const auto metric_key = w.text(policy.metric_key);
  return wire::CreateGcPolicy(w.builder(), policy.max_checkpoints_per_run, policy.max_age_seconds, policy.keep_best_n,
                              metric_key, policy.metric_ascending);
}

checkpoint::GcPolicy read(Reader& r, const wire::GcPolicy* table) {
  checkpoint::GcPolicy policy;
  if (!r.enter(table, "policy", wire::GcPolicy::VT_METRIC_ASCENDING)) return policy;
  policy.max_checkpoints_per_run = table->max_checkpoints_per_run();
  policy.max_age_seconds = table->max_age_seconds();
  policy.keep_best_n = table->keep_best_n();
  policy.metric_key = r.text(table->metric_key(), "metric key");
  policy.metric_ascending = table->metric_ascending();
  return policy;
}

Offset<flatbuffers::Vector<Offset<wire::Metric>>> write_metrics(Writer& w,
                                                                const std::map<std::string, double>& metrics) {
  return w.list(metrics, [&w](const auto& metric) {
    const auto key = w.id(metric.first);
    return wire::CreateMetric(w.builder(), key, metric.second);
  });
}

std::map<std::string, double> read_metrics(Reader& r, const flatbuffers::Vector<Offset<wire::Metric>>* metrics) {
  absl::InlinedVector<std::pair<std::string_view, double>, 8> entries;
  r.entries(metrics, "metric", entries, [&r](const wire::Metric* metric) { return r.real(metric->value()); });
  return {entries.begin(), entries.end()};
}

Offset<flatbuffers::Vector<Offset<flatbuffers::String>>> write_texts(Writer& w, const std::vector<std::string>& texts) {
  return w.list(texts, [&w](const std::string& text) { return w.id(text); });
}

std::vector<std::string> read_texts(Reader& r, const flatbuffers::Vector<Offset<flatbuffers::String>>* texts,
                                    std::string_view name) {
  return r.list(texts, [&](const flatbuffers::String* text) { return r.id(text, name); });
}

}  // namespace tensorforge::codec
