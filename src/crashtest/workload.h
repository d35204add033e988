#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <variant>
#include <vector>

#include "codec/reply.h"
#include "codec/request.h"

namespace tensorforge::crashtest {

/// What clients ask for: a few models, pools and runs, so that requests meet each other, with every command and most
/// queries; some of it refused. Which ids the service made is learnt from its answers.
///
/// Threads: none.
class Workload {
 public:
  /// Commands weigh from 1 record of some 100 bytes to some of many KiB, so that writes cross sectors and pages.
  Command command(std::mt19937_64& random);
  Query query(std::mt19937_64& random);
  void learn(const Reply&);

 private:
  SingleCommand single(std::mt19937_64& random);
  SingleCommand of_registry(std::mt19937_64& random);
  SingleCommand of_pool(std::mt19937_64& random);
  SingleCommand of_checkpoint(std::mt19937_64& random);
  std::string block(std::mt19937_64& random) const;
  std::string checkpoint(std::mt19937_64& random) const;

  bool began_{};
  std::vector<std::string> blocks_, checkpoints_;
};

}  // namespace tensorforge::crashtest
