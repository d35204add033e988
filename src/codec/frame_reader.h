#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "codec/request.h"
#include "platform/result.h"

namespace tensorforge::codec {

/// Cuts a stream of bytes into whole size-prefixed frames, fit for decode_client_frame() and decode_server_frame().
///
/// It holds at most one frame and what was appended with its end, so a prefix that promises 4 GiB costs nothing.
/// Threads: none.
class FrameReader {
 public:
  void append(std::span<const std::byte> bytes) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(begin_));
    begin_ = 0;
    if (scratch_.capacity() > kKeptBytes / sizeof(std::uint64_t)) std::vector<std::uint64_t>().swap(scratch_);
    if (buffer_.empty() && buffer_.capacity() > kKeptBytes) std::vector<std::byte>().swap(buffer_);
    // A large frame arrives in pieces: room for all of it, and not for twice of it.
    if (const std::size_t whole = frame_bytes(); whole > kKeptBytes && whole <= kMaxFrameBytes) {
      buffer_.reserve(std::max(buffer_.size() + bytes.size(), whole));
    }
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }

  /// The next frame, prefix included, aligned to 8 bytes; valid until the next call of this object. nullopt: more
  /// bytes are needed. kInvalidArgument: the prefix promises more than kMaxFrameBytes; nothing behind it can be read.
  Result<std::optional<std::span<const std::byte>>> next() {
    const std::size_t held = buffer_.size() - begin_;
    if (held < kPrefixBytes) return std::nullopt;
    const std::byte* start = buffer_.data() + begin_;
    const std::size_t size = frame_bytes();
    if (size > kMaxFrameBytes) return absl::InvalidArgumentError("frame over 1 MiB");
    if (held < size) return std::nullopt;
    begin_ += size;
    return aligned({start, size});
  }

  /// Whether a frame has begun and is not whole.
  bool in_frame() const { return begin_ != buffer_.size(); }
  /// Bytes that the frame at hand will have, as its prefix promises; 0: the prefix is not there yet.
  std::size_t frame_bytes() const {
    if (buffer_.size() - begin_ < kPrefixBytes) return 0;
    std::size_t size = kPrefixBytes;
    for (std::size_t i = 0; i < kPrefixBytes; ++i) {
      size += std::to_integer<std::size_t>(buffer_[begin_ + i]) << (8 * i);
    }
    return size;
  }

  /// Buffers that are empty and larger than this are given back.
  static constexpr std::size_t kKeptBytes = std::size_t{16} << 10U;

 private:
  static constexpr std::size_t kPrefixBytes = 4;

  // Frames of our own encoder are multiples of 8 bytes long, so that only the first of a read may need the copy.
  std::span<const std::byte> aligned(std::span<const std::byte> frame) {
    if (reinterpret_cast<std::uintptr_t>(frame.data()) % 8 == 0) return frame;
    scratch_.resize((frame.size() + 7) / 8);
    std::memcpy(scratch_.data(), frame.data(), frame.size());
    return std::as_bytes(std::span(scratch_)).first(frame.size());
  }

  std::vector<std::byte> buffer_;
  std::size_t begin_{};  // of the first byte that was not handed out
  std::vector<std::uint64_t> scratch_;
};

}  // namespace tensorforge::codec
