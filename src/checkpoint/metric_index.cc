#include "checkpoint/metric_index.h"

#include <iterator>

#include "checkpoint/projection.h"

namespace tensorforge::checkpoint {

bool MetricIndex::ByValue::operator()(const Entry& a, const Entry& b) const {
  if (a.value != b.value) return a.value < b.value;
  if (a.step != b.step) return a.step < b.step;
  return ByPlace()(a.node, b.node);
}

void MetricIndex::best_first(bool ascending, const std::optional<Entry>& after,
                             const std::function<bool(const Entry&)>& visit) const {
  if (!ascending) {
    for (auto end = after ? by_value_.lower_bound(*after) : by_value_.end(); end != by_value_.begin();) {
      if (!visit(*--end)) return;
    }
    return;
  }
  // From one value to the next higher one, and among equal ones backwards.
  auto end = by_value_.begin();   // behind those of `value` that are still to be visited
  auto next = by_value_.begin();  // the first one of a higher value
  double value = 0;
  if (after) {
    value = after->value;
    end = by_value_.lower_bound(*after);
    next = by_value_.upper_bound(value);
  }
  for (;;) {
    while (end != by_value_.begin()) {
      --end;
      if (end->value != value) break;
      if (!visit(*end)) return;
    }
    if (next == by_value_.end()) return;
    value = next->value;
    end = std::next(next);
    if (end != by_value_.end() && end->value == value) end = by_value_.upper_bound(value);
    next = end;
  }
}

}  // namespace tensorforge::checkpoint
