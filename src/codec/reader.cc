#include "codec/reader.h"

#include <algorithm>

#include <fmt/format.h>

#include "platform/names.h"

namespace tensorforge::codec {
namespace {

// What a buffer spends on each at least, when it shares nothing: a table its link to the vtable, a text its length. A
// list draws its slots beside that.
constexpr std::size_t kTableBytes = 4, kTextBytes = 4;

bool is_stored(Source source) { return source == Source::Log || source == Source::Snapshot; }

std::string_view noun(Source source) {
  if (source == Source::Log) return "record";
  return source == Source::Snapshot ? "snapshot" : "frame";
}

}  // namespace

void Reader::damaged(std::string_view fault) {
  if (!ok()) return;
  const auto code = is_stored(source_) ? absl::StatusCode::kDataLoss : absl::StatusCode::kInvalidArgument;
  status_ = absl::Status(code, fmt::format("{}: {}", noun(source_), fault));
}

void Reader::newer(std::string_view what) {
  if (!ok()) return;
  const auto code = is_stored(source_) ? absl::StatusCode::kUnimplemented : absl::StatusCode::kInvalidArgument;
  status_ = absl::Status(code, fmt::format("{}: {}: written by a newer version", noun(source_), what));
}

void Reader::newer_number(std::string_view name, std::uint8_t number) {
  newer(fmt::format("{} {} is unknown", name, number));
}

void Reader::absent(std::string_view name) { damaged(fmt::format("{} is absent", name)); }

void Reader::duplicate(std::string_view name, std::string_view key) {
  damaged(fmt::format("{} {} is given twice", name, names::quoted(key)));
}

bool Reader::draw(std::size_t bytes) {
  if (!ok()) return false;
  if (bytes > budget_) {
    damaged("decodes to more than it holds; strings and tables must not be shared");
    return false;
  }
  budget_ -= bytes;
  return true;
}

bool Reader::enter_table(const flatbuffers::Table* table, std::string_view name, flatbuffers::voffset_t last) {
  if (table == nullptr) absent(name);
  if (!ok() || !draw(kTableBytes)) return false;
  const auto vtable_bytes = flatbuffers::ReadScalar<flatbuffers::voffset_t>(table->GetVTable());
  if (source_ != Source::Server && vtable_bytes > last + sizeof(flatbuffers::voffset_t)) {
    newer(fmt::format("{} has an unknown field", name));
  }
  return ok();
}

std::string_view Reader::text_view(const flatbuffers::String* value, std::string_view name) {
  if (value == nullptr || !draw(value->size() + kTextBytes)) return {};
  const std::string_view view(value->c_str(), value->size());
  if (!names::is_utf8(view)) {
    damaged(fmt::format("{} {} is not valid UTF-8", name, names::quoted(view)));
    return {};
  }
  return view;
}

std::string_view Reader::id_view(const flatbuffers::String* value, std::string_view name) {
  if (value == nullptr) absent(name);
  return text_view(value, name);
}

std::optional<std::string> Reader::optional_text(const flatbuffers::String* value, std::string_view name) {
  if (value == nullptr) return std::nullopt;
  return text(value, name);
}

std::string Reader::bytes(const flatbuffers::Vector<std::uint8_t>* value) {
  if (value == nullptr || !draw(value->size())) return {};
  return {value->begin(), value->end()};
}

registry::ModelVersion Reader::version(const wire::Version* value, std::string_view name) {
  if (value == nullptr) {
    absent(name);
    return {};
  }
  return {value->major(), value->minor(), value->patch()};
}

EntityId Reader::entity(const wire::EntityId* value, std::string_view name) {
  if (value == nullptr) {
    absent(name);
    return {};
  }
  return {.incarnation = value->incarnation(), .number = value->number()};
}

Hash Reader::hash(const wire::Hash* value, std::string_view name) {
  Hash out{};
  if (value == nullptr) {
    absent(name);
  } else {
    std::copy(value->bytes()->begin(), value->bytes()->end(), out.begin());
  }
  return out;
}

std::array<std::uint8_t, 16> Reader::bytes16(const wire::Bytes16* value, std::string_view name) {
  std::array<std::uint8_t, 16> out{};
  if (value == nullptr) {
    absent(name);
  } else {
    std::copy(value->bytes()->begin(), value->bytes()->end(), out.begin());
  }
  return out;
}

}  // namespace tensorforge::codec
