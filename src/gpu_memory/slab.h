#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace tensorforge::gpu_memory {

/// Memory for objects of one kind that come and go: each stays where it is, and one that was given back is the next
/// to be handed out. It grows by half and shrinks only when it ends.
///
/// Threads: none.
template <class T>
class Slab {
  static_assert(std::is_trivially_destructible_v<T>);

 public:
  template <class... Arguments>
  T* make(Arguments&&... arguments) {
    if (free_ == nullptr) grow();
    Cell* const cell = free_;
    free_ = cell->next;
    return std::construct_at(reinterpret_cast<T*>(cell), std::forward<Arguments>(arguments)...);
  }
  void give_back(T* object) {
    auto* const cell = reinterpret_cast<Cell*>(object);
    std::construct_at(cell)->next = free_;
    free_ = cell;
  }

 private:
  union alignas(T) Cell {
    Cell* next;
    std::byte object[sizeof(T)];
  };

  void grow() {
    const std::size_t cells = std::clamp(cells_ / 2, kLeast, kMost);
    chunks_.push_back(std::make_unique_for_overwrite<Cell[]>(cells));
    cells_ += cells;
    Cell* const chunk = chunks_.back().get();
    for (std::size_t i = cells; i-- > 0;) {  // the first cell is the first to go
      chunk[i].next = free_;
      free_ = &chunk[i];
    }
  }

  static constexpr std::size_t kLeast = 16, kMost = 4'096;
  Cell* free_{};
  std::size_t cells_{};
  std::vector<std::unique_ptr<Cell[]>> chunks_;
};

}  // namespace tensorforge::gpu_memory
