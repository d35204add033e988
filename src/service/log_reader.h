#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include "codec/reply.h"
#include "codec/request.h"
#include "service/state.h"
#include "storage/journal.h"

namespace tensorforge::service {

/// What has to be read from the log, off the writer's thread.
struct ReadAnswer {  ///< the answer of a command that is in the log, for a retry
  Sequence first{};
  std::uint32_t count{};
};
struct TakeSnapshot {  ///< of the state with these digests; see fold()
  NotedDigest noted;
};
using LogRead = std::variant<ReadAnswer, query::ReadLog, query::ReadHistory, query::VerifyLog, TakeSnapshot>;

/// The most records that one ReadHistory looks at before it answers with what it has and a token to go on from.
inline constexpr std::size_t kHistoryScanRecords = 250'000;

/// Runs one read; VerifyLog takes as long as the log is. The reply lacks its correlation id. A TakeSnapshot is for who
/// has a place for snapshots: here it is refused with kUnimplemented.
///
/// Threads: any; what it reads is durable and does not change.
Reply run_read(const storage::Log&, const LogRead&, std::size_t max_reply_bytes,
               std::size_t history_scan_records = kHistoryScanRecords);

/// Whether `record` belongs to `stream` ("model/resnet", "session/<32 hex>", "principal/alice", "server").
bool is_of_stream(const Record&, std::string_view stream);
/// kInvalidArgument: no name that a stream could have.
absl::Status check_stream_name(std::string_view stream);

}  // namespace tensorforge::service
