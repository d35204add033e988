#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "codec/record.h"
#include "platform/log_types.h"
#include "platform/result.h"

namespace tensorforge::service {

struct SessionLimits {
  std::size_t max_sessions{100'000};
  std::size_t max_entries{2'000'000};  ///< of all sessions together
  std::uint64_t window{1'024};         ///< numbers from answered_below on that one session may use
};

/// Which commands of which client are in the log already, so that a retry is answered and not run again.
///
/// Folded from the records alone, in log order, live and at replay alike. A session begins with its first record; its
/// entries go when the client says that it has the answers (answered_below). At either limit the session idle longest
/// in log order goes, and `horizon` rises to its opened_at: an unknown session opened at or before the horizon may have
/// commands in the log that nobody remembers, so it must not run any.
class Sessions {
 public:
  struct Entry {
    std::uint64_t number{};
    Sequence first{};  ///< of the command's records ...
    std::uint32_t count{};
    Sequence last() const { return first + count - 1; }
    bool operator==(const Entry&) const = default;
  };
  struct Session {
    Sequence opened_at{};
    std::uint64_t answered_below{1};
    std::vector<Entry> entries;  ///< by number
    const Entry* find(std::uint64_t number) const;
  };

  Sessions() = default;
  explicit Sessions(const SessionLimits& limits) : limits_(limits) {}

  /// kDataLoss: no record that the service wrote (a session's first one without opened_at, a number used twice).
  absl::Status apply(const Record&);

  const Session* find(const SessionId&) const;  ///< nullptr: unknown; valid until the next apply()
  /// Idle longest first.
  void for_each(const std::function<void(const SessionId&, const Session&)>& visit) const;
  /// Adds what a snapshot holds, idle longest first. kDataLoss: it is there already, or its entries are out of order.
  absl::Status restore(const SessionId&, Session&&);
  void restore_horizon(Sequence horizon) { horizon_ = horizon; }
  Sequence horizon() const { return horizon_; }
  std::size_t size() const { return sessions_.size(); }
  std::size_t entry_count() const { return entry_count_; }
  const SessionLimits& limits() const { return limits_; }

 private:
  struct Slot {
    Session session;
    std::list<SessionId>::iterator place;
  };
  void prune(Session&, std::uint64_t answered_below);
  void evict_idle();

  SessionLimits limits_;
  absl::flat_hash_map<SessionId, Slot> sessions_;
  std::list<SessionId> by_use_;  ///< idle longest first
  std::size_t entry_count_{};
  Sequence horizon_{};
};

}  // namespace tensorforge::service
