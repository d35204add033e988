#include <cassert>

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

}  // namespace tensorforge::storage
