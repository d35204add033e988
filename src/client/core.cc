#include "client/core.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <fmt/format.h>

namespace tensorforge::client {
namespace {

constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t kOutputBytes = std::size_t{256} * 1024;

bool is_command(const Request& request) { return std::holds_alternative<Command>(request.body); }

std::string text(const absl::Status& status) { return std::string(status.message()); }

/// Whether a service that refused the hello so would refuse the next one too.
bool is_final(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kInternal:
      return false;
    default:
      return true;
  }
}

}  // namespace

Core::Core(Options options, SessionId session, std::function<std::uint64_t()> random)
    : options_(std::move(options)),
      session_(session),
      request_id_prefix_(format_session(session) + '-'),
      random_(std::move(random)),
      retries_(options_.max_in_flight) {}

void Core::submit(Command command, CommandOptions options, Callback callback, std::uint64_t now) {
  Request request;
  request.if_sequence = options.if_sequence;
  request.reason = std::move(options.reason);
  request.body = std::move(command);
  add(std::move(request), std::move(callback), now);
}

void Core::submit(Query query, Callback callback, std::uint64_t now) {
  Request request;
  request.body = std::move(query);
  add(std::move(request), std::move(callback), now);
}

void Core::add(Request&& request, Callback&& callback, std::uint64_t now) {
  const bool over = phase_ == Phase::Over;
  if (over || pending_.size() - in_flight_ >= options_.max_waiting) {
    absl::Status why =
        over ? last_error_
             : absl::ResourceExhaustedError(fmt::format("{} requests wait to be sent already", options_.max_waiting));
    completions_.push_back({std::move(callback), {std::move(why), {}, {}}});
    return;
  }
  request.correlation_id = next_correlation_++;
  const std::uint64_t id = request.correlation_id;
  pending_.emplace_hint(pending_.end(), id,
                        Pending{std::move(request), std::move(callback), now + options_.request_timeout_ms, false});
}

void Core::on_connected(std::uint64_t /*now*/) {
  if (phase_ != Phase::Connecting) return;
  phase_ = Phase::Greeting;
  Hello hello;
  hello.session = session_;
  hello.opened_at = opened_at_;
  hello.actor = options_.actor;
  hello.seen_sequence = seen_sequence_;
  hello.seen_incarnation = seen_incarnation_;
  hello.client = options_.program;
  Result<std::string> frame = codec::encode_client_frame(hello);
  if (!frame.ok()) return end_session(frame.status());
  output_ = *std::move(frame);
}

void Core::on_bytes(std::span<const std::byte> bytes, std::uint64_t now) {
  input_.append(bytes);
  while (phase_ == Phase::Greeting || phase_ == Phase::Ready) {
    const auto frame = input_.next();
    if (!frame.ok()) {
      drop_ = true;
      return lose_connection(absl::UnavailableError("the service sent a " + text(frame.status())), now);
    }
    if (!frame->has_value()) return;
    on_frame(**frame, now);
  }
}

void Core::on_frame(std::span<const std::byte> frame, std::uint64_t now) {
  Result<ServerMessage> message = codec::decode_server_frame(frame);
  if (!message.ok()) {
    drop_ = true;
    return lose_connection(absl::UnavailableError("the service sent what is no answer: " + text(message.status())),
                           now);
  }
  if (auto* welcome = std::get_if<Welcome>(&*message)) return on_welcome(std::move(*welcome));
  auto& reply = std::get<Reply>(*message);
  if (phase_ == Phase::Greeting) return on_hello_refused(reply.status, now);
  on_reply(std::move(reply), now);
}

void Core::on_welcome(Welcome welcome) {
  if (phase_ != Phase::Greeting) return;
  phase_ = Phase::Ready;
  wanted_ = false;
  send_at_ = 0;
  gone_since_.reset();
  last_error_ = absl::OkStatus();
  opened_at_ = welcome.opened_at;
  saw(welcome.incarnation, welcome.sequence);
  welcome_ = std::move(welcome);
}

void Core::on_hello_refused(const absl::Status& status, std::uint64_t now) {
  if (is_final(status.code())) return end_session(status);
  drop_ = true;
  lose_connection(status, now);
}

void Core::on_reply(Reply reply, std::uint64_t now) {
  const auto pending = pending_.find(reply.correlation_id);
  if (pending == pending_.end() || !pending->second.sent) {
    // Of a request that ended at its deadline; or, with id 0, why the service is about to close the connection.
    if (reply.correlation_id == 0 && !reply.status.ok()) last_error_ = reply.status;
    return;
  }
  saw(reply.incarnation, reply.sequence);
  if (absl::IsUnavailable(reply.status) && retries_.try_push(reply.correlation_id)) {
    last_error_ = reply.status;
    if (send_at_ <= now) send_at_ = now + backoff();
    return;
  }
  failures_ = 0;
  last_error_ = absl::OkStatus();
  const absl::Status status = reply.status;
  finish(pending, status, std::move(reply));
}

void Core::saw(std::uint32_t incarnation, Sequence sequence) {
  seen_sequence_ = incarnation == seen_incarnation_ ? std::max(seen_sequence_, sequence) : sequence;
  seen_incarnation_ = incarnation;
}

void Core::on_disconnected(const absl::Status& why, std::uint64_t now) {
  if (phase_ == Phase::Idle || phase_ == Phase::Over) return;
  lose_connection(why, now);
}

void Core::lose_connection(const absl::Status& why, std::uint64_t now) {
  phase_ = Phase::Idle;
  attempt_at_ = now + backoff();
  if (!gone_since_) gone_since_ = now;
  last_error_ = why;
  input_ = {};
  output_.clear();
  while (retries_.try_pop()) {
  }
  for (const auto& [id, pending] : pending_) {
    // Never more than max_in_flight are sent, so there is room for each.
    if (pending.sent && !retries_.try_push(id)) break;
  }
}

void Core::on_tick(std::uint64_t now) {
  expire(now);
  if ((phase_ == Phase::Connecting || phase_ == Phase::Greeting) && now >= attempt_at_) {
    drop_ = true;
    lose_connection(absl::DeadlineExceededError(
                        fmt::format("no welcome from the service within {} ms", options_.connect_timeout_ms)),
                    now);
  }
}

void Core::expire(std::uint64_t now) {
  // All requests have the same time, so their deadlines rise with their ids.
  while (!pending_.empty() && pending_.begin()->second.deadline <= now) {
    const bool waited = phase_ == Phase::Ready && last_error_.ok();
    give_up(pending_.begin(), fmt::format("no answer within {} ms", options_.request_timeout_ms), waited);
  }
  if (now < reconnect_deadline()) return;
  gone_since_ = now;  // for what is submitted from now on
  while (!pending_.empty()) {
    give_up(pending_.begin(), fmt::format("no connection for {} ms", options_.reconnect_timeout_ms), false);
  }
}

std::uint64_t Core::reconnect_deadline() const {
  if (!gone_since_ || pending_.empty() || options_.reconnect_timeout_ms >= kNever - *gone_since_) return kNever;
  return *gone_since_ + options_.reconnect_timeout_ms;
}

void Core::give_up(PendingMap::iterator position, std::string message, bool waited) {
  const Pending& pending = position->second;
  if (!last_error_.ok()) message += " (" + text(last_error_) + ")";
  if (!pending.sent) {
    message += "; the request was not sent";
  } else if (is_command(pending.request)) {
    message += fmt::format("; whether the command {} was carried out is unknown", request_id(pending));
  }
  finish(position, waited ? absl::DeadlineExceededError(message) : absl::UnavailableError(message), {});
}

void Core::close() { end_session(absl::CancelledError("the client was closed")); }

void Core::end_session(const absl::Status& why) {
  drop_ = phase_ != Phase::Idle && phase_ != Phase::Over;
  phase_ = Phase::Over;
  last_error_ = why;
  output_.clear();
  while (!pending_.empty()) finish(pending_.begin(), why, {});
}

void Core::finish(PendingMap::iterator position, absl::Status status, Reply reply) {
  Pending& pending = position->second;
  std::string id;
  if (pending.sent) {
    if (is_command(pending.request)) id = request_id(pending);
    leave_flight(pending);
  }
  completions_.push_back({std::move(pending.callback), {std::move(status), std::move(reply), std::move(id)}});
  pending_.erase(position);
}

void Core::leave_flight(const Pending& pending) {
  --in_flight_;
  if (is_command(pending.request)) close_number(pending.request.command_number);
}

void Core::close_number(std::uint64_t number) {
  open_numbers_[static_cast<std::size_t>(number - lowest_open_)] = false;
  while (!open_numbers_.empty() && !open_numbers_.front()) {
    open_numbers_.pop_front();
    ++lowest_open_;
  }
}

Core::Action Core::take_action(std::uint64_t now) {
  if (std::exchange(drop_, false)) return Action::Disconnect;
  if (phase_ != Phase::Idle || now < attempt_at_ || (!wanted_ && pending_.empty())) return Action::None;
  phase_ = Phase::Connecting;
  attempt_at_ = now + options_.connect_timeout_ms;
  return Action::Connect;
}

std::string Core::take_output(std::uint64_t now) {
  if (phase_ == Phase::Ready && now >= send_at_) pump();
  return std::exchange(output_, {});
}

void Core::pump() {
  while (output_.size() < kOutputBytes) {
    const auto id = retries_.try_pop();
    if (!id) break;
    const auto pending = pending_.find(*id);
    if (pending != pending_.end()) send(pending);
  }
  while (output_.size() < kOutputBytes && in_flight_ < options_.max_in_flight &&
         open_numbers_.size() < options_.max_in_flight) {
    const auto next = pending_.lower_bound(first_unsent_);
    if (next == pending_.end()) return;
    first_unsent_ = next->first + 1;
    send(next);
  }
}

void Core::send(PendingMap::iterator position) {
  Pending& pending = position->second;
  const bool first_time = !pending.sent;
  if (is_command(pending.request)) {
    if (first_time) pending.request.command_number = lowest_open_ + open_numbers_.size();
    pending.request.answered_below = lowest_open_;
  }
  const absl::Status encoded = codec::append_client_frame(pending.request, output_);
  if (!encoded.ok()) return finish(position, encoded, {});
  if (!first_time) return;
  pending.sent = true;
  ++in_flight_;
  if (is_command(pending.request)) open_numbers_.push_back(true);
}

std::uint64_t Core::next_tick() const {
  std::uint64_t next = pending_.empty() ? kNever : std::min(pending_.begin()->second.deadline, reconnect_deadline());
  switch (phase_) {
    case Phase::Idle:
      if (wanted_ || !pending_.empty()) next = std::min(next, attempt_at_);
      break;
    case Phase::Connecting:
    case Phase::Greeting:
      next = std::min(next, attempt_at_);
      break;
    case Phase::Ready:
      if (retries_.size() > 0) next = std::min(next, send_at_);
      break;
    case Phase::Over:
      break;
  }
  return next;
}

// Half of the doubled time is certain and half is drawn, so that the clients of a restarted service do not come at
// once.
std::uint64_t Core::backoff() {
  const std::uint64_t limit =
      std::min(options_.max_backoff_ms, options_.first_backoff_ms << std::min<std::uint32_t>(failures_++, 16));
  return limit / 2 + random_() % (limit / 2 + 1);
}

std::string Core::request_id(const Pending& pending) const {
  return request_id_prefix_ + std::to_string(pending.request.command_number);
}

}  // namespace tensorforge::client
