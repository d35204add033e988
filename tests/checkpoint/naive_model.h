#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "checkpoint/checkpoint.h"
#include "platform/digest.h"

namespace tensorforge::checkpoint {

/// The contract's rules once more, read literally: one list of everything in the order of creation, each answer worked
/// out from nothing each time. Slow, and without any index that could be wrong.
class NaiveModel {
 public:
  absl::StatusCode create(const CreateCheckpointRequest& request, std::uint64_t now, std::uint32_t incarnation);
  absl::StatusCode complete(const std::string& id, std::uint64_t size_bytes, const std::string& path);
  absl::StatusCode corrupt(const std::string& id);
  absl::StatusCode remove(const std::string& id);
  void set_policy(const std::optional<std::string>& run, const GcPolicy& policy);
  /// What goes, in the order of deletion.
  std::vector<std::string> gc(std::uint64_t now);

  const std::vector<CheckpointMeta>& all() const { return all_; }
  std::optional<CheckpointMeta> find_restore_point(const RestoreCriteria& criteria) const;
  std::optional<CheckpointMeta> latest(const std::string& run) const;
  std::vector<CheckpointMeta> list(const std::string& run) const;
  std::vector<CheckpointMeta> find_by_metric(const std::string& run, const std::string& key, double threshold,
                                             bool ascending) const;
  std::size_t total_count() const;
  std::uint64_t total_size() const;
  Digest digest() const;
  bool has_live_descendant(const std::string& id) const;

 private:
  std::size_t index_of(const std::string& id) const;  ///< all_.size(): unknown
  bool descends_from(std::size_t descendant, std::size_t ancestor) const;
  bool ancestors_complete(std::size_t index) const;
  bool restorable(std::size_t index) const;
  bool created_later(std::size_t a, std::size_t b) const;  ///< a after b
  bool later(std::size_t a, std::size_t b) const;          ///< the higher step, then the later creation
  bool better(std::size_t a, std::size_t b, const std::string& key, bool ascending) const;
  const GcPolicy& policy_of(const std::string& run) const;
  std::vector<bool> protected_of(const std::string& run) const;
  std::vector<std::string> gc_run(const std::string& run, std::uint64_t now);

  std::vector<CheckpointMeta> all_;
  std::optional<GcPolicy> default_policy_;
  std::map<std::string, GcPolicy> policies_;
};

}  // namespace tensorforge::checkpoint
