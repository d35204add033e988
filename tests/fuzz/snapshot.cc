// Snapshots: the head of the file, and pages, each behind its length in 4 bytes; where they do not add up, one page.
#include "service/snapshot.h"

#include <optional>

#include "storage/bytes.h"
#include "storage/snapshot_file.h"
#include "tests/fuzz/fuzz.h"

using namespace tensorforge;

namespace {

class Pages {
 public:
  explicit Pages(std::string_view bytes) : left_(bytes) {}
  std::optional<std::string_view> next() {
    if (left_.empty()) return std::nullopt;
    std::size_t size = left_.size(), skip = 0;
    if (left_.size() > 4 && storage::get_little<std::uint32_t>(left_.data()) <= left_.size() - 4) {
      skip = 4;
      size = storage::get_little<std::uint32_t>(left_.data());
    }
    const std::string_view page = left_.substr(skip, size);
    left_.remove_prefix(skip + size);
    return page;
  }

 private:
  std::string_view left_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = fuzz::text_of(data, size);
  const auto head = storage::decode_snapshot_head(bytes.substr(0, storage::kSnapshotHeadBytes));
  if (head.ok()) fuzz::require(storage::decode_snapshot_head(storage::encode_snapshot_head(*head)).ok(), "a head");
  Pages pages(bytes);
  const auto next = [&]() -> Result<std::optional<std::string_view>> { return pages.next(); };
  static_cast<void>(service::load_state(next));
  return 0;
}
