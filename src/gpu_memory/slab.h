#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "platform/huge_pages.h"

namespace tensorforge::gpu_memory {

/// Memory for objects of one kind that come and go: each stays where it is, and the memory of one that was destroyed is
/// the next to be handed out. It grows by half, by a huge page at the most, and shrinks only when it ends. Those that
/// need a destructor are to be destroyed before.
///
/// Threads: none.
template <class T>
class Slab {
 public:
  template <class... Arguments>
  T* make(Arguments&&... arguments) {
    return std::construct_at(reinterpret_cast<T*>(take_cell()), std::forward<Arguments>(arguments)...);
  }
  void destroy(T* object) {
    std::destroy_at(object);
    auto* const cell = ::new (static_cast<void*>(object)) Cell;  // without (): all of it would be zeroed
    cell->next = free_;
    free_ = cell;
  }

 private:
  union alignas(T) Cell {
    Cell* next;
    std::byte object[sizeof(T)];
  };
  struct Free {
    void operator()(Cell* chunk) const { std::free(chunk); }
  };

  Cell* take_cell() {
    if (free_ != nullptr) return std::exchange(free_, free_->next);
    if (fresh_ == fresh_end_) grow();
    return fresh_++;
  }

  void grow() {
    const std::size_t cells = std::clamp(cells_ / 2, kLeast, kMost);
    const std::size_t bytes = cells == kMost ? kHugePageBytes : cells * sizeof(Cell);
    auto* const chunk = static_cast<Cell*>(allocate_huge(bytes, alignof(Cell)));
    chunks_.emplace_back(chunk);
    cells_ += cells;
    fresh_ = chunk;
    fresh_end_ = chunk + cells;
  }

  static constexpr std::size_t kLeast = std::max<std::size_t>(1, 1'024 / sizeof(Cell)),
                               kMost = kHugePageBytes / sizeof(Cell);
  Cell* free_{};                  ///< given back
  Cell *fresh_{}, *fresh_end_{};  ///< never handed out
  std::size_t cells_{};
  std::vector<std::unique_ptr<Cell[], Free>> chunks_;
};

}  // namespace tensorforge::gpu_memory
