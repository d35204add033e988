#include "protocol/engine.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <iterator>
#include <limits>
#include <span>
#include <utility>

#include "fmt/format.h"
#include "platform/deliberate_bug.h"
#include "platform/names.h"
#include "service/pages.h"
#include "service/prefetch.h"

namespace tensorforge::protocol {
namespace {

constexpr std::uint16_t kProtocol = 1;
constexpr std::uint64_t kTimeoutCheckMs = 100;
constexpr int kExitDone = 0;
constexpr int kExitDiskFailed = 3;
/// What a connection may ask in a turn whoever else asks: a quiet one is served at once.
constexpr std::size_t kFirstFrames = 4;
/// What a connection may always add to a group: about a record.
constexpr std::size_t kLeastGatherShare = 256;
/// So many requests in turn, each sent when the one before was answered, make a connection one that asks alone: with
/// one a flood may begin.
constexpr std::uint32_t kAloneInTurn = 4;
/// For how long the others make room after such a connection has asked.
constexpr std::uint64_t kAskedLatelyMs = 100;
/// What the others gather together beside it: at least so much, ...
constexpr std::size_t kLeastFloodBytes = std::size_t{16} << 10U;
/// ... and what is decided in the time of a write on a slow disk; ...
constexpr std::size_t kFloodBytesPerMicrosecond = 32;
/// ... how many requests are taken in a turn then, ...
constexpr std::size_t kFramesBesideOthers = 64;
/// ... and at least of one connection, so that some of its answers leave in one write.
constexpr std::size_t kFloodFrames = 16;
/// Changes in a group of one of the others that has none waiting, whose turn it is not.
constexpr std::uint32_t kChangesAtOnce = 4;
/// How long a small group is kept for input that is ready: with others who ask without a pause there always is some.
constexpr std::uint64_t kMaxKeptMs = 2;
/// Reads of the log that one connection may have under way.
constexpr std::size_t kMaxReads = 64;
/// Reads of the log that are given out at a time. One thread does them, so more would only lie there.
constexpr std::size_t kMaxReadsBegun = 4;
/// Messages of a connection that are read before it is their turn, and how large such a frame may be.
constexpr std::size_t kMaxAhead = 8;
constexpr std::size_t kMaxAheadFrameBytes = 1'024;
/// What a request in flight and a waiting read take beside their bytes.
constexpr std::size_t kSlotBytes = 64;
constexpr std::size_t kReadBytes = 256;
/// A frame over this is let in when there is room for all of it.
constexpr std::size_t kLargeFrameBytes = codec::FrameReader::kKeptBytes;
/// A page under memory pressure, unless one element is larger.
constexpr std::size_t kPressedReplyBytes = std::size_t{16} << 10U;
/// Actors without a connection whose use of the rate limit is still known.
constexpr std::size_t kMaxGoneActors = 4'096;
/// A peer that takes nothing for so long is closed where there is no room for the others.
constexpr std::uint64_t kSlowMs = 1'000;

/// A buffer that once held more than this is given back when it is empty, so that a burst does not stay in memory.
constexpr std::size_t kKeptBufferBytes = std::size_t{64} << 10U;

void append(const codec::ModelReply& reply, std::string& out) {
  // One model is far smaller than a frame may be.
  codec::append_server_frame(reply, out).IgnoreError();
}

void append(const Welcome& welcome, std::string& out) { out += codec::encode_server_frame(welcome).value(); }

void append(const Reply& reply, std::string& out) {
  if (codec::append_server_frame(reply, out).ok()) return;
  Reply refusal;
  refusal.correlation_id = reply.correlation_id;
  refusal.sequence = reply.sequence;
  refusal.incarnation = reply.incarnation;
  refusal.status = absl::ResourceExhaustedError("the answer does not fit into a frame: ask for a smaller page");
  codec::append_server_frame(refusal, out).IgnoreError();  // a few bytes
}

void empty(std::string& buffer) {
  if (buffer.capacity() > kKeptBufferBytes) {
    std::string().swap(buffer);
  } else {
    buffer.clear();
  }
}

absl::Status with_context(std::string_view context, const absl::Status& status) {
  return {status.code(), fmt::format("{}: {}", context, std::string(status.message()))};
}

}  // namespace

struct Engine::Connection {
  /// The place of one answer in the order of the requests.
  struct Slot {
    std::uint64_t correlation_id{};
    Sequence needs{};     ///< what must be durable before it leaves
    std::size_t bytes{};  ///< of its frame in `held`; 0 while a read is under way
  };
  enum class Phase { Greeting, Open, Closing };

  ConnectionId id{};
  Phase phase{Phase::Greeting};
  service::Caller caller;  ///< from the hello
  bool may_change{};       ///< it has a session
  ActorRate* rate{};       ///< of its actor; nullptr: there is no limit, or no hello yet

  codec::FrameReader input;
  bool input_waits{};  ///< there may be a whole frame in `input`
  bool has_turn{};     ///< now, or is in arrived_ or turns_
  bool wants_reading{true};
  bool reads_socket{true};  ///< as the last effects said

  std::deque<Slot> slots;
  std::uint64_t first_slot{};  ///< number of slots.front()
  std::string held;            ///< the frames of `slots`, one behind the other, from held_begin on
  std::size_t held_begin{};
  std::size_t reads{};               ///< under way, of those without a slot
  std::deque<ReadId> waiting_reads;  ///< to begin, in order
  std::string output;                ///< for the next effects, or ...
  bool output_given{};               ///< ... what the last ones gave out
  std::size_t unsent{};

  // Boot clock.
  std::uint64_t connected_at{}, last_request{}, last_sent{};
  std::optional<std::uint64_t> half_frame_since;

  std::uint32_t alone_in_turn{};  ///< requests without another in flight, up to kAloneInTurn
  bool waits_its_turn{};          ///< it was turned away, and has requests left since

  std::vector<Incoming> ahead;     ///< out of `input`, and not taken yet
  std::size_t buffered{};          ///< as last accounted for
  std::size_t large_frame{};       ///< room that its frame at hand was given
  bool wants_room{};               ///< it is in room_wanted_
  std::uint64_t gathered_group{};  ///< the group that gathered_bytes is of
  std::size_t gathered_bytes{};
  std::uint32_t gathered_changes{};

  bool has_input() const { return !ahead.empty() || input.in_frame(); }
  std::size_t requests_in_flight() const { return slots.size() + reads; }
  std::size_t held_bytes() const { return held.size() - held_begin; }
  std::size_t holds() const {
    return held_bytes() + unsent + slots.size() * kSlotBytes + waiting_reads.size() * kReadBytes;
  }
};

Engine::Engine(Config config, service::Config service_config, Identity identity, service::State state,
               const storage::TreeHead& head, service::RandomBytes random, service::Now now)
    : config_(config),
      max_reply_bytes_(service_config.max_reply_bytes),
      identity_(std::move(identity)),
      service_(service_config, std::move(state), std::move(random), now),
      now_(now),
      frames_left_(config.max_frames_per_turn),
      gather_share_(config.max_gathered_bytes),
      durable_(head.sequence) {
  told_ = boundary();
  told_.head = head;
}

Engine::~Engine() = default;

Engine::Connection* Engine::find(ConnectionId id) {
  const auto found = connection_of_id_.find(id);
  return found == connection_of_id_.end() ? nullptr : found->second;
}

// ---- connections

void Engine::on_connect(ConnectionId id, std::string peer_address) {
  if (ending_ || connections_.size() >= config_.max_connections) {
    effects_.closes.push_back(id);
    return;
  }
  auto connection = std::make_unique<Connection>();
  connection->id = id;
  connection->caller.peer_address = std::move(peer_address);
  connection->connected_at = connection->last_request = connection->last_sent = now_.boot_ms;
  connection_of_id_.emplace(id, connection.get());
  connections_.emplace(id, std::move(connection));
}

void Engine::on_bytes(ConnectionId id, std::span<const std::byte> bytes) {
  Connection* connection = find(id);
  if (connection == nullptr || connection->phase == Connection::Phase::Closing) return;
  connection->input.append(bytes);
  connection->input_waits = true;
  if (!std::exchange(connection->has_turn, true)) arrived_.push_back(id);
}

void Engine::on_sent(ConnectionId id, std::size_t bytes) {
  Connection* connection = find(id);
  if (connection == nullptr) return;
  connection->unsent -= std::min(bytes, connection->unsent);
  connection->last_sent = now_.boot_ms;
  release(*connection);
}

void Engine::on_disconnect(ConnectionId id) {
  take_arrived();  // what it asked for goes on
  Connection* connection = find(id);
  if (connection == nullptr) return;
  close(*connection);
  effects_.closes.pop_back();  // it is closed
}

void Engine::close(Connection& connection) {
  const ConnectionId id = connection.id;
  const auto session = sessions_.find(connection.caller.session);
  if (session != sessions_.end() && session->second == id) sessions_.erase(session);
  std::erase_if(reads_, [&](const auto& read) { return read.second.connection == id; });
  leave_actor(connection);
  buffered_ -= connection.buffered;
  large_frames_ -= connection.large_frame;
  connection_of_id_.erase(id);
  connections_.erase(id);
  grant_room();
  effects_.closes.push_back(id);
}

void Engine::fail(Connection& connection, absl::Status why) {
  connection.phase = Connection::Phase::Closing;
  connection.input_waits = false;
  std::erase_if(reads_, [&](const auto& read) { return read.second.connection == connection.id && !read.second.slot; });
  connection.reads = 0;
  leave_room(connection);
  answer(connection, 0, refusal(std::move(why)));
}

// ---- requests

bool Engine::may_take_requests(const Connection& connection) const {
  return connection.phase != Connection::Phase::Closing && (!ending_ || ending_->exit_code != kExitDone) &&
         connection.requests_in_flight() < config_.max_requests_in_flight &&
         connection.held_bytes() + connection.unsent < config_.max_output_bytes && may_hold_more(connection) &&
         may_gather_more(connection);
}

// ---- backpressure: what all connections hold is bounded, and who holds the most waits first

void Engine::account(Connection& connection) {
  const std::size_t holds = connection.holds();
  buffered_ += holds - connection.buffered;
  connection.buffered = holds;
}

bool Engine::may_hold_more(const Connection& connection) const {
  if (!under_pressure()) return true;
  const std::size_t share = config_.max_buffered_bytes / 8 / connections_.size();
  return buffered_ < config_.max_buffered_bytes && connection.buffered <= share;
}

bool Engine::may_gather_more(const Connection& connection) const {
  if (gathered_too_much()) return false;
  const bool has_gathered = connection.gathered_group == group_number_;
  if (serves_who_waits() && !asks_alone(connection)) {
    if (!holds_floods() && flood_gathered_ < max_flood_bytes()) return true;
    return !connection.waits_its_turn && flood_gathered_ < 2 * max_flood_bytes() &&
           !(has_gathered && connection.gathered_changes >= kChangesAtOnce);
  }
  const std::size_t own = has_gathered ? connection.gathered_bytes : 0;
  if (own == 0) return true;
  return own < (is_crowded() ? fair_share() : std::max(gather_share_, fair_share()));
}

/// What a connection may add to a group however many want to. All of these make a half, which is what the other half
/// leaves: so what it sent at once is not cut for others who would have had room as well. Its answers leave in one
/// write then, and so do its next requests.
std::size_t Engine::fair_share() const { return config_.max_gathered_bytes / 2 / connections_.size(); }

/// Whether the group that gathers is half full.
bool Engine::is_crowded() const { return gathered_bytes() >= config_.max_gathered_bytes / 2; }

/// What the others gather beside one that asks alone. With those that are let in at once it is up to twice that, a
/// quarter of what all may gather: so there is room for the one.
std::size_t Engine::max_flood_bytes() const {
  const std::size_t decided_meanwhile = kFloodBytesPerMicrosecond * static_cast<std::size_t>(group_commit_us_);
  const std::size_t most = std::max<std::size_t>(config_.max_gathered_bytes / 8, 1);
  return std::min(std::max(kLeastFloodBytes, decided_meanwhile), most);
}

/// Whether those who keep several requests in flight wait until one who asks alone is served: its group is written
/// sooner with less to do beside it. Once they have waited they go on until a group has something of theirs.
bool Engine::holds_floods() const {
  return !floods_due_ && (alone_gathered_ || std::ranges::any_of(given_, &Given::holds_floods));
}

/// The requests of a turn, likewise: what arrives meanwhile waits for its end.
std::size_t Engine::max_frames() const {
  return serves_who_waits() ? std::min(config_.max_frames_per_turn, kFramesBesideOthers) : config_.max_frames_per_turn;
}

bool Engine::serves_who_waits() const { return now_.boot_ms < alone_asked_ + kAskedLatelyMs; }

/// Whether it waits for each of its answers before it asks again.
bool Engine::asks_alone(const Connection& connection) { return connection.alone_in_turn == kAloneInTurn; }

/// `has_more`: requests are in flight or have arrived beside the one that is taken now.
void Engine::note_manner(Connection& connection, bool has_more) {
  connection.alone_in_turn = has_more ? 0 : std::min(connection.alone_in_turn + 1, kAloneInTurn);
  if (asks_alone(connection)) alone_asked_ = now_.boot_ms;
}

/// What the request that was taken last has added to the group.
void Engine::note_gathered(Connection& connection, std::size_t bytes) {
  if (std::exchange(connection.gathered_group, group_number_) != group_number_) {
    connection.gathered_bytes = 0;
    connection.gathered_changes = 0;
  }
  connection.gathered_bytes += bytes;
  if (bytes > 0) ++connection.gathered_changes;
  if (asks_alone(connection)) {
    alone_gathered_ = alone_gathered_ || bytes > 0;
    return;
  }
  flood_gathered_ += bytes;
  if (!connection.waits_its_turn) return;
  last_turn_of_ = connection.id;
  waiting_gathered_ = waiting_gathered_ || bytes > 0;
}

/// The share is found as TCP finds its rate: smaller at once where groups get half full, larger by little where they do
/// not and somebody waits. So those who flood get equal parts of a group, whatever part the others leave them.
void Engine::adapt_gather_share() {
  if (is_crowded()) {
    gather_share_ = std::max(gather_share_ / 2, kLeastGatherShare);
  } else if (turned_away_ && !serves_who_waits()) {
    gather_share_ = std::min(gather_share_ + gather_share_ / 8, config_.max_gathered_bytes);
  }
}

/// The disk has begun what gathered so far, up to a noted digest: what follows is another group.
void Engine::begin_gathering() {
  if (!group_began_) adapt_gather_share();  // once in a turn
  ++group_number_;
  flood_gathered_ = 0;
  const auto sealed = std::find_if(given_.begin(), given_.end(), [](const Given& given) { return given.sealed; });
  const auto waiting = sealed == given_.end() ? sealed : std::next(sealed);
  submitted_bytes_ = 0;
  for (auto given = waiting; given != given_.end(); ++given) submitted_bytes_ += given->bytes;
  group_began_ = true;
}

std::size_t Engine::max_reply_bytes() const {
  return under_pressure() ? std::min(max_reply_bytes_, kPressedReplyBytes) : max_reply_bytes_;
}

bool Engine::may_read_log(const Connection& connection) const {
  const std::size_t waits = connection.held_bytes() + connection.unsent;
  return under_pressure() ? waits == 0 : waits < config_.max_output_bytes;
}

/// How hard it is to be served: where that becomes easier, those who waited for it have to be asked.
std::size_t Engine::pressure_level() const {
  const std::size_t gathered = gathered_bytes();
  std::size_t level = buffered_ >= config_.max_buffered_bytes ? 2 : under_pressure() ? 1 : 0;
  if (gathered >= config_.max_gathered_bytes / 2) ++level;
  if (gathered >= config_.max_gathered_bytes) ++level;
  return level;
}

/// Makes room where it is used up by answers that nobody fetches: who holds the most of them goes.
void Engine::close_who_takes_nothing() {
  while (buffered_ >= config_.max_buffered_bytes) {
    Connection* worst = nullptr;
    for (const auto& [id, connection] : connections_) {
      const bool slow = connection->unsent > 0 && now_.boot_ms >= connection->last_sent + kSlowMs;
      if (slow && (worst == nullptr || connection->unsent > worst->unsent)) worst = connection.get();
    }
    if (worst == nullptr) return;
    close(*worst);
  }
}

void Engine::count_actor(Connection& connection) {
  if (config_.rate_limit_requests == 0) return;
  const auto [rate, is_new] =
      rates_.try_emplace(connection.caller.actor, config_.rate_limit_window_ms, config_.rate_limit_requests);
  connection.rate = &rate->second;
  ++connection.rate->connections;
}

/// Whoever connects again does not begin anew, unless a whole window has passed.
void Engine::leave_actor(const Connection& connection) {
  if (connection.rate == nullptr || --connection.rate->connections > 0) return;
  gone_actors_.push_back({connection.caller.actor, now_.boot_ms});
  while (!gone_actors_.empty() && (gone_actors_.size() > kMaxGoneActors ||
                                   now_.boot_ms >= gone_actors_.front().at + config_.rate_limit_window_ms)) {
    // Its last connection may have gone again since: then it stands further behind, or is taken off a little early.
    const auto rate = rates_.find(gone_actors_.front().actor);
    if (rate != rates_.end() && rate->second.connections == 0) rates_.erase(rate);
    gone_actors_.pop_front();
  }
}

/// kResourceExhausted: the actor asks too often. A retry of what is in the log is answered whatever the rate is.
absl::Status Engine::check_rate(const Connection& connection, const Request& request) {
  if (connection.rate == nullptr) return absl::OkStatus();
  if (connection.may_change && std::holds_alternative<Command>(request.body)) {
    const service::Sessions::Session* session = service_.state().sessions.find(connection.caller.session);
    if (session != nullptr && session->find(request.command_number) != nullptr) return absl::OkStatus();
  }
  if (connection.rate->window.admit(now_.boot_ms)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("actor {}: over {} requests in {} ms: nothing was done, ask again in {} ms",
                  names::quoted(connection.caller.actor), config_.rate_limit_requests, config_.rate_limit_window_ms,
                  connection.rate->window.wait_ms()));
}

/// Whether the frame at hand has to wait until others are whole.
bool Engine::waits_for_room(Connection& connection) {
  const std::size_t bytes = connection.input.frame_bytes();
  if (bytes <= kLargeFrameBytes || bytes > codec::kMaxFrameBytes || connection.large_frame > 0) return false;
  if (connection.wants_room) return true;
  if (room_wanted_.empty() && take_room(connection, bytes)) return false;
  connection.wants_room = true;
  room_wanted_.push_back(connection.id);
  return true;
}

bool Engine::take_room(Connection& connection, std::size_t bytes) {
  if (large_frames_ > 0 && large_frames_ + bytes > config_.max_buffered_bytes / 4) return false;
  connection.large_frame = bytes;
  large_frames_ += bytes;
  return true;
}

/// Its frame is whole, or will never be.
void Engine::leave_room(Connection& connection) {
  connection.wants_room = false;
  if (connection.large_frame == 0) return;
  large_frames_ -= std::exchange(connection.large_frame, 0);
  grant_room();
}

void Engine::grant_room() {
  while (!room_wanted_.empty()) {
    Connection* next = find(room_wanted_.front());
    if (next != nullptr && next->wants_room) {
      if (!take_room(*next, next->input.frame_bytes())) return;
      next->wants_room = false;
      next->half_frame_since = now_.boot_ms;
      reconsider(*next);
    }
    room_wanted_.pop_front();
  }
}

std::size_t Engine::share_of(std::size_t frames, std::size_t least) const {
  const std::size_t most = config_.frames_per_turn;
  return std::clamp(frames, std::min(least, most), most);
}

/// A batch of a hundred small commands is many times as large as its frame.
bool Engine::is_batch(const Incoming& message) {
  const auto* request = message.content.ok() ? std::get_if<Request>(&*message.content) : nullptr;
  const auto* command = request == nullptr ? nullptr : std::get_if<Command>(&request->body);
  return command != nullptr && std::holds_alternative<Batch>(*command);
}

/// What arrived since the last effects, in order. Most send one request and wait, so the first ones of several
/// connections are decoded together.
void Engine::take_arrived() {
  const std::vector<ConnectionId> arrived = std::exchange(arrived_, {});
  for (std::span<const ConnectionId> left = arrived; !left.empty();) {
    const auto together = left.first(std::min(left.size(), kMaxAhead));
    left = left.subspan(together.size());
    if (together.size() > 1 && !under_pressure()) decode_first_frames(together);
    for (const ConnectionId id : together) {
      Connection* connection = find(id);
      if (connection != nullptr) work(*connection, share_of(frames_left_, kFirstFrames));
    }
  }
}

/// So that the memory brings what the later ones are about while the first is answered. Large ones are not kept
/// decoded.
void Engine::decode_first_frames(std::span<const ConnectionId> of) {
  std::array<const Incoming*, kMaxAhead> first{};
  std::size_t count = 0;
  for (const ConnectionId id : of) {
    Connection* connection = find(id);
    if (connection == nullptr || !connection->ahead.empty() || !may_take_requests(*connection)) continue;
    if (connection->input.frame_bytes() > kMaxAheadFrameBytes) continue;
    const auto frame = connection->input.next();
    if (frame.ok() && *frame) first[count++] = &connection->ahead.emplace_back(decode(*connection, **frame));
  }
  prefetch({first.data(), count});
}

Engine::Incoming Engine::decode(Connection& connection, std::span<const std::byte> frame) {
  leave_room(connection);
  Incoming message{codec::decode_client_frame(frame)};
  if (!message.content.ok()) message.correlation_id = codec::correlation_id_of(frame);
  return message;
}

void Engine::prefetch(std::span<const Incoming* const> messages) const {
  if (messages.size() < 2) return;  // there is nothing to do meanwhile
  std::array<service::Prefetch, kMaxAhead> prefetches;
  std::size_t count = 0;
  for (const Incoming* message : messages) {
    const auto* request = message->content.ok() ? std::get_if<Request>(&*message->content) : nullptr;
    if (request != nullptr) prefetches[count++] = service::Prefetch(service_.state(), *request);
  }
  for (const PrefetchStep step : kPrefetchSteps) {
    for (service::Prefetch& prefetch : std::span(prefetches).first(count)) prefetch(step);
  }
}

/// Decodes what stands next in the input, up to `most` frames, for the same reason. Each may stop the connection, and
/// those behind it then lie there decoded, so only small ones stand behind another, and none behind a batch.
absl::Status Engine::read_ahead(Connection& connection, std::size_t most) {
  ahead_.clear();
  most = under_pressure() ? 1 : std::min(most, kMaxAhead);
  do {
    const auto frame = connection.input.next();
    if (!frame.ok()) return frame.status();
    if (!*frame) break;
    ahead_.push_back(decode(connection, **frame));
    if (is_batch(ahead_.back())) break;
  } while (ahead_.size() < most && connection.input.frame_bytes() <= kMaxAheadFrameBytes);
  std::array<const Incoming*, kMaxAhead> messages{};
  std::transform(ahead_.begin(), ahead_.end(), messages.begin(), [](const Incoming& message) { return &message; });
  prefetch({messages.data(), ahead_.size()});
  return absl::OkStatus();
}

void Engine::work(Connection& connection, std::size_t most_frames) {
  const ConnectionId id = connection.id;
  connection.has_turn = true;  // this one; answers on the way do not ask for another
  ahead_.clear();              // not assigned: its memory stays
  std::move(connection.ahead.begin(), connection.ahead.end(), std::back_inserter(ahead_));
  connection.ahead.clear();
  auto next = ahead_.begin();
  for (std::size_t frames = 0; frames < most_frames && may_take_requests(connection); ++frames) {
    if (next == ahead_.end()) {
      const absl::Status read = read_ahead(connection, most_frames - frames);
      next = ahead_.begin();
      if (!read.ok()) return fail(connection, with_context("malformed frame", read));
      if (ahead_.empty()) {
        connection.input_waits = false;
        if (!connection.input.in_frame() || waits_for_room(connection)) {
          connection.half_frame_since.reset();
        } else if (!connection.half_frame_since) {
          connection.half_frame_since = now_.boot_ms;
        }
        break;
      }
    }
    if (frames_left_ > 0) --frames_left_;
    connection.half_frame_since.reset();
    connection.last_request = now_.boot_ms;
    const std::size_t gathered = service_.gathered_bytes();
    Incoming& message = *next++;
    const bool has_more = next != ahead_.end() || connection.input.in_frame() || connection.requests_in_flight() > 0;
    if (connection.phase == Connection::Phase::Open) note_manner(connection, has_more);
    handle(connection, std::move(message));
    if (find(id) == nullptr) return;
    note_gathered(connection, service_.gathered_bytes() - gathered);
  }
  if (connection.phase != Connection::Phase::Closing) {
    connection.ahead.assign(std::move_iterator(next), std::move_iterator(ahead_.end()));
  }
  if (!connection.has_input()) connection.waits_its_turn = false;
  connection.has_turn = false;
  reconsider(connection);
}

void Engine::on_turn() {
  take_arrived();
  if (turns_.empty()) return;
  frames_left_ = max_frames();  // however much arrived at the same time
  const std::size_t share = share_of(frames_left_ / turns_.size(), serves_who_waits() ? kFloodFrames : kFirstFrames);
  // Where nobody may gather more, everybody keeps his place for the next group.
  for (std::size_t left = turns_.size(); left > 0 && frames_left_ > 0 && !gathered_too_much(); --left) {
    const ConnectionId id = turns_.front();
    turns_.pop_front();
    Connection* connection = find(id);
    if (connection != nullptr) work(*connection, share);
  }
}

/// When it becomes easier to be served. It goes on behind who had his turn last, or the same ones would always be
/// first.
void Engine::reconsider_all() {
  auto next = connections_.upper_bound(last_turn_of_);
  for (std::size_t left = connections_.size(); left > 0; --left, ++next) {
    if (next == connections_.end()) next = connections_.begin();
    reconsider(*next->second);
  }
}

/// After anything that may let a connection go on, or stop it.
void Engine::reconsider(Connection& connection) {
  account(connection);
  if (!may_gather_more(connection)) {
    turned_away_ = true;
    if (connection.has_input()) connection.waits_its_turn = true;
  }
  if (connection.input_waits && !connection.has_turn && may_take_requests(connection)) {
    connection.has_turn = true;
    turns_.push_back(connection.id);
  }
  // What was read and could not be taken yet is enough: input is bounded by what the socket reads at once.
  const bool read = !connection.input_waits && !connection.wants_room && may_take_requests(connection);
  if (read == connection.wants_reading) return;
  connection.wants_reading = read;
  reading_changed_.push_back(connection.id);
}

void Engine::handle(Connection& connection, Incoming&& message) {
  const bool greeted = connection.phase == Connection::Phase::Open;
  if (!message.content.ok()) {
    // Where it still says which request it is, it costs that request and no other.
    const absl::Status& why = message.content.status();
    if (greeted && message.correlation_id) return answer(connection, *message.correlation_id, refusal(why));
    return fail(connection, with_context("malformed frame", why));
  }
  if (auto* hello = std::get_if<Hello>(&*message.content)) {
    if (greeted) return fail(connection, absl::FailedPreconditionError("a connection says hello once"));
    return on_hello(connection, std::move(*hello));
  }
  if (!greeted) return fail(connection, absl::FailedPreconditionError("the first message of a connection is a hello"));
  on_request(connection, std::move(std::get<Request>(*message.content)));
}

absl::Status Engine::check_hello(const Hello& hello) const {
  if (!journal_status_.ok()) return absl::UnavailableError("the disk failed: connect again after the restart");
  if (hello.lowest_protocol > kProtocol || hello.highest_protocol < kProtocol) {
    return absl::FailedPreconditionError(fmt::format("protocols {} to {} are offered, this service speaks {}",
                                                     hello.lowest_protocol, hello.highest_protocol, kProtocol));
  }
  absl::Status actor = names::check_id("actor", hello.actor);
  if (!actor.ok()) return actor;
  const service::State& state = service_.state();
  if (hello.seen_sequence > 0 && !state.remembers(hello.seen_sequence, hello.seen_incarnation)) {
    return absl::DataLossError(
        fmt::format("the log was rolled back: sequence {} of incarnation {:08x} was seen, and "
                    "it is not in this log: begin a new session",
                    hello.seen_sequence, hello.seen_incarnation));
  }
  if (!hello.session || !hello.opened_at) return absl::OkStatus();
  if (*hello.opened_at > state.sequence) {
    return absl::DataLossError(
        fmt::format("the log was rolled back: the session was opened at sequence {}, and it "
                    "ends at {}: begin a new session",
                    *hello.opened_at, state.sequence));
  }
  return service_.check_session(*hello.session, *hello.opened_at);
}

void Engine::on_hello(Connection& connection, Hello&& hello) {
  absl::Status status = check_hello(hello);
  if (!status.ok()) return fail(connection, std::move(status));
  const service::State& state = service_.state();
  Welcome welcome;
  welcome.protocol = kProtocol;
  welcome.log_id = identity_.log_id;
  welcome.incarnation = state.incarnation();
  welcome.sequence = state.sequence;
  welcome.server = "tensorforged " + identity_.version;
  welcome.opened_at = hello.opened_at.value_or(state.sequence);

  connection.caller.actor = std::move(hello.actor);
  count_actor(connection);
  if (hello.session) {
    if (const auto* known = state.sessions.find(*hello.session)) welcome.opened_at = known->opened_at;
    const auto other = sessions_.find(*hello.session);
    if (other != sessions_.end()) close(*find(other->second));
    sessions_[*hello.session] = connection.id;
    connection.caller.session = *hello.session;
    connection.caller.opened_at = welcome.opened_at;
    connection.may_change = true;
  }
  connection.phase = Connection::Phase::Open;
  answer(connection, 0, welcome, state.sequence);
}

void Engine::on_request(Connection& connection, Request&& request) {
  if (request.correlation_id == 0) {
    return fail(connection, absl::InvalidArgumentError("correlation id 0: they count from 1"));
  }
  if (!journal_status_.ok()) return answer_unavailable(connection, request.correlation_id);
  if (absl::Status status = check_rate(connection, request); !status.ok()) {
    return answer(connection, request.correlation_id, refusal(std::move(status)));
  }
  service_.set_max_reply_bytes(max_reply_bytes());
  if (auto* command = std::get_if<Command>(&request.body)) {
    return on_command(connection, request, std::move(*command));
  }
  on_query(connection, request, std::get<Query>(request.body));
}

void Engine::on_command(Connection& connection, const Request& request, Command&& command) {
  if (!connection.may_change) {
    return answer(connection, request.correlation_id,
                  refusal(absl::FailedPreconditionError(
                      "this connection only reads: a hello with a session may change something")));
  }
  service::Service::Outcome outcome = service_.execute(connection.caller, request, std::move(command));
  if (!outcome.in_log) {
    const bool ok = outcome.reply.status.ok();
    if (deliberate_bug(ok ? DeliberateBug::kReplyBeforeDurable : DeliberateBug::kRefusalBeforeDurable)) {
      return answer_too_early(connection, request.correlation_id, std::move(outcome.reply));
    }
    return answer(connection, request.correlation_id, std::move(outcome.reply));
  }
  read(connection, request.correlation_id, true, service::ReadAnswer{outcome.in_log->first, outcome.in_log->count},
       outcome.in_log->last());
}

void Engine::on_query(Connection& connection, const Request& request, const Query& query) {
  if (const auto* get = std::get_if<query::GetModel>(&query)) {
    if (const std::optional<registry::ModelView> model = service_.find(*get)) {
      const service::State& state = service_.state();
      const codec::ModelReply found{request.correlation_id, state.sequence, state.incarnation(), *model};
      return answer(connection, request.correlation_id, found, state.sequence);
    }
  }
  const auto read_when_ready = [&](service::LogRead what) {
    if (connection.reads >= kMaxReads) {
      return answer(connection, request.correlation_id,
                    refusal(absl::ResourceExhaustedError(
                        fmt::format("{} reads of the log are under way: wait for their answers", kMaxReads))));
    }
    read(connection, request.correlation_id, false, std::move(what), service_.state().sequence);
  };
  if (const auto* log = std::get_if<query::ReadLog>(&query)) return read_when_ready(*log);
  if (const auto* history = std::get_if<query::ReadHistory>(&query)) {
    // What waits for its turn is checked first, so that it is short.
    absl::Status status = service::check_stream_name(history->stream);
    if (status.ok() && history->page.token) status = service::number_token(history->page).status();
    if (!status.ok()) return answer(connection, request.correlation_id, refusal(std::move(status)));
    return read_when_ready(*history);
  }
  if (std::holds_alternative<query::GetStatus>(query)) {
    return answer(connection, request.correlation_id, status_reply());
  }
  const bool verifies = std::holds_alternative<query::VerifyLog>(query);
  if (!verifies && !std::holds_alternative<query::TakeSnapshot>(query)) {
    if (deliberate_bug(DeliberateBug::kReadBeforeDurable)) {
      return answer_too_early(connection, request.correlation_id, service_.answer(query));
    }
    return answer(connection, request.correlation_id, service_.answer(query));
  }
  const bool is_under_way = std::any_of(reads_.begin(), reads_.end(), [&](const auto& read) {
    return verifies ? std::holds_alternative<query::VerifyLog>(read.second.what)
                    : std::holds_alternative<service::TakeSnapshot>(read.second.what);
  });
  if (is_under_way) {
    return answer(connection, request.correlation_id,
                  refusal(absl::ResourceExhaustedError(fmt::format(
                      "{} is under way: wait for it", verifies ? "a verification of the log" : "a snapshot"))));
  }
  verifies ? read_when_ready(query::VerifyLog{})
           : read_when_ready(service::TakeSnapshot{service_.seal(given_.empty())});
}

// ---- answers

Reply Engine::refusal(absl::Status status) const {
  Reply reply;
  reply.status = std::move(status);
  // After a failure only what is durable may be told.
  reply.sequence = journal_status_.ok() ? service_.state().sequence : durable_;
  reply.incarnation = service_.state().incarnation();
  return reply;
}

void Engine::answer(Connection& connection, std::uint64_t correlation_id, Reply&& reply) {
  reply.correlation_id = correlation_id;
  answer(connection, correlation_id, reply, journal_status_.ok() ? service_.state().sequence : 0);
}

void Engine::answer_too_early(Connection& connection, std::uint64_t correlation_id, Reply&& reply) {
  reply.correlation_id = correlation_id;
  answer(connection, correlation_id, reply, 0);
}

template <class Message>
void Engine::answer(Connection& connection, std::uint64_t correlation_id, const Message& message, Sequence needs) {
  if (connection.slots.empty() && needs <= durable_) {
    std::string& output = output_of(connection);
    const std::size_t before = output.size();
    append(message, output);
    connection.unsent += output.size() - before;
  } else {
    const std::size_t before = connection.held.size();
    append(message, connection.held);
    connection.slots.push_back({correlation_id, needs, connection.held.size() - before});
  }
  close_or_go_on(connection);
}

void Engine::answer_unavailable(Connection& connection, std::uint64_t correlation_id) {
  answer(connection, correlation_id,
         refusal(absl::UnavailableError(
             fmt::format("the disk failed, the outcome is unknown: retry with the same number after the restart ({})",
                         std::string(journal_status_.message())))));
}

void Engine::read(Connection& connection, std::uint64_t correlation_id, bool in_order, service::LogRead&& what,
                  Sequence needs) {
  PendingRead read{connection.id, correlation_id, std::nullopt, needs, std::move(what)};
  if (in_order) {
    read.slot = connection.first_slot + connection.slots.size();
    connection.slots.push_back({correlation_id, needs, 0});
  } else {
    ++connection.reads;
  }
  reads_.emplace(++last_read_, std::move(read));
  if (connection.waiting_reads.empty()) read_turns_.push_back(connection.id);
  connection.waiting_reads.push_back(last_read_);
  reconsider(connection);
}

/// One read of each connection in turn. Those of a peer that does not take its answers wait.
void Engine::start_reads() {
  std::size_t passed_over = 0;
  while (passed_over < read_turns_.size() && reads_begun_ < kMaxReadsBegun) {
    const ConnectionId id = read_turns_.front();
    read_turns_.pop_front();
    Connection* connection = find(id);
    if (connection == nullptr || connection->waiting_reads.empty()) continue;
    const auto read = reads_.find(connection->waiting_reads.front());
    if (read != reads_.end()) {
      if (read->second.needs > durable_ || !may_read_log(*connection)) {
        read_turns_.push_back(id);
        ++passed_over;
        continue;
      }
      ++reads_begun_;
      passed_over = 0;
      effects_.reads.push_back({read->first, read->second.what, max_reply_bytes()});
    }
    connection->waiting_reads.pop_front();
    if (!connection->waiting_reads.empty()) read_turns_.push_back(id);
    account(*connection);
  }
}

void Engine::on_read_done(ReadId id, Reply reply) {
  --reads_begun_;
  const auto found = reads_.find(id);
  if (found == reads_.end()) return;  // its connection is gone
  const PendingRead read = std::move(found->second);
  reads_.erase(found);
  Connection& connection = *find(read.connection);
  reply.correlation_id = read.correlation_id;
  if (const auto* verified = std::get_if<result::LogVerified>(&reply.result)) {
    if (reply.status.ok()) verified_to_ = std::max(verified_to_, verified->sequence);
  }
  if (read.slot) {
    std::string frame;
    append(reply, frame);
    const auto slot = connection.slots.begin() + static_cast<std::ptrdiff_t>(*read.slot - connection.first_slot);
    std::size_t at = connection.held_begin;
    for (auto before = connection.slots.begin(); before != slot; ++before) at += before->bytes;
    connection.held.insert(at, frame);
    slot->bytes = frame.size();
  } else {
    --connection.reads;
    std::string frame;
    append(reply, frame);
    send(connection, frame);
  }
  release(connection);
}

/// Sends the answers that may leave, in order; closes what was to be closed behind the last one.
void Engine::release(Connection& connection) {
  std::size_t bytes = 0;
  while (!connection.slots.empty()) {
    const Connection::Slot& slot = connection.slots.front();
    if (slot.bytes == 0 || slot.needs > durable_) break;
    bytes += slot.bytes;
    connection.slots.pop_front();
    ++connection.first_slot;
  }
  if (bytes > 0) {
    send(connection, std::string_view(connection.held).substr(connection.held_begin, bytes));
    connection.held_begin += bytes;
    if (connection.held_bytes() == 0) {
      connection.held_begin = 0;
      empty(connection.held);
    } else if (connection.held_begin > connection.held.size() / 2) {
      connection.held.erase(0, std::exchange(connection.held_begin, 0));
    }
  }
  close_or_go_on(connection);
}

void Engine::close_or_go_on(Connection& connection) {
  const bool leaving = connection.phase == Connection::Phase::Closing || (ending_ && ending_->exit_code == kExitDone);
  if (leaving && connection.requests_in_flight() == 0 && connection.unsent == 0) return close(connection);
  reconsider(connection);
}

/// Where bytes for the next effects go; something has to be appended.
std::string& Engine::output_of(Connection& connection) {
  if (std::exchange(connection.output_given, false)) empty(connection.output);
  if (connection.output.empty()) dirty_.push_back(connection.id);
  if (connection.unsent == 0) connection.last_sent = now_.boot_ms;
  return connection.output;
}

void Engine::send(Connection& connection, std::string_view bytes) {
  output_of(connection) += bytes;
  connection.unsent += bytes.size();
}

Engine::Boundary Engine::boundary() const {
  const service::State& state = service_.state();
  Boundary boundary;
  boundary.digest = state.digest();
  boundary.head.sequence = state.sequence;
  boundary.head.incarnation = state.incarnation();
  boundary.time = state.time;
  boundary.models = state.registry.model_count();
  boundary.model_versions = state.registry.version_count();
  boundary.pools = state.gpu_memory.pool_count();
  boundary.live_blocks = state.gpu_memory.live_block_count();
  boundary.checkpoints = state.checkpoint.total_count();
  boundary.sessions = state.sessions.size();
  return boundary;
}

Reply Engine::status_reply() const {
  result::Status status;
  status.sequence = told_.head.sequence;
  status.anchored_sequence = durable_;
  status.state_digest = format_digest(told_.digest);
  status.incarnation = told_.head.incarnation;
  status.log_id = identity_.log_id;
  status.verified_to = verified_to_;
  status.root = told_.head.root;
  status.version = identity_.version;
  status.ack = identity_.ack;
  status.started_at = identity_.started_at;
  status.time = told_.time;
  status.models = told_.models;
  status.model_versions = told_.model_versions;
  status.pools = told_.pools;
  status.live_blocks = told_.live_blocks;
  status.checkpoints = told_.checkpoints;
  status.sessions = told_.sessions;
  status.connections = connections_.size();
  status.refused = service_.refused();
  status.changes_refused_because = service_.changes_refused_because();
  status.group_commit_p50_us = group_commits_.percentile(50);
  status.group_commit_p99_us = group_commits_.percentile(99);
  status.snapshot_sequence = snapshot_;
  Reply reply;
  reply.sequence = status.sequence;
  reply.incarnation = status.incarnation;
  reply.result = std::move(status);
  return reply;
}

// ---- the journal

void Engine::on_group_commit(std::uint32_t microseconds) {
  group_commits_.add(microseconds);
  group_commit_us_ += (std::int64_t{microseconds} - group_commit_us_) / 8;
}

void Engine::on_synced(std::size_t groups) {
  assert(groups <= given_.size());
  const auto synced = given_.begin() + static_cast<std::ptrdiff_t>(groups);
  if (std::ranges::any_of(given_.begin(), synced, &Given::holds_floods)) {
    floods_due_ = floods_due_ || turned_away_;
    floods_released_ = true;
  }
  given_.erase(given_.begin(), synced);
  // The journal may have begun all of them at once, what was thought to wait behind the first too.
  if (!given_.empty() || submitted_bytes_ > 0) begin_gathering();
}

void Engine::on_durable(const storage::TreeHead& head) {
  if (head.sequence <= durable_) return;
  durable_ = head.sequence;
  while (!boundaries_.empty() && boundaries_.front().head.sequence <= head.sequence) {
    if (boundaries_.front().head.sequence == head.sequence) {
      told_ = boundaries_.front();
      told_.head = head;
    }
    boundaries_.pop_front();
  }
  for (auto next = connections_.begin(); next != connections_.end();) {
    Connection& connection = *(next++)->second;
    if (!connection.slots.empty()) release(connection);  // which may close it
  }
}

void Engine::on_journal_failed(const absl::Status& why) {
  if (!journal_status_.ok()) return;
  journal_status_ = why.ok() ? absl::UnavailableError("the disk failed") : why;
  ending_ = Ending{kExitDiskFailed, now_.boot_ms + config_.failure_timeout_ms};
  const auto reads = std::exchange(reads_, {});
  for (auto& [id, connection] : connections_) {
    // The answers that rest on what is durable may still leave; the others are unknown now.
    const std::deque<Connection::Slot> slots = std::exchange(connection->slots, {});
    const std::string held = std::exchange(connection->held, {});
    std::size_t at = std::exchange(connection->held_begin, 0);
    connection->reads = 0;
    connection->waiting_reads.clear();
    for (const Connection::Slot& slot : slots) {
      const bool rests_on_the_durable = slot.bytes > 0 && slot.needs <= durable_;
      if (rests_on_the_durable) {
        send(*connection, std::string_view(held).substr(at, slot.bytes));
      } else {
        answer_unavailable(*connection, slot.correlation_id);
      }
      at += slot.bytes;
    }
  }
  for (const auto& [id, read] : reads) {
    if (!read.slot) answer_unavailable(*find(read.connection), read.correlation_id);
  }
}

// ---- time and the end

void Engine::on_tick(service::Now now) {
  now_ = now;
  service_.on_tick(now);
  if (now.boot_ms >= next_timeout_check_) {
    next_timeout_check_ = now.boot_ms + kTimeoutCheckMs;
    check_timeouts();
  }
}

void Engine::check_timeouts() {
  close_who_takes_nothing();
  const auto passed = [this](std::uint64_t since, std::uint64_t timeout) { return now_.boot_ms >= since + timeout; };
  for (auto next = connections_.begin(); next != connections_.end();) {
    Connection& connection = *(next++)->second;
    // The rest of a frame is not late while it is the service that does not read.
    if (connection.half_frame_since && !connection.wants_reading) connection.half_frame_since = now_.boot_ms;
    const bool takes_nothing = connection.unsent > 0 && passed(connection.last_sent, config_.slow_reader_timeout_ms);
    const bool says_nothing =
        connection.phase == Connection::Phase::Greeting && passed(connection.connected_at, config_.hello_timeout_ms);
    const bool hangs =
        connection.half_frame_since && passed(*connection.half_frame_since, config_.half_frame_timeout_ms);
    const bool idle = config_.idle_timeout_ms > 0 && connection.requests_in_flight() == 0 &&
                      passed(connection.last_request, config_.idle_timeout_ms);
    if (takes_nothing || says_nothing || hangs || idle) close(connection);
  }
}

void Engine::begin_shutdown() {
  if (ending_) return;
  ending_ = Ending{kExitDone, now_.boot_ms + config_.shutdown_timeout_ms};
  service_.note_digest_at_end();
  for (auto next = connections_.begin(); next != connections_.end();) release(*(next++)->second);
}

void Engine::check_end() {
  if (!ending_) return;
  if (ending_->exit_code == kExitDiskFailed) {
    const bool told = std::all_of(connections_.begin(), connections_.end(),
                                  [](const auto& each) { return each.second->unsent == 0; });
    if (told || now_.boot_ms >= ending_->deadline) effects_.exit_code = kExitDiskFailed;
    return;
  }
  if (now_.boot_ms >= ending_->deadline && durable_ == service_.state().sequence) {
    while (!connections_.empty()) close(*connections_.begin()->second);
  }
  const bool all_durable = given_.empty() && durable_ == service_.state().sequence;
  if (connections_.empty() && all_durable) effects_.exit_code = kExitDone;
}

/// What was decided goes to the journal, which begins it at once if it has nothing else to do.
void Engine::give_groups(bool input_ready) {
  if (!journal_status_.ok()) return;
  const std::size_t before = service_.gathered_bytes();
  if (before < std::min(config_.early_group_bytes, config_.max_gathered_bytes / 8)) {
    if (!given_.empty()) return;
    if (input_ready && before > 0) {
      if (!kept_since_) kept_since_ = now_.boot_ms;
      effects_.gathers = now_.boot_ms < *kept_since_ + kMaxKeptMs;
      if (effects_.gathers) return;
    }
  }
  kept_since_.reset();
  const bool at_rest = given_.empty();
  const bool holds = alone_gathered_ && !floods_due_;
  while (std::optional<storage::Group> group = service_.take_group()) {
    given_.push_back({group->bytes.size() + group->note_bytes, !group->noted_digest.empty(), holds});
    effects_.groups.push_back(*std::move(group));
  }
  if (effects_.groups.empty()) return;
  alone_gathered_ = false;
  if (std::exchange(waiting_gathered_, false)) floods_due_ = false;
  submitted_bytes_ += before;
  if (at_rest) begin_gathering();
  boundaries_.push_back(boundary());
}

Effects Engine::take_effects(bool input_ready) {
  take_arrived();
  give_groups(input_ready);
  const bool group_began = std::exchange(group_began_, false);
  const bool floods_released = std::exchange(floods_released_, false);
  const bool reconsider_waiting = (group_began || floods_released) && std::exchange(turned_away_, false);
  start_reads();
  if (reconsider_waiting || pressure_level() < highest_level_) reconsider_all();
  highest_level_ = pressure_level();
  check_end();
  for (const ConnectionId id : std::exchange(dirty_, {})) {
    Connection* connection = find(id);
    if (connection == nullptr) continue;
    connection->output_given = true;
    effects_.sends.push_back({id, connection->output});
  }
  for (const ConnectionId id : std::exchange(reading_changed_, {})) {
    Connection* connection = find(id);
    if (connection == nullptr || connection->wants_reading == connection->reads_socket) continue;
    connection->reads_socket = connection->wants_reading;
    (connection->reads_socket ? effects_.resumes : effects_.pauses).push_back(id);
  }
  effects_.more_work = !turns_.empty() && !gathered_too_much();
  frames_left_ = max_frames();
  std::vector<std::string> warnings = service_.take_warnings();
  std::move(warnings.begin(), warnings.end(), std::back_inserter(effects_.warnings));
  return std::exchange(effects_, {});
}

}  // namespace tensorforge::protocol
