#include "registry/stored_model.h"

#include <algorithm>
#include <limits>
#include <new>
#include <tuple>

namespace tensorforge::registry {
namespace {

/// Nobody has more, and who had would be refused for as much.
std::uint32_t counted(std::size_t count) {
  return static_cast<std::uint32_t>(std::min<std::size_t>(count, std::numeric_limits<std::uint32_t>::max()));
}
std::uint32_t size_of(std::string_view text) { return counted(text.size()); }

char* put(char* at, std::string_view text) { return std::copy(text.begin(), text.end(), at); }

ModelMetadata copy(const auto& view) {
  ModelMetadata model;
  model.model_id = view.model_id;
  model.name = view.name;
  model.version = view.version;
  model.framework = view.framework;
  model.input_shape.assign(view.input_shape.begin(), view.input_shape.end());
  model.output_shape.assign(view.output_shape.begin(), view.output_shape.end());
  model.size_bytes = view.size_bytes;
  model.checksum = view.checksum;
  model.registered_at = view.registered_at;
  model.state = view.state;
  for (const auto& [key, value] : view.tags) model.tags.emplace_hint(model.tags.end(), key, value);
  return model;
}

}  // namespace

ModelMetadata copy_of(const ModelView& model) { return copy(model); }
ModelMetadata copy_of(const ModelParts& model) { return copy(model); }

bool TagsView::operator==(const TagsView& other) const {
  return size() == other.size() && std::equal(begin(), end(), other.begin());
}

bool ModelView::operator==(const ModelView& other) const {
  const auto scalars = [](const ModelView& view) {
    return std::tie(view.model_id, view.name, view.version, view.framework, view.size_bytes, view.checksum,
                    view.registered_at, view.state, view.tags);
  };
  return scalars(*this) == scalars(other) && std::ranges::equal(input_shape, other.input_shape) &&
         std::ranges::equal(output_shape, other.output_shape);
}

StoredVersion::Owner StoredVersion::make(const auto& model) {
  static_assert(alignof(StoredVersion) >= alignof(std::size_t) && sizeof(StoredVersion) % alignof(std::size_t) == 0);
  const std::uint32_t input_rank = counted(model.input_shape.size()), output_rank = counted(model.output_shape.size());
  const std::size_t ranks = std::size_t{input_rank} + output_rank;
  std::size_t bytes = sizeof(StoredVersion) + ranks * sizeof(std::size_t) +
                      2 * model.tags.size() * sizeof(std::uint32_t) + model.model_id.size() + model.name.size() +
                      model.framework.size() + model.checksum.size();
  for (const auto& [key, value] : model.tags) bytes += key.size() + value.size();

  Owner made(new (::operator new(bytes)) StoredVersion);
  made->version = model.version;
  made->state = model.state;
  made->size_bytes = model.size_bytes;
  made->registered_at = model.registered_at;
  made->model_id_bytes_ = size_of(model.model_id);
  made->name_bytes_ = size_of(model.name);
  made->framework_bytes_ = size_of(model.framework);
  made->checksum_bytes_ = size_of(model.checksum);
  made->input_rank_ = input_rank;
  made->output_rank_ = output_rank;
  made->tags_ = counted(model.tags.size());

  auto* const shapes = reinterpret_cast<std::size_t*>(made.get() + 1);
  std::copy_n(model.output_shape.begin(), output_rank, std::copy_n(model.input_shape.begin(), input_rank, shapes));
  auto* size = reinterpret_cast<std::uint32_t*>(shapes + ranks);
  char* text = reinterpret_cast<char*>(size + 2 * model.tags.size());
  text = put(put(put(put(text, model.model_id), model.name), model.framework), model.checksum);
  for (const auto& [key, value] : model.tags) {
    *size++ = size_of(key);
    *size++ = size_of(value);
    text = put(put(text, key), value);
  }
  return made;
}

void StoredVersion::Free::operator()(StoredVersion* freed) const {
  freed->~StoredVersion();
  ::operator delete(freed);
}

PackedModel::PackedModel(const ModelMetadata& model) : packed_(StoredVersion::make(model)) {}
PackedModel::PackedModel(const ModelView& model) : packed_(StoredVersion::make(model)) {}
PackedModel::PackedModel(const ModelParts& model) : packed_(StoredVersion::make(model)) {}

PackedModel::PackedModel(const PackedModel& other)
    : packed_(other.packed_ ? StoredVersion::make(other.packed_->view()) : nullptr) {}
PackedModel& PackedModel::operator=(const PackedModel& other) { return *this = PackedModel(other); }

StoredModel::Owner StoredModel::make(std::string_view id) {
  Owner made(new (::operator new(sizeof(StoredModel) + id.size())) StoredModel(id.size()));
  put(reinterpret_cast<char*>(made.get() + 1), id);
  return made;
}

void StoredModel::Free::operator()(StoredModel* freed) const {
  freed->~StoredModel();
  ::operator delete(freed);
}

}  // namespace tensorforge::registry
