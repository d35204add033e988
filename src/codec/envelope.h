#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include <flatbuffers/flatbuffers.h>

namespace tensorforge::codec {

/// The tables around what a message is about, in front of it. Two of a kind differ there in numbers and offsets only,
/// so the library writes them once, and from then on they are copied and changed in place.
///
/// Threads: none.
class Envelope {
 public:
  /// What `write(builder, inside)` writes in front of a stand-in of as many bytes as `inside_bytes`, as far as padding
  /// goes. It writes the same fields each time, of 8 bytes one at least, and what is to be changed as anything but its
  /// default.
  template <class Write>
  std::string_view around(std::size_t inside_bytes, const Write& write) {
    std::string& front = fronts_[inside_bytes % kAlignment];
    if (front.empty()) {
      const std::size_t stand_in = kAlignment + inside_bytes % kAlignment;
      flatbuffers::FlatBufferBuilder builder;
      builder.Pad(stand_in);
      write(builder, flatbuffers::Offset<void>(static_cast<flatbuffers::uoffset_t>(stand_in)));
      front.assign(reinterpret_cast<const char*>(builder.GetCurrentBufferPointer()), builder.GetSize() - stand_in);
    }
    return front;
  }

 private:
  static constexpr std::size_t kAlignment = 8;  ///< the largest of our schemas

  std::array<std::string, kAlignment> fronts_;  ///< by the remainder of what is inside
};

}  // namespace tensorforge::codec
