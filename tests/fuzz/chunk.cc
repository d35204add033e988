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
  std::string body;
  for (const std::string_view record : chunk->records) storage::put_record(body, record);
  const std::string_view stored = value.substr(storage::kChunkHeaderBytes);
  const bool alone = chunk->body ? body.size() == storage::get_little<std::uint32_t>(stored.data()) : body == stored;
  fuzz::require(alone, "a chunk holds its records, and nothing else");
  const std::string again = storage::encode_chunk(chunk->header, body);
  const Result<storage::Chunk> same = storage::decode_chunk(again);
  fuzz::require(same.ok() && same->header == chunk->header && same->records == chunk->records,
                "it can be written again");
  fuzz::require(again.size() <= storage::kChunkHeaderBytes + body.size(), "and is no longer than it would be as it is");
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
