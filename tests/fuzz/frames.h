#pragma once

#include <cstddef>
#include <span>

#include "codec/frame_reader.h"
#include "tests/fuzz/fuzz.h"

namespace tensorforge::fuzz {

/// Cuts `bytes` into frames. A message that `decode(frame)` takes in can be sent again by `encode(message)`, which
/// refuses what would be too long, and is then the same.
void check_frames(std::span<const std::byte> bytes, auto decode, auto encode) {
  codec::FrameReader reader;
  reader.append(bytes);
  for (;;) {
    const auto frame = reader.next();
    if (!frame.ok() || !*frame) return;
    const auto message = decode(**frame);
    if (!message.ok()) continue;
    const auto again = encode(*message);
    if (!again.ok()) continue;  // ours may be longer than theirs
    const auto decoded = decode(std::as_bytes(std::span(*again)));
    require(decoded.ok(), "a message that was decoded and encoded can be decoded");
    require(encode(*decoded).value() == *again, "and encodes to the same bytes");
  }
}

}  // namespace tensorforge::fuzz
