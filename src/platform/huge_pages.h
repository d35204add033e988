#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>

#include <sys/mman.h>

namespace tensorforge {

inline constexpr std::size_t kHugePageBytes = std::size_t{2} << 20U;

/// `bytes` of uninitialised memory at a multiple of `alignment`, a power of two up to a huge page, to be given back to
/// std::free(). From the size of a huge page on they begin at one, and the kernel is asked to use such, but for what
/// fills no whole one: what is visited in no order costs, with small pages, a walk through the page tables at each
/// visit too. Where the kernel has none to give, all works as well. Throws std::bad_alloc.
///
/// Threads: any.
inline void* allocate_huge(std::size_t bytes, std::size_t alignment) {
  void* memory = nullptr;
  const bool huge = bytes >= kHugePageBytes;
  const std::size_t at = huge ? kHugePageBytes : std::max(alignment, alignof(std::max_align_t));
  if (posix_memalign(&memory, at, bytes) != 0) throw std::bad_alloc();
  if (huge) madvise(memory, bytes / kHugePageBytes * kHugePageBytes, MADV_HUGEPAGE);
  return memory;
}

/// allocate_huge() for containers: for hash tables that grow large.
template <class T>
struct HugePageAllocator {
  using value_type = T;

  HugePageAllocator() = default;
  template <class U>
  HugePageAllocator(const HugePageAllocator<U>&) {}  // NOLINT(google-explicit-constructor): as allocators convert

  T* allocate(std::size_t count) {
    if (count > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(allocate_huge(count * sizeof(T), alignof(T)));
  }
  void deallocate(T* memory, std::size_t) { std::free(memory); }

  friend bool operator==(const HugePageAllocator&, const HugePageAllocator&) { return true; }
};

}  // namespace tensorforge
