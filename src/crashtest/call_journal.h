#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "codec/reply.h"
#include "codec/request.h"
#include "platform/log_types.h"

namespace tensorforge::crashtest {

/// Place in the order in which a tester saw calls begin and end: 1, 2, 3, ...
using Moment = std::uint64_t;
inline constexpr Moment kForever = std::numeric_limits<Moment>::max();

/// What a client asked for, and what it was told.
struct Call {
  SessionId session{};
  std::uint64_t number{};  ///< of a command; 0: a query
  std::string actor;
  RequestBody body;
  std::optional<Sequence> if_sequence;
  std::string reason;

  Moment begun{};             ///< first sent
  Moment answered{kForever};  ///< kForever: the outcome is unknown
  Reply reply;                ///< the service's, if it answered; its correlation id is 0

  bool answered_by(Moment moment) const { return answered != kForever && answered <= moment; }
};

/// What the clients of one service know, in one order: the witness against it.
///
/// Threads: one.
class CallJournal {
 public:
  /// The handle of the call. `begun`, `answered` and `reply` are set here.
  std::size_t begin(Call call) {
    call.begun = ++now_;
    calls_.push_back(std::move(call));
    return calls_.size() - 1;
  }
  /// A command whose session and number came when it was sent, and so after begin().
  void sent_as(std::size_t handle, const SessionId& session, std::uint64_t number) {
    calls_[handle].session = session;
    calls_[handle].number = number;
  }
  void answer(std::size_t handle, Reply reply) {
    reply.correlation_id = 0;
    calls_[handle].answered = ++now_;
    calls_[handle].reply = std::move(reply);
  }

  Moment now() const { return now_; }
  const std::vector<Call>& calls() const { return calls_; }

 private:
  Moment now_{};
  std::vector<Call> calls_;
};

}  // namespace tensorforge::crashtest
