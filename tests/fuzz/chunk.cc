// Chunks, as they come and with their checksum put right, so that what is behind it is tried too.
#include "storage/chunk.h"

#include <string>

#include "storage/bytes.h"
#include "storage/crc32c.h"
#include "tests/fuzz/fuzz.h"

using namespace tensorforge;

namespace {

void decode(std::string_view value) {
  const Result<storage::Chunk> chunk = storage::decode_chunk(value);
  if (!chunk.ok()) return;
  fuzz::require(chunk->records.size() == chunk->header.count, "a chunk has as many records as it says");
  std::size_t bytes = storage::kChunkHeaderBytes;
  for (const std::string_view record : chunk->records) bytes += 4 + record.size();
  fuzz::require(bytes == value.size(), "and nothing else");
  const std::string again = storage::encode_chunk(chunk->header, value.substr(storage::kChunkHeaderBytes));
  fuzz::require(again == value, "and encodes to the same bytes");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view value = fuzz::text_of(data, size);
  decode(value);
  if (size < storage::kChunkHeaderBytes) return 0;
  std::string right(value);
  constexpr std::size_t kCrcAt = 28;
  storage::put_little(&right[kCrcAt], std::uint32_t{0});  // it counts as zeros in itself
  storage::put_little(&right[kCrcAt], storage::crc32c(right));
  decode(right);
  return 0;
}
