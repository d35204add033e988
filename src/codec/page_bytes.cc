#include <string_view>

#include "codec/reply.h"

// The sizes of the FlatBuffers format (https://flatbuffers.dev/flatbuffers_internals.html), each rounded up to the
// worst alignment.
namespace tensorforge::codec {
namespace {

/// A table in a vector: its slot there, its link to a vtable and a vtable of its own (2 bytes for each field and 4),
/// and `fields` of at most 8 bytes each. Without what these point to.
constexpr std::size_t table(std::size_t fields) {
  constexpr std::size_t kSlot = 4, kLink = 4, kVtableHeader = 4, kAlignment = 8;
  return kSlot + kLink + kVtableHeader + kAlignment + fields * (2 + 8);
}

/// Its length, a terminator and up to 3 bytes of alignment.
std::size_t text(std::string_view value) { return 4 + value.size() + 1 + 3; }

std::size_t numbers(std::span<const std::size_t> values) { return 4 + 4 + 8 * values.size(); }

std::size_t optional_text(const std::optional<std::string>& value) { return value ? text(*value) : 0; }

std::size_t metrics(const std::map<std::string, double>& entries) {
  std::size_t bytes = 4;
  for (const auto& [key, value] : entries) bytes += table(2) + text(key);
  return bytes;
}

template <class Model>
std::size_t model_bytes(const Model& model) {
  constexpr std::size_t kVersionBeyondField = 4;  // 12 bytes
  std::size_t bytes = table(11) + kVersionBeyondField + text(model.model_id) + text(model.name) +
                      text(model.framework) + numbers(model.input_shape) + numbers(model.output_shape) +
                      text(model.checksum) + 4;
  for (const auto& [key, value] : model.tags) bytes += table(2) + text(key) + text(value);
  return bytes;
}

}  // namespace

std::size_t page_bytes(const registry::ModelMetadata& model) { return model_bytes(model); }

std::size_t page_bytes(const registry::ModelView& model) { return model_bytes(model); }

std::size_t page_bytes(const registry::ModelVersion&) { return 12; }

std::size_t page_bytes(const gpu_memory::GpuDevice& device) { return table(5) + text(device.device_id); }

std::size_t page_bytes(const gpu_memory::MemoryBlock& block) {
  return table(9) + text(block.block_id) + optional_text(block.tensor_id);
}

std::size_t page_bytes(const checkpoint::CheckpointMeta& meta) {
  return table(11) + text(meta.checkpoint_id) + text(meta.training_run_id) + optional_text(meta.parent_id) +
         metrics(meta.metrics) + text(meta.storage_path);
}

std::size_t page_bytes(const result::LogRecord& record) {
  constexpr std::size_t kSaltBeyondField = 8;  // 16 bytes
  return table(3) + kSaltBeyondField + text(record.record) + text(record.note);
}

}  // namespace tensorforge::codec
