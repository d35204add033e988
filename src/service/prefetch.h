#pragma once

#include "codec/record.h"
#include "codec/request.h"
#include "platform/prefetch.h"
#include "service/state.h"

namespace tensorforge::service {

/// For a request that comes next, and for an event that is applied soon: what most are about, a model version or a
/// block.
void prefetch(const State&, PrefetchStep, const Request&);
void prefetch(const State&, PrefetchStep, const Event&);

}  // namespace tensorforge::service
