#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <flatbuffers/flatbuffers.h>

#include "absl/container/inlined_vector.h"
#include "common_generated.h"
#include "platform/entity_id.h"
#include "platform/log_types.h"
#include "platform/result.h"
#include "registry/registry.h"

namespace tensorforge::codec {

using flatbuffers::Offset;

/// Writes one buffer at a time, into memory that its thread keeps for the next.
///
/// The bytes depend on the order of the calls, and C++ leaves the order in which the arguments of one call are
/// evaluated to the compiler: so every offset is a statement of its own, before the Create function that takes it.
class Writer {
 public:
  /// What would grow the buffer over `max_bytes` is left out, and finished() refuses.
  explicit Writer(std::size_t max_bytes);

  flatbuffers::FlatBufferBuilder& builder() { return builder_; }

  Offset<flatbuffers::String> text(std::string_view value);  ///< absent if empty
  Offset<flatbuffers::String> id(std::string_view value);    ///< always there
  Offset<flatbuffers::String> optional_text(const std::optional<std::string>& value);
  Offset<flatbuffers::Vector<std::uint8_t>> bytes(std::string_view value);  ///< absent if empty
  Offset<flatbuffers::Vector<std::uint8_t>> optional_bytes(const std::optional<std::string>& value);
  Offset<flatbuffers::Vector<std::uint64_t>> numbers(std::span<const std::size_t> values);

  /// A vector of what `write_one` makes of each value; absent if empty.
  template <class Values, class WriteOne>
  auto list(const Values& values, WriteOne write_one) {
    using Element = decltype(write_one(*values.begin()));
    if (values.empty()) return Offset<flatbuffers::Vector<Element>>();
    absl::InlinedVector<Element, 16> offsets;
    offsets.reserve(values.size());
    for (const auto& value : values) offsets.push_back(write_one(value));
    return builder_.CreateVector(offsets.data(), offsets.size());
  }

  Result<std::string> finish(Offset<void> root, const char* identifier);
  /// Behind what `out` holds; where it refuses, `out` is as it was.
  absl::Status append_size_prefixed(Offset<void> root, const char* identifier, std::string& out);

  /// Puts the front of an Envelope, which finished its buffer, before all that is written, and so finishes this. Gives
  /// its first byte, for who changes it in place.
  std::uint8_t* enclose(std::string_view front);
  /// Where that which was written lies until something else is.
  const std::uint8_t* at(auto written) const {
    return reinterpret_cast<const std::uint8_t*>(flatbuffers::GetTemporaryPointer(builder_, written));
  }
  /// What was finished with the builder, or enclosed. Valid until this thread writes another buffer.
  Result<std::string_view> finished() const;

 private:
  bool fits(std::size_t bytes);

  flatbuffers::FlatBufferBuilder& builder_;
  std::size_t max_bytes_;
  bool left_out_ = false;
};

inline wire::Version to_wire(const registry::ModelVersion& v) { return {v.major, v.minor, v.patch}; }
inline wire::EntityId to_wire(const EntityId& id) { return {id.number, id.incarnation}; }
inline wire::Hash to_wire(const Hash& hash) {
  return wire::Hash(flatbuffers::span<const std::uint8_t, 32>(hash.data(), hash.size()));
}
inline wire::Bytes16 to_wire(const std::array<std::uint8_t, 16>& bytes) {
  return wire::Bytes16(flatbuffers::span<const std::uint8_t, 16>(bytes.data(), bytes.size()));
}
/// For the Create functions, which take structs by pointer: absent is nullptr.
template <class T>
const T* pointer_to(const std::optional<T>& value) {
  return value ? &*value : nullptr;
}
template <class T>
auto to_wire(const std::optional<T>& value) -> std::optional<decltype(to_wire(*value))> {
  if (!value) return std::nullopt;
  return to_wire(*value);
}
template <class T>
flatbuffers::Optional<T> to_scalar(const std::optional<T>& value) {
  return value ? flatbuffers::Optional<T>(*value) : flatbuffers::nullopt;
}
template <class T>
std::optional<T> from_scalar(const flatbuffers::Optional<T>& value) {
  if (!value.has_value()) return std::nullopt;
  return *value;
}

template <class>
inline constexpr bool kIsVariant = false;
template <class... Ts>
inline constexpr bool kIsVariant<std::variant<Ts...>> = true;

/// std::visit through variants of variants: `visitor` gets what is in the innermost.
template <class Visitor, class... Ts>
decltype(auto) visit_innermost(Visitor&& visitor, const std::variant<Ts...>& value) {
  return std::visit(
      [&](const auto& inner) -> decltype(auto) {
        if constexpr (kIsVariant<std::remove_cvref_t<decltype(inner)>>) {
          return visit_innermost(visitor, inner);
        } else {
          return visitor(inner);
        }
      },
      value);
}

/// A written member of a union.
template <class Type>
struct Member {
  Type type{};
  Offset<void> offset;
};
template <template <class> class Traits, class Table>
auto as_member(Offset<Table> table) {
  return Member<std::remove_cv_t<decltype(Traits<Table>::enum_value)>>{Traits<Table>::enum_value, table.Union()};
}

}  // namespace tensorforge::codec
