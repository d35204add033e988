#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench_run.h"

namespace tensorforge::cli {
class Connection;
}

namespace tensorforge::cli::bench {

/// What one connection has of what is there before the clock starts.
struct Share {
  std::vector<std::string> blocks;
  std::uint64_t steps{};  ///< of its training run, which others may share
};

/// Makes what is to be there before the clock starts, and finds the models that are read. Each connection's share of
/// it. Throws what ends the command.
std::vector<Share> set_up(Connection& service, Run& run);

}  // namespace tensorforge::cli::bench
