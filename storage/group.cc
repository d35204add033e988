#include <cassert>

#include "storage/bytes.h"
#include "storage/journal.h"

namespace tensorforge::storage {

void Group::add(const std::vector<std::string>& records) {
  assert(!records.empty());
  [[maybe_unused]] const std::size_t before = bytes.size();
  for (const std::string& record : records) {
    assert(!record.empty() && record.size() <= kMaxRecordBytes);
    char length[4];
    put_little(length, static_cast<std::uint32_t>(record.size()));
    bytes.append(length, sizeof length).append(record);
  }
  assert(bytes.size() - before <= kMaxCommandBytes);
  commands.push_back({bytes.size(), count() + static_cast<std::uint32_t>(records.size())});
}

}  // namespace tensorforge::storage
