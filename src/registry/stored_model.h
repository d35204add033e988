#pragma once

#include <cassert>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/container/btree_map.h"
#include "platform/digest.h"
#include "platform/log_types.h"
#include "registry/model_view.h"
#include "registry/registry.h"
#include "registry/version_list.h"

namespace tensorforge::registry {

struct StoredModel;

/// One version, in one piece of memory: what it says lies behind it, so that a read of it among millions waits for
/// memory once and not a dozen times. Its address never changes.
struct StoredVersion {
  struct Free {
    void operator()(StoredVersion*) const;
  };
  using Owner = std::unique_ptr<StoredVersion, Free>;

  ModelView view() const;

  ModelVersion version;
  DeploymentState state{};
  std::uint64_t size_bytes{}, registered_at{};

  // In a State, which knows it.
  StoredModel* model{};                          ///< the one it is a version of
  Digest digest;                                 ///< of what it says
  VersionList::Place run;                        ///< its place in the VersionList
  std::unique_ptr<ValidationResult> validation;  ///< many versions have none

 private:
  friend class PackedModel;
  /// Of a ModelMetadata, a ModelView or ModelParts.
  static Owner make(const auto& model);
  StoredVersion() = default;
  ~StoredVersion() = default;

  std::uint32_t model_id_bytes_{}, name_bytes_{}, framework_bytes_{}, checksum_bytes_{};
  std::uint32_t input_rank_{}, output_rank_{}, tags_{};
  // Behind it: input shape, output shape; the sizes of each tag's key and value; model id, name, framework, checksum,
  // tags.
};

inline ModelView StoredVersion::view() const {
  const auto* const shapes = reinterpret_cast<const std::size_t*>(this + 1);
  const auto* const sizes = reinterpret_cast<const std::uint32_t*>(shapes + input_rank_ + output_rank_);
  const std::size_t tag_texts = 2 * std::size_t{tags_};
  const char* text = reinterpret_cast<const char*>(sizes + tag_texts);
  const auto next = [&text](std::size_t bytes) { return std::string_view(std::exchange(text, text + bytes), bytes); };
  ModelView view;
  view.model_id = next(model_id_bytes_);
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

/// A version on its way into a State: packed once, where it comes from, it goes through its command and its event as it
/// is, and apply() takes it over.
///
/// Threads: a value.
class PackedModel {
 public:
  PackedModel() = default;            ///< says nothing
  PackedModel(const ModelMetadata&);  // NOLINT(google-explicit-constructor): the same in another form
  explicit PackedModel(const ModelView&);
  explicit PackedModel(const ModelParts&);

  PackedModel(const PackedModel&);
  PackedModel& operator=(const PackedModel&);
  PackedModel(PackedModel&&) noexcept = default;
  PackedModel& operator=(PackedModel&&) noexcept = default;
  ~PackedModel() = default;

  /// Valid until it is moved from or changed.
  ModelView view() const { return packed_ ? packed_->view() : ModelView{}; }
  bool operator==(const PackedModel& other) const { return view() == other.view(); }

  /// `at`: ms since the Unix epoch. It says something; asserted.
  void set_registered_at(std::uint64_t at) {
    assert(packed_);
    packed_->registered_at = at;
  }
  /// nullptr where it says nothing.
  StoredVersion::Owner take() && { return std::move(packed_); }

 private:
  StoredVersion::Owner packed_;
};

/// A model with its versions. Its address never changes.
struct StoredModel {
  struct Free {
    void operator()(StoredModel*) const;
  };
  using Owner = std::unique_ptr<StoredModel, Free>;
  static Owner make(std::string_view id);

  std::string_view id() const { return {reinterpret_cast<const char*>(this + 1), id_bytes_}; }

  StoredVersion* newest{};  ///< the highest; nullptr: none yet
  Sequence last_change{};   ///< where the log has its last event; 0: not said
  absl::btree_map<ModelVersion, StoredVersion::Owner> versions;

 private:
  explicit StoredModel(std::size_t id_bytes) : id_bytes_(id_bytes) {}
  ~StoredModel() = default;

  std::size_t id_bytes_;
  // Behind it: the id.
};

}  // namespace tensorforge::registry
