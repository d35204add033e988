#pragma once

#include <functional>

#include "registry/state_machine.h"

namespace tensorforge::registry {

// What a snapshot holds of this domain, and the way back. A restored state is equal to the one that was saved in
// everything that can be seen of it.

/// Every version in the order of lists, with its validation (nullptr: none).
void for_each_version(const State&, const std::function<void(const ModelView&, const ValidationResult*)>& visit);

/// kDataLoss: the version is there already.
absl::Status restore(State&, const ModelMetadata&);
/// kDataLoss: its version is not there, or validated already.
absl::Status restore(State&, const ValidationResult&);

}  // namespace tensorforge::registry
