#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "platform/result.h"

namespace tensorforge::storage {

/// A place in the service where its process may end, for the crash tester to end it there: always compiled in, armed
/// by nobody else, and one predictable branch where it is not. docs/crash_testing.md
enum class CrashPoint : std::uint8_t {
  kNone,
  // Opening a directory.
  kLocked,
  kHeadWritten,
  kHeadRenamed,
  kHeadDurable,
  kDatabaseCreated,
  kDatabaseDurable,
  kDatabaseSetAside,
  kVerified,
  kOpened,
  kTailToAnchor,
  kTailAnchored,
  kReplayed,
  kLifeToStart,
  kServing,
  // A change, from its decision to its answer.
  kDecided,
  kApplied,
  kGroupTaken,
  kGroupToSeal,
  kGroupSealed,
  kGroupSynced,
  kGroupReported,
  kHeadToWrite,
  kHeadSlotWritten,
  kHeadSlotSynced,
  kDurableReported,
  kReplyToSend,
  kReplySent,
  // A snapshot.
  kSnapshotWritten,
  kSnapshotSynced,
  kSnapshotRenamed,
  kSnapshotDurable,
  // A clean stop.
  kStopBegun,
  kStopDrained,
  kStopClosed,
};
std::string_view to_string(CrashPoint);
/// All but kNone.
std::span<const CrashPoint> crash_points();

/// Set before there are threads, and never again.
inline CrashPoint armed_crash_point = CrashPoint::kNone;
/// Ends the process by SIGKILL where this is the pass that was armed.
void pass_armed_crash_point();
inline void crash_point(CrashPoint point) {
  if (armed_crash_point == point) [[unlikely]]
    pass_armed_crash_point();
}

/// The variable of the environment that arms: "NAME:N", the Nth pass of the point of that name, or "rocksdb/NAME:N", of
/// a sync point of RocksDB.
inline constexpr const char* kCrashPointVariable = "TENSORFORGE_CRASH_POINT";
/// Arms what `text` says; before there are threads. kInvalidArgument: it names no point, or no count from 1 on.
/// kUnimplemented: this RocksDB was built without sync points.
absl::Status arm_crash_point(std::string_view text);
/// Whether this RocksDB has sync points.
bool has_sync_points();

}  // namespace tensorforge::storage
