#include "registry/version_list.h"

#include <algorithm>
#include <iterator>

#include "registry/stored_model.h"

namespace tensorforge::registry {
namespace {

constexpr std::size_t kMaxRun = 64;

std::uint32_t& count_of(VersionList::Run& run, DeploymentState state) {
  return run.counts.at(static_cast<std::size_t>(state));
}

/// What is looked for is mostly what came last.
std::size_t index_of(const StoredVersion& entry) {
  const auto& versions = entry.run->versions;
  return static_cast<std::size_t>(versions.rend() - std::find(versions.rbegin(), versions.rend(), &entry) - 1);
}

}  // namespace

void VersionList::insert(StoredVersion& entry, const StoredVersion* before) {
  if (runs_.empty()) runs_.emplace_back();
  Place run = before == nullptr ? runs_.begin() : before->run;
  std::size_t index = before == nullptr ? 0 : index_of(*before) + 1;
  if (run->versions.size() == kMaxRun && index == kMaxRun) {
    // Where one comes behind the other, as releases of a model do, what is full stays so.
    const Place next = std::next(run);
    run = next == runs_.end() || next->versions.size() == kMaxRun ? runs_.emplace(next) : next;
    index = 0;
  } else if (run->versions.size() == kMaxRun) {
    const Place second = split(run);
    if (index > run->versions.size()) {
      index -= run->versions.size();
      run = second;
    }
  }
  entry.run = run;
  run->versions.insert(run->versions.begin() + static_cast<std::ptrdiff_t>(index), &entry);
  ++count_of(*run, entry.state);
}

VersionList::Place VersionList::split(Place run) {
  const Place second = runs_.emplace(std::next(run));
  const auto middle = run->versions.begin() + static_cast<std::ptrdiff_t>(run->versions.size() / 2);
  second->versions.assign(middle, run->versions.end());
  run->versions.erase(middle, run->versions.end());
  for (StoredVersion* moved : second->versions) {
    moved->run = second;
    --count_of(*run, moved->state);
    ++count_of(*second, moved->state);
  }
  return second;
}

void VersionList::erase(const StoredVersion& entry) {
  Run& run = *entry.run;
  run.versions.erase(run.versions.begin() + static_cast<std::ptrdiff_t>(index_of(entry)));
  --count_of(run, entry.state);
  if (run.versions.empty()) runs_.erase(entry.run);
}

void VersionList::set_state(StoredVersion& entry, DeploymentState to) {
  --count_of(*entry.run, entry.state);
  entry.state = to;
  ++count_of(*entry.run, to);
}

std::vector<ModelView> VersionList::page(DeploymentState state, const StoredVersion* after, std::size_t limit) const {
  std::vector<ModelView> page;
  auto run = runs_.begin();
  std::size_t index = 0;
  if (after != nullptr) {
    run = after->run;
    index = index_of(*after) + 1;
  }
  for (; run != runs_.end(); ++run, index = 0) {
    if (run->counts.at(static_cast<std::size_t>(state)) == 0) continue;
    for (; index < run->versions.size(); ++index) {
      if (page.size() == limit) return page;
      const StoredVersion& version = *run->versions[index];
      if (version.state == state) page.push_back(version.view());
    }
  }
  return page;
}

}  // namespace tensorforge::registry
