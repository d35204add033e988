#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "codec/reader.h"
#include "codec/writer.h"
#include "gpu_memory/gpu_memory.h"
#include "registry/model_view.h"
#include "registry/registry.h"
#include "registry/stored_model.h"

namespace tensorforge::codec {

// The tables of schemas/common.fbs, which events, commands and replies share.

Offset<wire::Model> write(Writer& w, const registry::ModelMetadata& model);
Offset<wire::Model> write(Writer& w, const registry::ModelView& model);
Offset<wire::Validation> write(Writer& w, const registry::ValidationResult& validation);
Offset<wire::Device> write(Writer& w, const gpu_memory::GpuDevice& device);
Offset<wire::AllocationRequest> write(Writer& w, const gpu_memory::AllocationRequest& request);
Offset<wire::CheckpointRequest> write(Writer& w, const checkpoint::CreateCheckpointRequest& request);
Offset<wire::GcPolicy> write(Writer& w, const checkpoint::GcPolicy& policy);
Offset<flatbuffers::Vector<Offset<wire::Metric>>> write_metrics(Writer& w,
                                                                const std::map<std::string, double>& metrics);
Offset<flatbuffers::Vector<Offset<flatbuffers::String>>> write_texts(Writer& w, const std::vector<std::string>& texts);

registry::ModelMetadata read(Reader& r, const wire::Model* table);
registry::PackedModel read_packed(Reader& r, const wire::Model* table);
registry::ValidationResult read(Reader& r, const wire::Validation* table);
gpu_memory::GpuDevice read(Reader& r, const wire::Device* table);
gpu_memory::AllocationRequest read(Reader& r, const wire::AllocationRequest* table);
checkpoint::CreateCheckpointRequest read(Reader& r, const wire::CheckpointRequest* table);
checkpoint::GcPolicy read(Reader& r, const wire::GcPolicy* table);
std::map<std::string, double> read_metrics(Reader& r, const flatbuffers::Vector<Offset<wire::Metric>>* metrics);
std::vector<std::string> read_texts(Reader& r, const flatbuffers::Vector<Offset<flatbuffers::String>>* texts,
                                    std::string_view name);

}  // namespace tensorforge::codec
