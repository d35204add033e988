#include <algorithm>
#include <cassert>
#include <iterator>
#include <utility>

#include "storage/bytes.h"
#include "storage/journal.h"

namespace tensorforge::storage {

void put_record(std::string& bytes, std::string_view record) {
  assert(!record.empty() && record.size() <= kMaxRecordBytes);
  char length[4];
  put_little(length, static_cast<std::uint32_t>(record.size()));
  bytes.append(length, sizeof length).append(record);
}

void Group::add(const std::vector<std::string>& records) {
  std::string framed;
  for (const std::string& record : records) put_record(framed, record);
  add(framed, static_cast<std::uint32_t>(records.size()));
}

void Group::add(std::string_view records, std::uint32_t record_count) {
  assert(record_count > 0 && records.size() <= kMaxCommandBytes);
  bytes.append(records);
  commands.push_back({bytes.size(), count() + record_count});
}

void Group::append(Group&& more) {
  assert(noted_digest.empty() && more.first == last() + 1 && more.incarnation == incarnation);
  const CommandEnd here{bytes.size(), count()};
  bytes.append(more.bytes);
  for (const CommandEnd& end : more.commands) commands.push_back({here.bytes + end.bytes, here.count + end.count});
  std::move(more.notes.begin(), more.notes.end(), std::back_inserter(notes));
  note_bytes += more.note_bytes;
  noted_digest = std::move(more.noted_digest);
}

std::vector<Group> take_together(std::deque<Group>& waiting) {
  std::vector<Group> together;
  while (!waiting.empty() && (together.empty() || together.back().noted_digest.empty())) {
    together.push_back(std::move(waiting.front()));
    waiting.pop_front();
  }
  return together;
}

Group join(std::vector<Group> groups) {
  std::size_t bytes = 0;
  for (const Group& group : groups) bytes += group.bytes.size();
  Group joined = std::move(groups.front());
  joined.bytes.reserve(bytes);
  for (auto next = groups.begin() + 1; next != groups.end(); ++next) joined.append(std::move(*next));
  return joined;
}

}  // namespace tensorforge::storage
