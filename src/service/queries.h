#pragma once

#include "absl/container/flat_hash_map.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "service/config.h"
#include "service/state.h"

namespace tensorforge::service {

/// What a query may read.
struct Reading {
  const State& state;
  const Config& config;
  /// Growth of a pool's bytes in use, bytes per second.
  std::function<double(std::string_view device_id)> allocation_rate;
};

/// Answers every query but ReadLog, ReadHistory, VerifyLog, GetStatus and TakeSnapshot (kInternal: they need more than
/// the state). A list ends at its page size or at max_reply_bytes, whichever is first, and then has a next_page_token.
Reply answer(const Reading&, const Query&);

}  // namespace tensorforge::service
