#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "platform/result.h"
#include "service/state.h"

namespace tensorforge::service {

// A State to and from the pages of a snapshot: schemas/snapshot.fbs. Where the pages lie is the caller's business.

using AddPage = std::function<absl::Status(std::string_view page)>;
/// nullopt: that was the last.
using NextPage = std::function<Result<std::optional<std::string_view>>()>;

/// Gives the pages of `state` to `add`, in order. Errors are those of `add`.
absl::Status save_state(const State& state, const AddPage& add);

/// Builds the state that save_state() was given: equal to it in everything that can be seen, the ids to come, the order
/// of evictions and of idle sessions too. Trusts nothing: the digests and counts of what was built are compared with
/// those that the first page says.
///
/// kDataLoss: damaged, or not a whole state. kUnimplemented: a newer version wrote it. Otherwise what `next` says.
Result<State> load_state(const NextPage& next, const SessionLimits& limits = {});

/// What a snapshot's size and the time to load it follow: everything that it has an entry for.
std::uint64_t live_entities(const State&);

}  // namespace tensorforge::service
