#include "service/sessions.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"

namespace tensorforge::service {
namespace {

auto lower_bound(const std::vector<Sessions::Entry>& entries, std::uint64_t number) {
  return std::lower_bound(entries.begin(), entries.end(), number,
                          [](const Sessions::Entry& entry, std::uint64_t n) { return entry.number < n; });
}

absl::Status bad_record(const Record& record, std::string_view what) {
  return absl::DataLossError(
      fmt::format("record {}: session {} {}", record.sequence, format_session(*record.session), what));
}

}  // namespace

const Sessions::Entry* Sessions::Session::find(std::uint64_t number) const {
  const auto found = lower_bound(entries, number);
  return found != entries.end() && found->number == number ? &*found : nullptr;
}

const Sessions::Session* Sessions::find(const SessionId& id) const {
  const auto found = sessions_.find(id);
  return found == sessions_.end() ? nullptr : &found->second.session;
}

void Sessions::for_each(const std::function<void(const SessionId&, const Session&)>& visit) const {
  for (const SessionId& id : by_use_) visit(id, sessions_.at(id).session);
}

absl::Status Sessions::restore(const SessionId& id, Session&& session) {
  const auto falls = [](const Entry& a, const Entry& b) { return a.number >= b.number; };
  const std::vector<Entry>& entries = session.entries;
  if (std::adjacent_find(entries.begin(), entries.end(), falls) != entries.end() ||
      (!entries.empty() && entries.front().number < session.answered_below)) {
    return absl::DataLossError(fmt::format("the commands of session {} are out of order", format_session(id)));
  }
  const auto [at, is_new] = sessions_.try_emplace(id);
  if (!is_new) return absl::DataLossError(fmt::format("session {} is given twice", format_session(id)));
  entry_count_ += entries.size();
  at->second.session = std::move(session);
  at->second.place = by_use_.insert(by_use_.end(), id);
  return absl::OkStatus();
}

absl::Status Sessions::apply(const Record& record) {
  if (!record.session) return absl::OkStatus();
  const auto [at, is_new] = sessions_.try_emplace(*record.session);
  Slot& slot = at->second;
  if (is_new) {
    if (!record.opened_at) return bad_record(record, "does not say when it was opened");
    slot.session.opened_at = *record.opened_at;
    slot.place = by_use_.insert(by_use_.end(), *record.session);
  } else {
    by_use_.splice(by_use_.end(), by_use_, slot.place);
  }
  prune(slot.session, record.answered_below);

  std::vector<Entry>& entries = slot.session.entries;
  if (record.part > 0) {
    const auto entry = entries.begin() + (lower_bound(entries, record.command_number) - entries.begin());
    if (entry == entries.end() || entry->number != record.command_number) {
      return bad_record(record, fmt::format("has no first part of command {}", record.command_number));
    }
    ++entry->count;
    return absl::OkStatus();
  }
  const auto place = lower_bound(entries, record.command_number);
  if (place != entries.end() && place->number == record.command_number) {
    return bad_record(record, fmt::format("used number {} twice", record.command_number));
  }
  entries.insert(place, {record.command_number, record.sequence, 1});
  ++entry_count_;
  evict_idle();
  return absl::OkStatus();
}

void Sessions::prune(Session& session, std::uint64_t answered_below) {
  if (answered_below <= session.answered_below) return;
  session.answered_below = answered_below;
  const auto end = lower_bound(session.entries, answered_below);
  entry_count_ -= static_cast<std::size_t>(end - session.entries.begin());
  session.entries.erase(session.entries.begin(), end);
}

void Sessions::evict_idle() {
  // The session of the record just applied is the last in use, and stays.
  while (sessions_.size() > 1 && (sessions_.size() > limits_.max_sessions || entry_count_ > limits_.max_entries)) {
    const auto idle = sessions_.find(by_use_.front());
    horizon_ = std::max(horizon_, idle->second.session.opened_at);
    entry_count_ -= idle->second.session.entries.size();
    sessions_.erase(idle);
    by_use_.pop_front();
  }
}

}  // namespace tensorforge::service
