#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <flatbuffers/flatbuffers.h>

#include "absl/status/status.h"
#include "common_generated.h"
#include "platform/entity_id.h"
#include "platform/log_types.h"
#include "registry/registry.h"

namespace tensorforge::codec {

/// Where bytes come from, and so what a fault in them means.
enum class Source {
  Log,       ///< a fault is kDataLoss; what this version does not know is kUnimplemented
  Snapshot,  ///< likewise
  Client,    ///< kInvalidArgument, also for a field that this version does not know: to pass over it would answer
             ///< another question than the one asked
  Server,    ///< kInvalidArgument; fields that this version does not know are passed over
};

/// Reads a buffer that the FlatBuffers verifier has accepted, and checks what that leaves open: members of a union and
/// enumerators that do not exist, absent fields, null elements, text that is not UTF-8, and offsets that share one
/// string or table so that little input decodes to much. Against the last, all that is decoded draws on a budget of as
/// many bytes as the buffer has; what a buffer holds without sharing is never more.
///
/// The first fault sticks: every later read gives an empty value, so that a reading function need not look at ok() but
/// where it would follow a null pointer or loop.
class Reader {
 public:
  /// For enter(): later fields are fine whoever wrote them.
  static constexpr flatbuffers::voffset_t kAnyField = std::numeric_limits<flatbuffers::voffset_t>::max();

  Reader(Source source, std::size_t bytes) : source_(source), budget_(bytes) {}

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  void damaged(std::string_view fault);  ///< no version of ours writes this
  void newer(std::string_view what);     ///< this version does not know `what`

  /// Begins a table: false if it may not be read. `last` is the VT_ of the last field that this version knows; from the
  /// log and from clients, a table with a later one is newer().
  template <class Table>
  bool enter(const Table* table, std::string_view name, flatbuffers::voffset_t last) {
    // Generated tables inherit privately from flatbuffers::Table and add nothing; the library casts likewise.
    return enter_table(reinterpret_cast<const flatbuffers::Table*>(table), name, last);
  }

  // Where it lies in the buffer.
  std::string_view text_view(const flatbuffers::String* value, std::string_view name);  ///< absent: empty
  std::string_view id_view(const flatbuffers::String* value, std::string_view name);  ///< absent is a fault, empty not
  std::string text(const flatbuffers::String* value, std::string_view name) {
    return std::string(text_view(value, name));
  }
  std::string id(const flatbuffers::String* value, std::string_view name) { return std::string(id_view(value, name)); }
  std::optional<std::string> optional_text(const flatbuffers::String* value, std::string_view name);
  std::string bytes(const flatbuffers::Vector<std::uint8_t>* value);
  std::vector<std::size_t> numbers(const flatbuffers::Vector<std::uint64_t>* value) {
    std::vector<std::size_t> out;
    numbers(value, out);
    return out;
  }
  /// Into `out`, a container of std::size_t that is empty.
  void numbers(const flatbuffers::Vector<std::uint64_t>* value, auto& out) {
    if (value == nullptr || value->size() == 0 || !draw(value->size() * sizeof(std::uint64_t))) return;
    // The verifier aligns the length and not what stands behind it, so these may not be read as numbers in place.
    static_assert(std::endian::native == std::endian::little && sizeof(std::size_t) == sizeof(std::uint64_t));
    out.resize(value->size());
    std::memcpy(out.data(), value->Data(), out.size() * sizeof(std::uint64_t));
  }

  /// Gives one zero: -0.0 is equal to the default 0.0 and so is never written, and would not come back.
  double real(double value) { return value + 0.0; }

  template <class E, class Wire>
  E enumerator(Wire value, std::string_view name) {
    const auto number = static_cast<std::uint8_t>(value);
    if (value > Wire::MAX) newer_number(name, number);
    return ok() ? static_cast<E>(number) : E{};
  }

  registry::ModelVersion version(const wire::Version* value, std::string_view name);
  EntityId entity(const wire::EntityId* value, std::string_view name);
  Hash hash(const wire::Hash* value, std::string_view name);
  std::array<std::uint8_t, 16> bytes16(const wire::Bytes16* value, std::string_view name);

  /// Each element through `read_one(const Element*)`.
  template <class Element, class ReadOne>
  auto list(const flatbuffers::Vector<flatbuffers::Offset<Element>>* values, ReadOne read_one) {
    std::vector<decltype(read_one(values->Get(0)))> out;
    if (values == nullptr || !draw(values->size() * sizeof(flatbuffers::uoffset_t))) return out;
    out.reserve(values->size());
    for (flatbuffers::uoffset_t i = 0; i < values->size() && ok(); ++i) out.push_back(read_one(values->Get(i)));
    return out;
  }

  template <class Struct, class ReadOne>
  auto structs(const flatbuffers::Vector<const Struct*>* values, ReadOne read_one) {
    std::vector<decltype(read_one(values->Get(0)))> out;
    if (values == nullptr || !draw(values->size() * sizeof(Struct))) return out;
    out.reserve(values->size());
    // The verifier aligns the length and not what stands behind it, so these may not be read in place.
    for (flatbuffers::uoffset_t i = 0; i < values->size() && ok(); ++i) {
      Struct value;
      std::memcpy(&value, values->Data() + i * sizeof(Struct), sizeof(Struct));
      out.push_back(read_one(&value));
    }
    return out;
  }

  /// A vector of tables with a key and a value, in any order of the keys, as pairs by key into `out`, which is empty;
  /// the keys where they lie in the buffer. A key that is given twice is a fault.
  template <class Element, class ReadValue>
  void entries(const flatbuffers::Vector<flatbuffers::Offset<Element>>* values, std::string_view name, auto& out,
               ReadValue read_value) {
    if (values == nullptr || !draw(values->size() * sizeof(flatbuffers::uoffset_t))) return;
    out.reserve(values->size());
    bool in_order = true;
    for (flatbuffers::uoffset_t i = 0; i < values->size() && ok(); ++i) {
      const Element* element = values->Get(i);
      if (!enter(element, name, Element::VT_VALUE)) break;
      const std::string_view key = id_view(element->key(), name);
      if (!out.empty() && key <= out.back().first) {
        if (key == out.back().first) duplicate(name, key);  // at once: to share one costs who sends it little
        in_order = false;
      }
      out.emplace_back(key, read_value(element));
    }
    if (in_order) return;
    std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto twice =
        std::adjacent_find(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.first == b.first; });
    if (twice != out.end()) duplicate(name, twice->first);
  }

  /// The member of a union that `type` names, through `read_one(const Member*)`, which gives something that `Out` is
  /// made of. `Traits` is generated; `Members` are all of them.
  template <class Out, template <class> class Traits, class... Members, class Type, class ReadOne>
  Out member(Type type, const void* value, std::string_view name, ReadOne read_one) {
    static_assert(sizeof...(Members) == static_cast<std::size_t>(Type::MAX), "name every member of the union");
    static_assert(
        [] {
          std::size_t number = 0;
          return ((static_cast<std::size_t>(Traits<Members>::enum_value) == ++number) && ...);
        }(),
        "name each member once, as the schema has them: the last one's type is not looked at");
    if (type > Type::MAX) {
      newer_number(name, static_cast<std::uint8_t>(type));
    } else if (type == Type::NONE || value == nullptr) {
      damaged(std::string(name) + " is absent");
    } else {
      return read_member<Out, Traits, Members...>(type, value, read_one);
    }
    return Out{};
  }

 private:
  /// `type` is that of one of the members.
  template <class Out, template <class> class Traits, class First, class... Others, class Type, class ReadOne>
  static Out read_member(Type type, const void* value, ReadOne& read_one) {
    if constexpr (sizeof...(Others) > 0) {
      if (type != Traits<First>::enum_value) return read_member<Out, Traits, Others...>(type, value, read_one);
    }
    return Out(read_one(static_cast<const First*>(value)));
  }

  bool enter_table(const flatbuffers::Table* table, std::string_view name, flatbuffers::voffset_t last);
  bool draw(std::size_t bytes);
  void absent(std::string_view name);
  void duplicate(std::string_view name, std::string_view key);
  void newer_number(std::string_view name, std::uint8_t number);

  Source source_;
  std::size_t budget_;
  absl::Status status_;
};

enum class Framing { Plain, SizePrefixed };

/// The verified root of a finished buffer, or why there is none. Copies a buffer that is not aligned to 8 bytes.
template <class Root>
class VerifiedBuffer {
 public:
  VerifiedBuffer(std::span<const std::byte> bytes, const char* identifier, Framing framing, std::size_t max_bytes) {
    if (bytes.size() < kLeastBytes || bytes.size() > max_bytes) return;
    const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
    if (reinterpret_cast<std::uintptr_t>(data) % kAlignment != 0) data = copy(bytes);
    flatbuffers::Verifier verifier(data, bytes.size(), kMaxDepth, kMaxTables);
    if (framing == Framing::SizePrefixed) {
      // Verified as such: alignment counts from the prefix.
      if (verifier.VerifySizePrefixedBuffer<Root>(identifier)) root_ = flatbuffers::GetSizePrefixedRoot<Root>(data);
    } else if (verifier.VerifyBuffer<Root>(identifier)) {
      root_ = flatbuffers::GetRoot<Root>(data);
    }
  }
  VerifiedBuffer(const VerifiedBuffer&) = delete;
  VerifiedBuffer& operator=(const VerifiedBuffer&) = delete;

  const Root* root() const { return root_; }  ///< nullptr: it does not verify

 private:
  static constexpr std::size_t kAlignment = 8;
  static constexpr std::size_t kLeastBytes = 12;  // the verifier reads prefix, root offset and identifier unchecked
  static constexpr flatbuffers::uoffset_t kMaxDepth = 16, kMaxTables = 65'536;

  const std::uint8_t* copy(std::span<const std::byte> bytes) {
    copy_.resize((bytes.size() + kAlignment - 1) / kAlignment);
    std::memcpy(copy_.data(), bytes.data(), bytes.size());
    return reinterpret_cast<const std::uint8_t*>(copy_.data());
  }

  std::vector<std::uint64_t> copy_;
  const Root* root_ = nullptr;
};

}  // namespace tensorforge::codec
