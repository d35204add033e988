// What anybody may send to the service: cut into frames, and decoded.
#include "codec/request.h"
#include "tests/fuzz/frames.h"

using namespace tensorforge;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto decode = [](std::span<const std::byte> frame) {
    codec::correlation_id_of(frame);  // which is asked for where it cannot be decoded
    return codec::decode_client_frame(frame);
  };
  fuzz::check_frames(fuzz::bytes_of(data, size), decode, codec::encode_client_frame);
  return 0;
}
