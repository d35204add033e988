#pragma once

#include <functional>

#include "crashtest/level.h"

namespace tensorforge::crashtest {

/// A part of `failing`, all of which is said, that `fails` as that does, and of which no fault, no client and no
/// operation can be left out any more. Asks `fails` about some dozens of parts, never twice in a row about the same.
Portion shrink(Portion failing, const std::function<bool(const Portion&)>& fails);

}  // namespace tensorforge::crashtest
