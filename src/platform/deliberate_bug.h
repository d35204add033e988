#pragma once

#include <cstdint>

#ifdef TENSORFORGE_DELIBERATE_BUGS
#include <array>
#include <optional>
#include <string_view>
#endif

namespace tensorforge {

/// A mistake that a service like this one could make. Each stands in the code at the place where it would be made, and
/// the crash tester has to find it: docs/crash_testing.md, "The tester tested". Built in only by the CMake option
/// TENSORFORGE_DELIBERATE_BUGS, and then made only where the environment asks for it; else the compiler removes it.
enum class DeliberateBug : std::uint8_t {
  kReplyBeforeDurable,
  kRefusalBeforeDurable,  ///< which rests on a change that is not durable
  kReadBeforeDurable,
  kSyncSkipped,
  kFailedSyncRetried,
  kRenameWithoutDirectorySync,
  kNewDirectoryNotSynced,
  kAnchorTooHigh,
  kNoAnchor,
  kTolerateCorruptedTail,  ///< RocksDB's kTolerateCorruptedTailRecords
  kDatabaseCreatedAgain,   ///< RocksDB's create_if_missing, with a HEAD there
  kHalfACommand,           ///< its first event is appended by itself
  kAnswersForgotten,       ///< at a restart
  kSnapshotOfWrongSequence,
  kReplayOffByOne,  ///< behind a snapshot
  kApplyWithClock,
  kLossThrownAway,   ///< instead of being put aside
  kNothingRepaired,  ///< of a database that cannot be opened
};

#ifdef TENSORFORGE_DELIBERATE_BUGS
/// The variable of the environment that has the name of the one to make.
inline constexpr const char* kDeliberateBugVariable = "TENSORFORGE_DELIBERATE_BUG";
inline constexpr std::size_t kDeliberateBugs = 18;
/// All of them.
std::array<DeliberateBug, kDeliberateBugs> deliberate_bugs();
/// "reply-before-durable"
std::string_view to_string(DeliberateBug);
bool deliberate_bug(DeliberateBug);
#else
constexpr bool deliberate_bug(DeliberateBug) { return false; }
#endif

}  // namespace tensorforge
