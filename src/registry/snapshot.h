#pragma once

#include <functional>
#include <string_view>

#include "registry/state_machine.h"

namespace tensorforge::registry {

// What a snapshot holds of this domain, and the way back. A restored state is equal to the one that was saved in
// everything that can be seen of it.

/// Every version in the order of lists, with its validation (nullptr: none).
void for_each_version(const State&, const std::function<void(const ModelView&, const ValidationResult*)>& visit);
/// kDataLoss: the version is there already.
absl::Status restore(State&, PackedModel&&);
/// kDataLoss: its version is not there, or validated already.
absl::Status restore(State&, const ValidationResult&);
/// kDataLoss: the model is not there, or that was said already.
absl::Status restore(State&, std::string_view model_id, Sequence last_change);

}  // namespace tensorforge::registry
