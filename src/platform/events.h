#pragma once

#include <span>
#include <type_traits>
#include <unordered_set>
#include <vector>

namespace tensorforge::events {

/// The first of each `id`, in order. E has a member `id` that std::hash knows.
template <class E>
std::vector<E> deduplicate(std::span<const E> events) {
  std::unordered_set<std::remove_cv_t<decltype(E::id)>> seen;
  std::vector<E> unique;
  for (const E& event : events) {
    if (seen.insert(event.id).second) unique.push_back(event);
  }
  return unique;
}

}  // namespace tensorforge::events
