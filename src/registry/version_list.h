#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <vector>

#include "registry/model_view.h"
#include "registry/registry.h"

namespace tensorforge::registry {

inline constexpr std::size_t kDeploymentStates = 7;

struct StoredVersion;

/// All versions in the order of lists, cut into runs that count how many of their versions are in each state.
///
/// A version knows its run, and so a change of its state costs two counters and no search, where a sorted index for
/// each state would have to be searched twice.
///
/// Cost: insert, erase and set_state O(1) (a run is at most 64 versions); page() O(its length + versions / 64).
class VersionList {
 public:
  struct Run {
    std::vector<StoredVersion*> versions;  // in order
    std::array<std::uint32_t, kDeploymentStates> counts{};
  };
  using Place = std::list<Run>::iterator;

  /// Behind `before`; nullptr: in front of all.
  void insert(StoredVersion& entry, const StoredVersion* before);
  void erase(const StoredVersion& entry);
  void set_state(StoredVersion& entry, DeploymentState to);
  /// Up to `limit` versions in `state` behind `after`; nullptr: from the start.
  std::vector<ModelView> page(DeploymentState state, const StoredVersion* after, std::size_t limit) const;

 private:
  /// In the middle; gives the second half.
  Place split(Place run);

  std::list<Run> runs_;  // none is empty
};

}  // namespace tensorforge::registry
