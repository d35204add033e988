#pragma once

#include <cstddef>

#include <malloc.h>

namespace tensorforge::test {

/// Bytes that the process has from its allocator and has not given back, its rounding included.
inline std::size_t allocated_bytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

}  // namespace tensorforge::test
