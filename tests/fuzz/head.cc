// HEAD, as it comes and with the checksums of its slots put right.
#include "storage/head.h"

#include <string>

#include "storage/bytes.h"
#include "storage/crc32c.h"
#include "tests/fuzz/fuzz.h"

using namespace tensorforge;

namespace {

void decode(std::string_view bytes) {
  const Result<storage::HeadFile> head = storage::decode_head(bytes);
  if (!head.ok()) return;
  const auto again = storage::decode_head(storage::encode_head(head->anchor));
  fuzz::require(again.ok() && again->anchor == head->anchor, "an anchor that was read can be written and read again");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = fuzz::text_of(data, size);
  decode(bytes);
  if (size != storage::kHeadBytes) return 0;
  std::string right(bytes);
  for (const std::size_t slot : {std::size_t{4'096}, std::size_t{8'192}}) {
    constexpr std::size_t kCrcAt = 508;
    storage::put_little(&right[slot + kCrcAt], storage::crc32c(std::string_view(right).substr(slot, kCrcAt)));
  }
  decode(right);
  return 0;
}
