#pragma once

#include <cstdint>

#include "platform/log_types.h"
#include "storage/merkle.h"

namespace tensorforge::storage {

/// A place between two chunks, with all that is needed to go on from there.
struct LogPoint {
  std::uint64_t chunk_number{};  ///< of the chunk before it; 0: the start of the log
  MerkleFrontier frontier;
  Sequence sequence() const { return frontier.size(); }
};

}  // namespace tensorforge::storage
