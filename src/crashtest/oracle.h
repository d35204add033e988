#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "crashtest/call_journal.h"
#include "platform/digest.h"
#include "platform/result.h"
#include "service/config.h"
#include "service/state.h"
#include "storage/journal.h"

namespace tensorforge::crashtest {

/// Which promise was broken.
enum class Violation {
  kLost,            ///< what was acknowledged is not in the log
  kDoubled,         ///< a command is in the log twice
  kChangedAnswer,   ///< a change was answered with something else than the log says
  kChangedRecord,   ///< a record is not what its command does at its place
  kLostNote,        ///< the note of a change is not there, or another one
  kForeignRecord,   ///< a record of a command that nobody sent
  kHole,            ///< sequences are not dense, or a command is there in part
  kWrongTree,       ///< the Merkle root or the anchor is not that of the records
  kUnreadable,      ///< a part of the log cannot be read
  kWrongState,      ///< the recovered state is not the one that the log folds to
  kIllegalHistory,  ///< an event breaks a rule of its domain
  kUnexplained,     ///< a read or a refusal that the state at its sequence does not give
  kOrder,           ///< an answer that rests on less than what was told before it was asked for
};
std::string_view to_string(Violation);

struct Finding {
  Violation violation{};
  std::string what;
};

/// A service that has recovered, or one that stopped: its log and what it made of it.
struct Recovered {
  const storage::Log& log;
  Digest state_digest;  ///< of the state that it serves
  service::Config config;
  /// The disk was full at times: refusals for that reason need no other.
  bool disk_was_full{};
  /// digest_of_everything() of the state that it serves; nullopt: only its digest is known.
  std::optional<Digest> everything{};
};

/// Of all that a snapshot of the state would hold: sessions, streams, counters and orders too, which the state's own
/// digest leaves out.
Digest digest_of_everything(const service::State&);

struct Verdict {
  std::vector<Finding> findings;
  std::uint64_t acknowledged{};  ///< changes that were answered, all of them in the log, or else in `findings`
  std::uint64_t lost{};          ///< ... and are not in the log
  std::uint64_t refused{};       ///< commands answered with a refusal
  std::uint64_t read{};          ///< queries answered
  std::uint64_t unknown_kept{}, unknown_dropped{};  ///< commands without an answer, in the log or not
  std::vector<Digest> records;                      ///< of each record, in order: what a later log must begin with

  bool ok() const { return findings.empty(); }
  bool has(Violation) const;
};

/// Holds a log against everything that clients know of it up to `until`: docs/crash_testing.md, "The oracle".
///
/// The log is carried out a second time, command by command, as the clients sent them; each record has to be, byte for
/// byte, what its command does at its place, and each answer what the state at its sequence gives. `before` is what an
/// earlier log of the same service held durably: all of it has to be there.
Verdict check_history(const CallJournal& calls, Moment until, const Recovered& recovered,
                      const std::vector<Digest>& before);

}  // namespace tensorforge::crashtest
