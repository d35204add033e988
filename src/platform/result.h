#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tensorforge {

/// A value, or the status that says why there is none. A fallible operation without a value returns absl::Status.
///
/// The code tells the caller what to do next: correct the request (kInvalidArgument), release something
/// (kResourceExhausted), change the state first (kFailedPrecondition), read again and redo (kAborted), retry with the
/// same command number (kUnavailable), stop and call a person (kDataLoss).
template <class T>
using Result = absl::StatusOr<T>;

}  // namespace tensorforge
