#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "platform/result.h"

namespace tensorforge::protocol {

/// Cuts a stream of bytes into size-prefixed frames: 4 bytes of length, little endian, then that many bytes.
///
/// Memory: what was fed and not yet taken. A length that makes a frame larger than codec::kMaxFrameBytes (prefix
/// included) or smaller than a FlatBuffers header is refused as soon as its 4 bytes are there, so nothing is ever
/// allocated for it. Threads: one.
class FrameReader {
 public:
  void feed(std::span<const std::byte> bytes);
  /// The next whole frame, prefix included, aligned to 8 bytes, valid until the next call; nullopt: more bytes are
  /// needed. kInvalidArgument: the stream is broken and stays so.
  Result<std::optional<std::span<const std::byte>>> next();
  /// Bytes fed and not yet taken.
  std::size_t buffered() const { return end_ - begin_; }
  /// Whether a whole frame (or a broken one) waits to be taken.
  bool ready() const;

 private:
  std::uint32_t length() const;

  std::vector<std::uint64_t> frame_;  ///< the frame last taken, in words so that it is aligned
  std::vector<std::byte> buffer_;
  std::size_t begin_{}, end_{};
};

}  // namespace tensorforge::protocol
