#include "codec/writer.h"

#include <fmt/format.h>

namespace tensorforge::codec {
namespace {

flatbuffers::FlatBufferBuilder& cleared_builder() {
  constexpr std::size_t kFirstBytes = 4096;
  thread_local flatbuffers::FlatBufferBuilder builder(kFirstBytes);
  builder.Clear();
  return builder;
}

}  // namespace

Writer::Writer(std::size_t max_bytes) : builder_(cleared_builder()), max_bytes_(max_bytes) {}

bool Writer::fits(std::size_t bytes) {
  if (bytes <= max_bytes_ && builder_.GetSize() <= max_bytes_ - bytes) return true;
  left_out_ = true;
  return false;
}

Offset<flatbuffers::String> Writer::id(std::string_view value) {
  if (!fits(value.size())) return {};
  return builder_.CreateString(value.data(), value.size());
}

Offset<flatbuffers::String> Writer::text(std::string_view value) {
  if (value.empty()) return {};
  return id(value);
}

Offset<flatbuffers::String> Writer::optional_text(const std::optional<std::string>& value) {
  if (!value) return {};
  return id(*value);
}

Offset<flatbuffers::Vector<std::uint8_t>> Writer::bytes(std::string_view value) {
  if (value.empty() || !fits(value.size())) return {};
  return builder_.CreateVector(reinterpret_cast<const std::uint8_t*>(value.data()), value.size());
}

Offset<flatbuffers::Vector<std::uint8_t>> Writer::optional_bytes(const std::optional<std::string>& value) {
  if (!value || !fits(value->size())) return {};
  return builder_.CreateVector(reinterpret_cast<const std::uint8_t*>(value->data()), value->size());
}

Offset<flatbuffers::Vector<std::uint64_t>> Writer::numbers(std::span<const std::size_t> values) {
  static_assert(sizeof(std::size_t) == sizeof(std::uint64_t));
  if (values.empty() || !fits(values.size() * sizeof(std::uint64_t))) return {};
  return builder_.CreateVector<std::uint64_t>(values.data(), values.size());
}

Result<std::string> Writer::finish(Offset<void> root, const char* identifier) {
  builder_.Finish(root, identifier);
  const Result<std::string_view> bytes = finished();
  if (!bytes.ok()) return bytes.status();
  return std::string(*bytes);
}

absl::Status Writer::append_size_prefixed(Offset<void> root, const char* identifier, std::string& out) {
  builder_.FinishSizePrefixed(root, identifier);
  const Result<std::string_view> bytes = finished();
  if (bytes.ok()) out.append(*bytes);
  return bytes.status();
}

std::uint8_t* Writer::enclose(std::string_view front) {
  builder_.PushFlatBuffer(reinterpret_cast<const std::uint8_t*>(front.data()), front.size());
  return builder_.GetBufferPointer();
}

Result<std::string_view> Writer::finished() const {
  if (left_out_ || builder_.GetSize() > max_bytes_) {
    return absl::InvalidArgumentError(fmt::format("encodes to more than {} bytes", max_bytes_));
  }
  return std::string_view(reinterpret_cast<const char*>(builder_.GetBufferPointer()), builder_.GetSize());
}

}  // namespace tensorforge::codec
