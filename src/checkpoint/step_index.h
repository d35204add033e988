#pragma once

#include <cstdint>

namespace tensorforge::checkpoint {

struct Node;

/// Some checkpoints of one run by step, then creation: finds the last one under a bound on the step and a bound on the
/// epoch, whatever the relation of the two.
///
/// An AVL tree threaded through the nodes themselves, in which each node knows the lowest epoch below it (G. Adelson-
/// Velsky and E. Landis, 1962; augmented as in Cormen et al., "Introduction to Algorithms", chapter 14). Its height is
/// at most 1.45 log2 n, so no history can make it slow or its recursion deep. A node is in at most one index.
///
/// Cost: O(log n) each.
class StepIndex {
 public:
  struct Link {
    Node *left{}, *right{};
    std::uint32_t min_epoch{};
    std::uint8_t height{};
  };

  void insert(Node& node);
  void erase(Node& node);  ///< it must be in
  /// nullptr: none with step <= max_step and epoch <= max_epoch.
  const Node* last(std::uint64_t max_step, std::uint32_t max_epoch) const;

 private:
  Node* root_{};
};

}  // namespace tensorforge::checkpoint
