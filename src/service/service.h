#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "codec/record.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "service/allocation_rate.h"
#include "service/clock_guard.h"
#include "service/config.h"
#include "service/state.h"
#include "storage/journal.h"

namespace tensorforge::service {

/// Fills its argument with random bytes.
using RandomBytes = std::function<void(std::span<std::uint8_t>)>;

/// Who asks for a command, and under which number.
struct Caller {
  std::string actor;
  ActorSource actor_source{ActorSource::Asserted};
  std::string peer_address;
  SessionId session{};
  Sequence opened_at{};  ///< as the session's Welcome said
};

/// The one writer: runs one command after another against the state and gathers their records into groups.
///
/// A command is decided, encoded, applied and gathered in one call, so the state runs ahead of the disk; what the
/// caller is told may leave only when `reply.sequence` is durable. Nothing here waits, reads a clock or does I/O.
///
/// Threads: one.
class Service {
 public:
  Service(Config config, State state, RandomBytes random, Now now);

  /// What became of a command: either its reply, or where in the log its answer stands (a retry of what is in the log).
  struct Outcome {
    Reply reply;  ///< without a correlation id
    std::optional<Sessions::Entry> in_log;
  };
  /// Runs the command of `request`, or finds that it was run before. What a moved command holds goes into the log.
  Outcome execute(const Caller&, const Request& request, Command command);

  /// Answers what can be read from the state: every query but ReadLog, ReadHistory, VerifyLog, GetStatus and
  /// TakeSnapshot.
  Reply answer(const Query&) const;

  /// What answers this query, without a copy; valid until the next command. nullopt: answer() says why there is none.
  std::optional<registry::ModelView> find(const query::GetModel&) const;

  /// kFailedPrecondition: commands of this session may be in the log, but nobody remembers their answers.
  absl::Status check_session(const SessionId&, Sequence opened_at) const;

  void on_tick(Now now);
  void on_free_bytes(std::uint64_t bytes) { free_bytes_ = bytes; }
  /// Of pages and of commands that go on in pieces, from now on.
  void set_max_reply_bytes(std::size_t bytes) { config_.max_reply_bytes = bytes; }
  /// Notes the digests with what is gathered last; where nothing is, in a group of its own. For a clean stop.
  void note_digest_at_end();
  /// Ends what is gathered here, with the digests noted, so that a snapshot can be taken where it ends: of these. So it
  /// does where nothing is, unless the log is `at_rest` (what was taken may wait, and is not to be joined with more) or
  /// the disk has no room: then no snapshot may be possible there.
  NotedDigest seal(bool at_rest);

  /// Bytes of records and notes that wait for a group to be taken.
  std::size_t gathered_bytes() const { return gathered_bytes_; }
  /// The next group to be made durable; nullopt: nothing is gathered.
  std::optional<storage::Group> take_group();
  /// What an operator should read in the log of the service, once.
  std::vector<std::string> take_warnings();

  const State& state() const { return state_; }
  std::uint64_t refused() const { return refused_; }
  /// Why changes are refused now; empty: they are not.
  std::string changes_refused_because() const;

 private:
  using Events = absl::InlinedVector<Event, 1>;  // of most commands one
  using Records = absl::InlinedVector<Record, 1>;
  /// `reply` is the answer, also of a refusal.
  void run(const Caller&, const Request&, Command&&, Reply& reply);
  /// Whether anything changed. If so, the command is part of the log, and `reply` its answer.
  Result<bool> run_single(const Caller&, const Request&, SingleCommand&&, Reply& reply);
  Result<bool> run_batch(const Caller&, const Request&, Batch&&, Reply& reply);
  absl::Status check_number(const Request&, const Sessions::Session*) const;
  absl::Status check_gates(const Command&) const;
  /// Into `events`, which is empty; what it holds after a refusal means nothing.
  absl::Status decide(SingleCommand&&, const std::optional<Sequence>& if_sequence, Events& events) const;
  absl::Status decide_events(SingleCommand&&, Events& events) const;
  /// One part of a command, behind the others; it lacks its numbers.
  Record& add_record(Records&, const Caller&, const Request&, Event&&) const;
  /// Makes the records of a command part of the log; they lack their number, their sequence among it. `applied`: their
  /// events are already. Changes nothing where it refuses.
  absl::Status commit(const Caller&, const Request&, Records&& records, bool applied, Reply& reply);
  void gather(storage::Note note, std::uint32_t record_count);
  void begin_group();
  storage::Note make_note(const Caller&, const Request&, Records& records);
  void remember(const SessionId&, std::uint64_t number, const Reply&);
  void watch_pool(const std::string& device_id);
  std::uint64_t stamp() const { return std::max(state_.time, now_.wall_ms); }
  Reply reply_with(absl::Status) const;

  Config config_;
  State state_;
  RandomBytes random_;
  Now now_;
  ClockGuard clock_;
  std::uint64_t free_bytes_;
  std::vector<std::string> warnings_;
  std::deque<storage::Group> groups_;
  std::size_t gathered_bytes_{};    ///< in `groups_`
  std::string encoded_;             ///< the records of the command at hand, as they go into a group
  bool last_group_sealed_{};        ///< ends at a noted digest: the next command begins another
  std::size_t last_group_bytes_{};  ///< of the one taken last
  std::uint64_t refused_{};
  absl::flat_hash_map<std::string, AllocationRate> allocation_rates_;

  /// Answers without events, for retries; those forgotten are decided anew, which is right: they changed nothing.
  using Number = std::pair<SessionId, std::uint64_t>;
  absl::flat_hash_map<Number, Reply> remembered_;
  std::deque<Number> remembered_order_;
  std::size_t remembered_bytes_{};
};

}  // namespace tensorforge::service
