#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/projection.h"

namespace tensorforge::checkpoint {

/// The order of checkpoints by one metric, best first; ties go to the later step, then the later creation.
class MetricRanking {
 public:
  struct Ranked {
    const Node* node;
    double value;
  };

  /// `ascending`: lower is better.
  MetricRanking(std::string_view metric_key, bool ascending) : key_(metric_key), ascending_(ascending) {}

  /// nullopt: it has no such metric.
  std::optional<Ranked> ranked(const Node& node) const {
    const auto metric = node.metrics.find(key_);
    if (metric == node.metrics.end()) return std::nullopt;
    return Ranked{&node, metric->second};
  }
  /// Whether `a` is better.
  bool operator()(const Ranked& a, const Ranked& b) const;
  /// Leaves the `n` best, in order. O(size + n log n).
  void keep_best(std::vector<Ranked>& all, std::size_t n) const;

 private:
  std::string key_;
  bool ascending_;
};

}  // namespace tensorforge::checkpoint
