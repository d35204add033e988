// What a client may get: cut into frames, and decoded.
#include "codec/reply.h"
#include "tests/fuzz/frames.h"

using namespace tensorforge;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto encode = [](const ServerMessage& message) {
    Result<std::string> frame = codec::encode_server_frame(message);
    std::string appended;  // as the service sends it
    const auto* reply = std::get_if<Reply>(&message);
    constexpr std::size_t kMostMore = 64;
    if (!frame.ok() || reply == nullptr || frame->size() > codec::kMaxFrameBytes - kMostMore) return frame;
    fuzz::require(codec::append_server_frame(*reply, appended).ok(), "what can be encoded can be sent");
    const Result<ServerMessage> sent = codec::decode_server_frame(std::as_bytes(std::span(appended)));
    fuzz::require(sent.ok() && codec::encode_server_frame(*sent).value() == *frame, "it says the same as it is sent");
    return frame;
  };
  fuzz::check_frames(fuzz::bytes_of(data, size), codec::decode_server_frame, encode);
  return 0;
}
