// Records and notes, as a damaged or hostile log may hold them.
#include "codec/record.h"

#include "tests/fuzz/fuzz.h"

using namespace tensorforge;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = fuzz::bytes_of(data, size);
  static_cast<void>(codec::decode_note(bytes));
  const Result<Record> record = codec::decode_record(bytes);
  if (!record.ok()) return 0;
  streams_of(record->event);
  const Result<std::string> again = codec::encode_record(*record);
  if (!again.ok()) return 0;  // ours may be longer
  const Result<Record> decoded = codec::decode_record(std::as_bytes(std::span(*again)));
  fuzz::require(decoded.ok(), "a record that was decoded and encoded can be decoded");
  fuzz::require(codec::encode_record(*decoded).value() == *again, "and encodes to the same bytes");
  return 0;
}
