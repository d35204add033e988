#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "registry/registry.h"

namespace tensorforge::registry {

/// The tags of a packed version, by key, where they lie: pairs of views.
class TagsView {
 public:
  using value_type = std::pair<std::string_view, std::string_view>;
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = TagsView::value_type;
    using difference_type = std::ptrdiff_t;
    using pointer = const value_type*;
    using reference = value_type;
    Iterator(const std::uint32_t* sizes, const char* text) : sizes_(sizes), text_(text) {}
    value_type operator*() const { return {{text_, sizes_[0]}, {text_ + sizes_[0], sizes_[1]}}; }
    Iterator& operator++() {
      text_ += sizes_[0] + sizes_[1];
      sizes_ += 2;
      return *this;
    }
    bool operator==(const Iterator& other) const { return sizes_ == other.sizes_; }

   private:
    const std::uint32_t* sizes_;
    const char* text_;
  };

  TagsView() = default;
  /// `sizes`: of each key and its value in turn. `text`: all of them, one behind another.
  TagsView(std::span<const std::uint32_t> sizes, const char* text) : sizes_(sizes), text_(text) {}
  std::size_t size() const { return sizes_.size() / 2; }
  bool empty() const { return sizes_.empty(); }
  Iterator begin() const { return {sizes_.data(), text_}; }
  Iterator end() const { return {sizes_.data() + sizes_.size(), nullptr}; }
  bool operator==(const TagsView& other) const;

 private:
  std::span<const std::uint32_t> sizes_;
  const char* text_{};
};

/// A ModelMetadata read where a State or a PackedModel keeps it.
struct ModelView {
  std::string_view model_id, name;
  ModelVersion version;
  std::string_view framework;
  std::span<const std::size_t> input_shape, output_shape;
  std::uint64_t size_bytes{};
  std::string_view checksum;
  std::uint64_t registered_at{};
  DeploymentState state{};
  TagsView tags;
  bool operator==(const ModelView&) const;
};

/// The fields of a ModelMetadata, with its texts where they came from.
struct ModelParts {
  std::string_view model_id, name;
  ModelVersion version;
  std::string_view framework;
  absl::InlinedVector<std::size_t, 8> input_shape, output_shape;
  std::uint64_t size_bytes{};
  std::string_view checksum;
  std::uint64_t registered_at{};
  DeploymentState state{};
  absl::InlinedVector<std::pair<std::string_view, std::string_view>, 8> tags;  ///< by key, each key once
};

ModelMetadata copy_of(const ModelView&);
ModelMetadata copy_of(const ModelParts&);

}  // namespace tensorforge::registry
