#pragma once

#include <variant>

#include "codec/record.h"
#include "codec/request.h"
#include "platform/prefetch.h"
#include "service/state.h"

namespace tensorforge::service {

/// Asks the memory for what a request that comes next, or an event that is applied soon, is about: of most a model
/// version or a block.
///
/// For one after another of kPrefetchSteps, with no model and no pool gone in between; the request or the event has to
/// stay.
/// Threads: as a look at the state.
class Prefetch {
 public:
  Prefetch() = default;  ///< about nothing
  Prefetch(const State&, const Request&);
  Prefetch(const State&, const Event&);
  void operator()(PrefetchStep step);

 private:
  struct Finder;
  std::variant<std::monostate, registry::Prefetch, gpu_memory::Prefetch> of_;
};

}  // namespace tensorforge::service
