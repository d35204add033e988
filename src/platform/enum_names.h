#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace tensorforge {

/// The names of an enum whose enumerators count from 0 without a gap: serves its to_string and its parse function.
template <class E, std::size_t N>
class EnumNames {
 public:
  constexpr explicit EnumNames(std::array<std::string_view, N> names) : names_(names) {}

  /// "?" for a value that is no enumerator, which only a cast can make.
  constexpr std::string_view to_string(E value) const {
    const auto index = static_cast<std::size_t>(value);
    return index < N ? names_[index] : std::string_view("?");
  }
  constexpr std::optional<E> parse(std::string_view name) const {
    for (std::size_t i = 0; i < N; ++i) {
      if (names_[i] == name) return static_cast<E>(i);
    }
    return std::nullopt;
  }

 private:
  std::array<std::string_view, N> names_;
};

template <class E, class... Names>
constexpr EnumNames<E, sizeof...(Names)> enum_names(Names... names) {
  return EnumNames<E, sizeof...(Names)>({std::string_view(names)...});
}

}  // namespace tensorforge
