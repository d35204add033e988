#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "crashtest/simulated_disk.h"

namespace tensorforge::crashtest {

/// A file or a directory, whatever its names: what is read, and what is durable of it.
struct SimulatedDisk::Node {
  struct Extent {
    std::uint64_t offset{};
    std::size_t size{};
  };
  bool is_directory{};
  // Of a file.
  std::string bytes, durable;
  std::vector<Extent> unsynced;  ///< written since the last fsync, in order
  std::vector<Extent> given_up;  ///< of a failed fsync: may have got there, and no later fsync brings it there
  // Of a directory.
  Entries entries, durable_entries;
};

}  // namespace tensorforge::crashtest
