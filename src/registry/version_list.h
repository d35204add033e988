#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "platform/digest.h"
#include "registry/registry.h"

namespace tensorforge::registry {

inline constexpr std::size_t kDeploymentStates = 7;

struct VersionEntry;

/// All versions in the order of lists, cut into runs that count how many of their versions are in each state.
///
/// A version knows its run, and so a change of its state costs two counters and no search, where a sorted index for
/// each state would have to be searched twice.
///
/// Cost: insert, erase and set_state O(1) (a run is at most 128 versions); page() O(its length + versions / 128).
class VersionList {
 public:
  struct Run {
    std::vector<VersionEntry*> versions;  // in order
    std::array<std::uint32_t, kDeploymentStates> counts{};
  };
  using Place = std::list<Run>::iterator;

  /// Behind `before`; nullptr: in front of all.
  void insert(VersionEntry& entry, const VersionEntry* before);
  void erase(const VersionEntry& entry);
  void set_state(VersionEntry& entry, DeploymentState to);
  /// Up to `limit` versions in `state` behind `after`; nullptr: from the start.
  std::vector<const ModelMetadata*> page(DeploymentState state, const VersionEntry* after, std::size_t limit) const;

 private:
  void split(Place run);

  std::list<Run> runs_;  // none is empty
};

/// One version. Its address never changes.
struct VersionEntry {
  ModelMetadata model;
  std::unique_ptr<ValidationResult> validation;  // many versions have none
  Digest digest;                                 // of `model`
  VersionList::Place run;                        // its place in the VersionList
};

}  // namespace tensorforge::registry
