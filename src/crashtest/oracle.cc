#include "crashtest/oracle.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "crashtest/ledger.h"
#include "service/recover.h"
#include "service/replies.h"
#include "service/service.h"
#include "service/snapshot.h"
#include "storage/merkle.h"

namespace tensorforge::crashtest {
namespace {

/// After so many the rest would only say the same again.
constexpr std::size_t kMaxFindings = 20;
constexpr std::size_t kPageRecords = 10'000;
constexpr std::size_t kPageBytes = std::size_t{4} << 20U;

std::string text(const absl::Status& status) { return std::string(status.message()); }
std::string name_of(const Call& call) {
  return call.number == 0 ? std::string("a query of ") + call.actor
                          : fmt::format("command {}-{}", format_session(call.session), call.number);
}
std::span<const std::byte> bytes_of(const std::string& record) { return std::as_bytes(std::span(record)); }
Digest digest_of(const std::string& record) { return CanonicalBytes("record").text(record).digest(); }

/// Which replies hold a figure that is of the moment and not of the state.
void forget_moment(Reply& reply) {
  if (auto* stats = std::get_if<result::PoolStats>(&reply.result)) stats->seconds_to_oom = 0;
}

/// The service, carried through the log by the commands that are in it.
class Shadow {
 public:
  Shadow(service::State state, const service::Config& config) : now_{state.time, state.time}, session_count_(0) {
    service_ = std::make_unique<service::Service>(
        config, std::move(state),
        [this](std::span<std::uint8_t> out) { std::copy_n(salt_.begin(), out.size(), out.begin()); }, now_);
  }

  const service::State& state() const { return service_->state(); }

  /// What the command, sent as `record` says, adds to the log; empty: nothing.
  storage::Group run(const Call& call, const Record& record, const std::optional<storage::Note>& note) {
    set_time(record.wall_time);
    service::Caller caller;
    caller.actor = call.actor;
    caller.actor_source = record.actor_source;
    caller.session = call.session;
    caller.opened_at = record.opened_at.value_or(0);
    if (note) {
      salt_ = note->salt;
      const Result<Note> decoded = codec::decode_note(bytes_of(note->bytes));
      if (decoded.ok()) caller.peer_address = decoded->peer_address;
    }
    Request request = request_of(call);
    request.command_number = record.command_number;
    request.answered_below = record.answered_below;
    service_->execute(caller, request, std::get<Command>(call.body));
    storage::Group all;
    while (std::optional<storage::Group> group = service_->take_group()) {
      all.bytes += group->bytes;
      std::move(group->notes.begin(), group->notes.end(), std::back_inserter(all.notes));
    }
    return all;
  }

  /// What the command would be told here. True: it would change something, and has.
  bool try_here(const Call& call, Reply& reply) {
    set_time(state().time);
    service::Caller caller;
    caller.actor = call.actor;
    // A session of its own: the command's own one may have gone on since.
    for (unsigned i = 0; i < 8; ++i) caller.session[i] = static_cast<std::uint8_t>(session_count_ >> (8 * i));
    caller.session.back() = 0xff;
    ++session_count_;
    caller.opened_at = state().sequence;
    Request request = request_of(call);
    request.command_number = 1;
    reply = service_->execute(caller, request, std::get<Command>(call.body)).reply;
    return service_->take_group().has_value();
  }

  Reply answer(const Query& query) const { return service_->answer(query); }

 private:
  static Request request_of(const Call& call) {
    Request request;
    request.if_sequence = call.if_sequence;
    request.reason = call.reason;
    return request;
  }
  void set_time(std::uint64_t wall_ms) {
    now_ = {wall_ms, wall_ms};  // both clocks in step: no jump is seen
    service_->on_tick(now_);
    service_->take_warnings();
  }

  service::Now now_;
  Salt salt_{};
  std::uint64_t session_count_;
  std::unique_ptr<service::Service> service_;
};

class Check {
 public:
  Check(const CallJournal& calls, Moment until, const Recovered& recovered, const std::vector<Digest>& before)
      : recovered_(recovered), until_(until), before_(before) {
    for (const Call& call : calls.calls()) {
      if (call.begun > until) continue;
      if (call.number != 0) commands_.emplace(std::pair(call.session, call.number), &call);
      if (call.answered_by(until)) answered_.push_back(&call);
    }
    note_order();
  }

  Verdict run() {
    if (read_log()) walk();
    return std::move(verdict_);
  }

 private:
  void find(Violation violation, std::string what) {
    if (verdict_.findings.size() < kMaxFindings) verdict_.findings.push_back({violation, std::move(what)});
  }

  // ---- real-time order

  void note_order() {
    std::vector<const Call*> by_answer = answered_;
    std::sort(by_answer.begin(), by_answer.end(),
              [](const Call* a, const Call* b) { return a->answered < b->answered; });
    Sequence highest = 0;
    for (const Call* call : by_answer) {
      highest = std::max(highest, call->reply.sequence);
      told_.emplace_back(call->answered, highest);
    }
  }
  /// The highest sequence that anybody was told before `moment`.
  Sequence told_before(Moment moment) const {
    const auto after = std::lower_bound(told_.begin(), told_.end(), std::pair(moment, Sequence{0}));
    return after == told_.begin() ? 0 : std::prev(after)->second;
  }

  // ---- the log itself

  bool read_log() {
    end_ = recovered_.log.durable_head();
    const Result<storage::LogVerified> verified = recovered_.log.verify();
    if (!verified.ok()) {
      find(Violation::kUnreadable, "the log does not verify: " + text(verified.status()));
      return false;
    }
    while (records_.size() < end_.sequence) {
      Result<storage::Records> page = recovered_.log.read(records_.size() + 1, kPageRecords, kPageBytes);
      if (!page.ok() || page->records.empty()) {
        find(Violation::kUnreadable,
             fmt::format("records from {} on cannot be read: {}", records_.size() + 1, text(page.status())));
        return false;
      }
      for (std::string& record : page->records) records_.push_back(std::move(record));
    }
    verdict_.records.reserve(records_.size());
    for (const std::string& record : records_) verdict_.records.push_back(digest_of(record));
    for (std::size_t i = 0; i < before_.size(); ++i) {
      if (i < verdict_.records.size() && verdict_.records[i] == before_[i]) continue;
      find(Violation::kLost, i < verdict_.records.size()
                                 ? fmt::format("record {} was durable and is another one now", i + 1)
                                 : fmt::format("records {}..{} were durable and are gone", i + 1, before_.size()));
      break;
    }
    return true;
  }

  /// Whole commands, in order, and what was told between them.
  void walk() {
    std::sort(answered_.begin(), answered_.end(),
              [](const Call* a, const Call* b) { return a->reply.sequence < b->reply.sequence; });
    next_answer_ = answered_.begin();
    for (std::size_t at = 0; at < records_.size();) {
      const std::optional<std::size_t> count = take_command(at);
      if (!count) return;
      at += *count;
      explain_answers(at);
    }
    for (; next_answer_ != answered_.end(); ++next_answer_) {
      lose(**next_answer_, fmt::format("{} was answered at sequence {}, and the log ends at {}",
                                       name_of(**next_answer_), (*next_answer_)->reply.sequence, records_.size()));
    }
    check_end();
  }

  void lose(const Call& call, std::string what) {
    if (call.number != 0 && call.reply.status.ok()) {
      ++verdict_.acknowledged;
      ++verdict_.lost;
    }
    find(Violation::kLost, std::move(what));
  }

  /// nullopt: the rest cannot be judged.
  std::optional<std::size_t> take_command(std::size_t at) {
    std::vector<Record> command;
    do {
      const Sequence sequence = at + command.size() + 1;
      if (sequence > records_.size()) {
        find(Violation::kHole, fmt::format("the log ends inside the command of record {}", at + 1));
        return std::nullopt;
      }
      Result<Record> record = codec::decode_record(bytes_of(records_[sequence - 1]));
      if (!record.ok()) {
        find(Violation::kUnreadable, fmt::format("record {}: {}", sequence, text(record.status())));
        return std::nullopt;
      }
      if (record->sequence != sequence || record->part != command.size()) {
        find(Violation::kHole, fmt::format("record {}, part {}, stands where record {}, part {}, belongs",
                                           record->sequence, record->part, sequence, command.size()));
        return std::nullopt;
      }
      command.push_back(*std::move(record));
    } while (command.size() < command.front().parts);

    const Call* call = command.front().session ? sender_of(command) : nullptr;
    for (const Record& record : command) {
      frontier_.append(records_[record.sequence - 1]);
      const std::string illegal = ledger_.add(record.event);
      if (illegal.empty()) continue;
      // The projections trust their events: they must not be asked to apply this one.
      find(Violation::kIllegalHistory, fmt::format("record {}: {}", record.sequence, illegal));
      return std::nullopt;
    }
    const bool carried_out = call != nullptr && shadow_ != nullptr && same_records(*call, command);
    if (!carried_out && !restart_shadow(at + command.size())) return std::nullopt;
    return command.size();
  }

  /// The state as replay gives it, for what no client asked for, and behind a finding.
  bool restart_shadow(Sequence until) {
    service::Replay replay(until);
    absl::Status status;
    for (Sequence i = 0; i < until && status.ok(); ++i) status = replay.add(bytes_of(records_[i]));
    if (!status.ok()) {
      find(Violation::kUnreadable, "the log cannot be replayed: " + text(status));
      return false;
    }
    shadow_ = std::make_unique<Shadow>(replay.take(), recovered_.config);
    return true;
  }

  /// nullptr: none that may be there.
  const Call* sender_of(const std::vector<Record>& records) {
    const Record& first = records.front();
    const std::string id = fmt::format("{}-{}", format_session(*first.session), first.command_number);
    const auto known = commands_.find({*first.session, first.command_number});
    if (known == commands_.end()) {
      find(Violation::kForeignRecord, fmt::format("record {}: nobody sent command {}", first.sequence, id));
      return nullptr;
    }
    const Call& call = *known->second;
    if (!in_log_.insert(&call).second) {
      find(Violation::kDoubled, fmt::format("record {}: command {} is in the log already", first.sequence, id));
      return nullptr;
    }
    if (first.sequence <= told_before(call.begun)) {
      find(Violation::kOrder, fmt::format("command {} is at {}, and {} was told before it was sent", id, first.sequence,
                                          told_before(call.begun)));
    }
    check_answer(call, records);
    return &call;
  }

  /// False: the shadow did something else.
  bool same_records(const Call& call, const std::vector<Record>& records) {
    const Record& first = records.front();
    const Result<std::optional<storage::Note>> note = recovered_.log.note(first.sequence);
    if (!note.ok()) find(Violation::kUnreadable, fmt::format("note {}: {}", first.sequence, text(note.status())));
    const storage::Group group = shadow_->run(call, first, note.ok() ? *note : std::nullopt);
    storage::Group expected;
    expected.add({records_.begin() + static_cast<std::ptrdiff_t>(first.sequence - 1),
                  records_.begin() + static_cast<std::ptrdiff_t>(first.sequence - 1 + records.size())});
    const bool same_note =
        group.notes.empty() ? !(note.ok() && *note) : note.ok() && *note && (*note)->bytes == group.notes.front().bytes;
    // Without its salt the shadow cannot make the note's hash again; the rest of the record is in the digests.
    if (!same_note) {
      find(Violation::kLostNote, fmt::format("record {}: the note of {} is not there", first.sequence, name_of(call)));
      return false;
    }
    if (group.bytes == expected.bytes) return true;
    find(Violation::kChangedRecord, fmt::format("record {}, {}: it is not what {} does there", first.sequence,
                                                event_name(first.event), name_of(call)));
    return false;
  }

  void check_answer(const Call& call, const std::vector<Record>& records) {
    if (!call.answered_by(until_)) {
      ++verdict_.unknown_kept;
      return;
    }
    ++verdict_.acknowledged;
    if (!call.reply.status.ok()) ++verdict_.refused;  // an allocation: its refusal is an event
    const Reply expected = service::reply_from_records(records);
    if (call.reply == expected) return;
    find(Violation::kChangedAnswer,
         fmt::format("{} was answered at {} ({}), and the log has it at {} ({})", name_of(call), call.reply.sequence,
                     call.reply.status.ToString(), expected.sequence, expected.status.ToString()));
  }

  // ---- answers that are not in the log

  void explain_answers(Sequence end) {
    for (; next_answer_ != answered_.end() && (*next_answer_)->reply.sequence <= end; ++next_answer_) {
      const Call& call = **next_answer_;
      if (in_log_.count(&call) != 0) continue;
      if (call.reply.sequence < end) {
        // A change that was told for a sequence before this command's end, and is not in the log up to it.
        find(Violation::kUnexplained,
             fmt::format("{} was answered at {}, the middle of a command", name_of(call), call.reply.sequence));
        continue;
      }
      call.number == 0 ? explain_read(call) : explain_no_change(call);
    }
  }

  void check_order(const Call& call) {
    const Sequence told = told_before(call.begun);
    if (call.reply.sequence >= told) return;
    find(Violation::kOrder, fmt::format("{} was answered at {}, and {} was told before it was sent", name_of(call),
                                        call.reply.sequence, told));
  }

  void explain_read(const Call& call) {
    ++verdict_.read;
    const Query& query = std::get<Query>(call.body);
    if (std::holds_alternative<query::GetStatus>(query)) return explain_status(call);
    check_order(call);
    if (const auto* records = std::get_if<result::LogRecords>(&call.reply.result))
      return explain_records(call, *records);
    if (const auto* verified = std::get_if<result::LogVerified>(&call.reply.result)) {
      if (verified->sequence == frontier_.size() && verified->root != frontier_.root()) {
        find(Violation::kWrongTree, fmt::format("{} was told another root at {}", name_of(call), verified->sequence));
      }
      return;
    }
    if (is_about_log(query)) return;  // refused: too much was asked for at once
    Reply expected = shadow_->answer(query);
    Reply told = call.reply;
    forget_moment(expected);
    forget_moment(told);
    if (told == expected) return;
    find(Violation::kUnexplained,
         fmt::format("{} (query {}) was answered at {} with another answer than the state there gives", name_of(call),
                     query.index(), told.sequence));
  }

  static bool is_about_log(const Query& query) {
    return std::holds_alternative<query::ReadLog>(query) || std::holds_alternative<query::ReadHistory>(query) ||
           std::holds_alternative<query::VerifyLog>(query);
  }

  void explain_status(const Call& call) {
    const auto* status = std::get_if<result::Status>(&call.reply.result);
    if (status == nullptr || status->sequence != shadow_->state().sequence) return;
    if (status->state_digest == format_digest(shadow_->state().digest())) return;
    find(Violation::kUnexplained, fmt::format("the status at {} told another state digest", status->sequence));
  }

  void explain_records(const Call& call, const result::LogRecords& told) {
    for (const result::LogRecord& one : told.records) {
      const Result<Record> record = codec::decode_record(bytes_of(one.record));
      const bool same = record.ok() && record->sequence >= 1 && record->sequence <= records_.size() &&
                        records_[record->sequence - 1] == one.record;
      if (!same) return find(Violation::kUnexplained, name_of(call) + " read a record that is not in the log");
    }
  }

  void explain_no_change(const Call& call) {
    const Reply& told = call.reply;
    if (!told.status.ok()) ++verdict_.refused;
    check_order(call);
    if (recovered_.disk_was_full && absl::IsResourceExhausted(told.status) &&
        text(told.status).find("under the reserve") != std::string::npos) {
      return;
    }
    Reply expected;
    if (shadow_->try_here(call, expected)) {
      if (told.status.ok()) {
        lose(call, fmt::format("{} was acknowledged at {} and is not in the log", name_of(call), told.sequence));
      } else {
        find(Violation::kUnexplained, fmt::format("{} was refused at {} ({}), and could be done there", name_of(call),
                                                  told.sequence, told.status.ToString()));
      }
      restart_shadow(told.sequence);
      return;
    }
    if (told == expected) return;
    find(Violation::kUnexplained,
         fmt::format("{} was answered at {} with {}, and the state there gives {}", name_of(call), told.sequence,
                     told.status.ToString(), expected.status.ToString()));
  }

  // ---- the end

  void check_end() {
    for (const auto& [id, call] : commands_) {
      if (!call->answered_by(until_) && in_log_.count(call) == 0) ++verdict_.unknown_dropped;
    }
    if (frontier_.root() != end_.root || frontier_.size() != end_.sequence) {
      find(Violation::kWrongTree, fmt::format("the root at {} is not that of the records", end_.sequence));
    }
    service::Replay replay;
    for (const std::string& record : records_) {
      if (const absl::Status status = replay.add(bytes_of(record)); !status.ok()) {
        return find(Violation::kUnreadable, "the log cannot be replayed: " + text(status));
      }
    }
    const Digest folded = replay.state().digest();
    if (folded != recovered_.state_digest) {
      find(Violation::kWrongState, fmt::format("the state is {}, the log folds to {}",
                                               format_digest(recovered_.state_digest), format_digest(folded)));
    }
    if (recovered_.everything && *recovered_.everything != digest_of_everything(replay.state())) {
      find(Violation::kWrongState,
           fmt::format(
               "the state that was recovered at {}, with its sessions, streams and counters, is not the one that "
               "the log gives from its start on",
               end_.sequence));
    }
    if (shadow_ != nullptr && shadow_->state().digest() != folded) {
      find(Violation::kWrongState, "the commands give another state than their events");
    }
    const std::string difference = ledger_.compare(replay.state());
    if (!difference.empty()) find(Violation::kIllegalHistory, difference);
    check_noted_digest(replay.state());
  }

  void check_noted_digest(const service::State& state) {
    const Result<std::optional<std::string>> noted = recovered_.log.noted_digest(end_.sequence);
    if (!noted.ok()) return find(Violation::kUnreadable, "the noted digest: " + text(noted.status()));
    if (*noted && **noted != service::encode_noted_digest(state)) {
      find(Violation::kWrongState, fmt::format("the digests noted at {} are not those of the state", end_.sequence));
    }
  }

  const Recovered& recovered_;
  const Moment until_;
  const std::vector<Digest>& before_;
  Verdict verdict_;
  std::map<std::pair<SessionId, std::uint64_t>, const Call*> commands_;
  std::vector<const Call*> answered_;  ///< by sequence
  std::vector<const Call*>::const_iterator next_answer_;
  std::vector<std::pair<Moment, Sequence>> told_;  ///< when, and the highest sequence up to then
  std::set<const Call*> in_log_;

  storage::TreeHead end_;
  std::vector<std::string> records_;
  storage::MerkleFrontier frontier_;
  Ledger ledger_;
  std::unique_ptr<Shadow> shadow_;
};

}  // namespace

std::string_view to_string(Violation violation) {
  switch (violation) {
    case Violation::kLost:
      return "lost";
    case Violation::kDoubled:
      return "doubled";
    case Violation::kChangedAnswer:
      return "changed answer";
    case Violation::kChangedRecord:
      return "changed record";
    case Violation::kLostNote:
      return "lost note";
    case Violation::kForeignRecord:
      return "foreign record";
    case Violation::kHole:
      return "hole";
    case Violation::kWrongTree:
      return "wrong tree";
    case Violation::kUnreadable:
      return "unreadable";
    case Violation::kWrongState:
      return "wrong state";
    case Violation::kIllegalHistory:
      return "illegal history";
    case Violation::kUnexplained:
      return "unexplained answer";
    case Violation::kOrder:
      return "wrong order";
  }
  return "?";
}

bool Verdict::has(Violation violation) const {
  return std::any_of(findings.begin(), findings.end(),
                     [&](const Finding& finding) { return finding.violation == violation; });
}

Digest digest_of_everything(const service::State& state) {
  CanonicalBytes bytes("state");
  service::save_state(state, [&bytes](std::string_view page) {
    bytes.text(page);
    return absl::OkStatus();
  }).IgnoreError();
  return bytes.digest();
}

Verdict check_history(const CallJournal& calls, Moment until, const Recovered& recovered,
                      const std::vector<Digest>& before) {
  return Check(calls, until, recovered, before).run();
}

}  // namespace tensorforge::crashtest
