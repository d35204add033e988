#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/container/btree_set.h"

namespace tensorforge::checkpoint {

struct Node;

/// Checkpoints of a run that have a certain metric, in the order of its values, none of which is NaN.
///
/// Cost: O(log n), and what best_first() visits.
/// Threads: none.
class MetricIndex {
 public:
  struct Entry {
    double value{};
    std::uint64_t step{};  ///< the node's, so that most ties are told apart without reading it
    const Node* node{};
  };

  void insert(const Entry& entry) { by_value_.insert(entry); }
  void erase(const Entry& entry) { by_value_.erase(entry); }
  bool empty() const { return by_value_.empty(); }

  /// The best first, until `visit` returns false: of the lowest value (`ascending`) or the highest, ties to the later
  /// step, then the later creation. `after`: only those behind that one, which need not be here any more.
  void best_first(bool ascending, const std::optional<Entry>& after,
                  const std::function<bool(const Entry&)>& visit) const;

 private:
  struct ByValue {
    using is_transparent = void;
    bool operator()(const Entry& a, const Entry& b) const;
    bool operator()(const Entry& a, double b) const { return a.value < b; }
    bool operator()(double a, const Entry& b) const { return a < b.value; }
  };

  absl::btree_set<Entry, ByValue> by_value_;  ///< of one value in the order of steps and creation
};

}  // namespace tensorforge::checkpoint
