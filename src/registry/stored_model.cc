#include "registry/stored_model.h"

#include <algorithm>
#include <new>

namespace tensorforge::registry {
namespace {

std::uint32_t size_of(std::string_view text) { return static_cast<std::uint32_t>(text.size()); }

char* put(char* at, std::string_view text) { return std::copy(text.begin(), text.end(), at); }

}  // namespace

ModelMetadata copy_of(const ModelView& view) {
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
  for (const auto [key, value] : view.tags) model.tags.emplace_hint(model.tags.end(), key, value);
  return model;
}

StoredVersion::Owner StoredVersion::make(StoredModel& model, const ModelMetadata& metadata) {
  static_assert(alignof(StoredVersion) >= alignof(std::size_t) && sizeof(StoredVersion) % alignof(std::size_t) == 0);
  const std::size_t ranks = metadata.input_shape.size() + metadata.output_shape.size();
  std::size_t bytes = sizeof(StoredVersion) + ranks * sizeof(std::size_t) +
                      2 * metadata.tags.size() * sizeof(std::uint32_t) + metadata.name.size() +
                      metadata.framework.size() + metadata.checksum.size();
  for (const auto& [key, value] : metadata.tags) bytes += key.size() + value.size();

  Owner made(new (::operator new(bytes)) StoredVersion);
  made->model = &model;
  made->version = metadata.version;
  made->state = metadata.state;
  made->size_bytes = metadata.size_bytes;
  made->registered_at = metadata.registered_at;
  made->name_bytes_ = size_of(metadata.name);
  made->framework_bytes_ = size_of(metadata.framework);
  made->checksum_bytes_ = size_of(metadata.checksum);
  made->input_rank_ = static_cast<std::uint32_t>(metadata.input_shape.size());
  made->output_rank_ = static_cast<std::uint32_t>(metadata.output_shape.size());
  made->tags_ = static_cast<std::uint32_t>(metadata.tags.size());

  auto* const shapes = reinterpret_cast<std::size_t*>(made.get() + 1);
  std::copy(metadata.output_shape.begin(), metadata.output_shape.end(),
            std::copy(metadata.input_shape.begin(), metadata.input_shape.end(), shapes));
  auto* size = reinterpret_cast<std::uint32_t*>(shapes + ranks);
  char* text = reinterpret_cast<char*>(size + 2 * metadata.tags.size());
  text = put(put(put(text, metadata.name), metadata.framework), metadata.checksum);
  for (const auto& [key, value] : metadata.tags) {
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

ModelView StoredVersion::view() const {
  const auto* const shapes = reinterpret_cast<const std::size_t*>(this + 1);
  const auto* const sizes = reinterpret_cast<const std::uint32_t*>(shapes + input_rank_ + output_rank_);
  const std::size_t tag_texts = 2 * std::size_t{tags_};
  const char* text = reinterpret_cast<const char*>(sizes + tag_texts);
  const auto next = [&text](std::size_t bytes) { return std::string_view(std::exchange(text, text + bytes), bytes); };
  ModelView view;
  view.model_id = model->id();
  view.name = next(name_bytes_);
  view.version = version;
  view.framework = next(framework_bytes_);
  view.input_shape = {shapes, input_rank_};
  view.output_shape = {shapes + input_rank_, output_rank_};
  view.size_bytes = size_bytes;
  view.checksum = next(checksum_bytes_);
  view.registered_at = registered_at;
  view.state = state;
  view.tags = {{sizes, tag_texts}, text};
  return view;
}

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
