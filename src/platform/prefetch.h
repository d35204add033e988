#pragma once

#include <cstddef>

namespace tensorforge {

inline constexpr std::size_t kCacheLineBytes = 64;

/// Tells the memory that these bytes will be read soon, and does not wait for them. They need not be there; nullptr
/// only with at most one line of them.
inline void prefetch_bytes(const void* begin, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += kCacheLineBytes) {
    __builtin_prefetch(static_cast<const std::byte*>(begin) + at);
  }
}

template <class T>
void prefetch_object(const T* object) {
  prefetch_bytes(object, sizeof(T));
}

/// Who knows what will be looked up next, tells the memory step by step, each some hundred nanoseconds after the one
/// before, since a step follows pointers that the one before has asked for. Waiting for many at once costs little more
/// than waiting for one does. A step that is left out, or comes too early, costs time and nothing else.
enum class PrefetchStep {
  Index,    ///< the place in the index
  Entity,   ///< what stands there
  Related,  ///< what that leads to
  Further   ///< what that leads to in its turn
};
inline constexpr PrefetchStep kPrefetchSteps[] = {PrefetchStep::Index, PrefetchStep::Entity, PrefetchStep::Related,
                                                  PrefetchStep::Further};

}  // namespace tensorforge
