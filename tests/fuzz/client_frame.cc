// What anybody may send to the service: cut into frames, and decoded.
#include "codec/frame_reader.h"
#include "codec/request.h"
#include "tests/fuzz/fuzz.h"

using namespace tensorforge;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  codec::FrameReader reader;
  reader.append(fuzz::bytes_of(data, size));
  for (;;) {
    const auto frame = reader.next();
    if (!frame.ok() || !*frame) return 0;
    const Result<ClientMessage> message = codec::decode_client_frame(**frame);
    codec::correlation_id_of(**frame);
    if (!message.ok()) continue;
    // What was taken in can be sent again, and is then the same.
    const Result<std::string> again = codec::encode_client_frame(*message);
    if (!again.ok()) continue;  // ours may be longer than theirs
    const auto decoded = codec::decode_client_frame(std::as_bytes(std::span(*again)));
    fuzz::require(decoded.ok(), "a message that was decoded and encoded can be decoded");
    fuzz::require(codec::encode_client_frame(*decoded).value() == *again, "and encodes to the same bytes");
  }
}
